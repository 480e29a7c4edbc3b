"""Directed hunts: clusters in the one situation where a certain bug can show itself.

A scene is a function of a seed. It draws the size, the places and the moments from the seed, brings
the cluster into its situation by taking messages out of the network, by crashes and by at most f
liars, heals it, and demands what every run must fulfil. Nothing in a scene knows of a planted bug:
played on the code as it is shipped, no scene may find anything, which is tested as well.
"""
