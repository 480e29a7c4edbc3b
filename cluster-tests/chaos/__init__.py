"""Chaos: a real cluster is hurt while a client pays through it, and then everything is compared.

Layout: `links.py` the links between nodes and `shim.py` (with `shim.c`) disk errors and clocks;
`mesh.py` nodes, links and shims of one cluster; `perturbations.py` what can be done to it, and its
undoing; `manifest.py` a run as a seed draws it; `client.py` the client that writes down what it was
told; `checks.py` the exact comparison; `linearizability.py` histories of reads; `run.py` the runner
behind `make chaos`.
"""
