"""Small networks of real processes on one machine: make, start, watch, hurt, remove.

Layout: `manifest.py` what a cluster is and where it lies, `create.py` keys, genesis and homes,
`operate.py` starting, stopping and signals.
"""
