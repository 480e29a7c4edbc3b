"""What `hypermesh stoq` does: reach a peer, measure a path, judge this machine's network."""
