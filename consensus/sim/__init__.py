"""A whole cluster in one deterministic process: virtual time, network, disks, crashes, lies.

Layout: `world` is time and the network; `node` drives one real `Replica` exactly as the runtime
does; `disk` forgets what was not synced; `liar` makes a node Byzantine; `checker` watches; `faults`
draws a plan from a seed; `run` plays it. `python -m consensus.sim --seed N --n 4` replays a run.
"""
