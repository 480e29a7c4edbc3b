"""A whole cluster in one deterministic process: virtual time, network, disks, crashes, lies.

Layout: `world` is time and the network; `machine` is a processor, a clock and a bad disk; `node`
drives one real `Replica` exactly as the runtime does; `disk` forgets what was not synced; `liar`
makes a node Byzantine; `checker` watches; `faults` draws a plan from a seed; `run` plays it.
`twins` and `crashpoints` enumerate instead of drawing; `script` plays text files. `cases` numbers
all of these, `campaign` plays many, `coverage` says what a campaign must have met.
`python -m consensus.sim --seed N --n 4` replays a run.
"""
