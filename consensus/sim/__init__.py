"""A whole cluster in one deterministic process: virtual time, network, disks, crashes, lies.

Layout: `world` is time and the network; `machine` is a processor, a clock and a bad disk; `node`
drives one real `Replica` exactly as the runtime does; `disk` forgets what was not synced, `damage`
spoils what was; `liars` are Byzantine nodes; `checker` watches; `faults` draws a plan from a seed;
`run` plays it, `membership` with a changing set of validators. `twins` and `crashpoints` enumerate
instead of drawing; `script` plays text files. `cases` numbers all of these, `campaign` plays many,
`coverage` says what a campaign must have met. `planted` holds known bugs, `scenes` the situations
they are hunted in, `kill_list` the hunt.
`python -m consensus.sim --seed N --n 4` replays a run.
"""
