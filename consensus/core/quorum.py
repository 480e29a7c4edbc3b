"""Quorum sizes for n replicas; no other module computes one.

`2f+1` is wrong whenever n is not 3f+1: at n = 2, 3, 5, 6, 20, 21 two such sets may share only
liars (bft.md section 2). Invariants, tested for every n: 2Q - n >= f + 1, Q <= n - f, W <= Q.
"""


def faults(members: int) -> int:
    """f: how many replicas may lie. 0 up to n = 3, which therefore tolerates a crash at most."""
    return (members - 1) // 3


def quorum(members: int) -> int:
    """Q: any two sets of this size share an honest replica."""
    return (members + faults(members) + 2) // 2


def weak_quorum(members: int) -> int:
    """W: a set of this size holds an honest replica, and no quorum exists without one of it."""
    return max(faults(members) + 1, members - quorum(members) + 1)
