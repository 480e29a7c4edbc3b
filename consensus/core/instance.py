"""One sequence number on its way through the three phases, in the present view.

An instance does not know the rules (`phases/prepare.py` does): it keeps what was accepted and who
voted. Votes of the present view are kept before their PRE-PREPARE arrives, and the vote of the
highest later view is kept for each signer, so a signer can never fill more than two places.
"""

from dataclasses import dataclass

from consensus.core.messages import BatchHeader, PrePrepare, VoteVector
from consensus.core.types import ReplicaIndex, View
from native.values import Digest


@dataclass(frozen=True, slots=True)
class Ballot:
    """A PREPARE or COMMIT leaf, and where its signature is found."""

    view: View
    digest: Digest
    vector: VoteVector
    index: int


class Instance:
    """Votes and progress at one sequence number."""

    __slots__ = (
        "accepted_durably",
        "accepted_us",
        "asked",
        "batch",
        "commits",
        "committed",
        "conflict_told",
        "later_commits",
        "later_prepares",
        "pre_prepare",
        "prepared",
        "prepares",
        "reproposed",
        "sequence",
        "voted_commit",
        "voted_prepare",
    )

    def __init__(self, sequence: int) -> None:
        self.sequence = sequence
        self.batch: BatchHeader | None = None
        """What was committed here, in whatever view: final."""
        self.later_prepares: dict[ReplicaIndex, Ballot] = {}
        self.later_commits: dict[ReplicaIndex, Ballot] = {}
        self.prepares: dict[ReplicaIndex, Ballot] = {}
        self.commits: dict[ReplicaIndex, Ballot] = {}
        self._forget_view()

    def _forget_view(self) -> None:
        self.pre_prepare: PrePrepare | None = None
        self.reproposed = False
        self.accepted_durably = False
        self.accepted_us: int | None = None  # when it could first be voted for, in this life
        self.voted_prepare = False
        self.voted_commit = False
        self.prepared = False
        self.committed = False
        self.conflict_told = 0
        self.asked = False  # its proposer, for the body

    def move_to_view(self, view: View) -> None:
        """Forget everything of lower views but what was committed."""
        self._forget_view()
        self.prepares, self.later_prepares = _of_view(self.later_prepares, view)
        self.commits, self.later_commits = _of_view(self.later_commits, view)

    def voters(self, ballots: dict[ReplicaIndex, Ballot], digest: Digest) -> int:
        """Bit mask of the signers that voted for this digest in the present view."""
        mask = 0
        for signer, ballot in ballots.items():
            if ballot.digest == digest:
                mask |= 1 << signer
        return mask


def _of_view(
    ballots: dict[ReplicaIndex, Ballot], view: View
) -> tuple[dict[ReplicaIndex, Ballot], dict[ReplicaIndex, Ballot]]:
    present: dict[ReplicaIndex, Ballot] = {}
    later: dict[ReplicaIndex, Ballot] = {}
    for signer, ballot in ballots.items():
        if ballot.view == view:
            present[signer] = ballot
        elif ballot.view > view:
            later[signer] = ballot
    return present, later
