"""One module for each phase of the protocol: functions over a `Replica`, named after the paper."""
