"""What `make bench` runs; not part of the wheel.

Layout
    run.py           the runner: progress on stderr, one JSON document on stdout
    report.py        Result, Suite, machine facts, progress
    falcon.py        signatures as seen from Python
    stoq.py          throughput and handshakes against aioquic
    bft.py           four real nodes under load, a killed primary, restart
    certificates.py  issue latency at a node's HTTP
    load.py          load generator: own process, pre-signed transactions, intended-send times
    network.py       a cluster of real processes driven through the `hypermesh` command
"""
