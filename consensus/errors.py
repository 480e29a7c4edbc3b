"""Everything that can go wrong here that is not a peer's lie.

Three kinds of wrong, three mechanisms: our own bug is `invariant()`, a peer's fault is the effect
`Misbehaved`, and what the operator or the world did wrong is the exception tree below.
"""


class ConsensusError(Exception):
    """Root of what this room raises across its border."""

    code = "HM-B-000"

    @property
    def hint(self) -> str:
        """The next step, in one sentence."""
        return "see the log of this node"


class MalformedMessage(ConsensusError):
    """Bytes from a peer that are not a valid message; says why, never with the bytes."""

    code = "HM-B-001"

    @property
    def hint(self) -> str:
        return "the sender runs other software or lies; its connection may be closed"


class UnknownEpoch(MalformedMessage):
    """A message of an epoch whose validators are not known here: this node is behind, or a liar.

    Nobody is to blame for it, and nothing in it can be checked.
    """

    code = "HM-B-006"

    @property
    def hint(self) -> str:
        return "none is needed: the node asks its peers for the certificates of later epochs"


class CorruptRecord(ConsensusError):
    """A durable record of ours that does not decode."""

    code = "HM-B-002"

    @property
    def hint(self) -> str:
        return (
            "move consensus.db away and start as after disk loss; the node recovers from its peers"
        )


class BirthMissing(ConsensusError):
    """The record store has no birth record, so this is not the store made with the key."""

    code = "HM-B-003"

    @property
    def hint(self) -> str:
        return (
            "move consensus.db, its -wal and its -shm away: the node then recovers from its peers"
        )


class WrongChain(ConsensusError):
    """The record store was made for another chain."""

    code = "HM-B-004"

    @property
    def hint(self) -> str:
        return "the data folder belongs to another network: check genesis.json and the home folder"


class ProofInvalid(ConsensusError):
    """A certificate or header that does not follow from what a light client trusts."""

    code = "HM-B-030"

    @property
    def hint(self) -> str:
        return (
            "ask another node; if several give the same proof, compare genesis.json with "
            "somebody you trust"
        )


class SnapshotInvalid(ConsensusError):
    """A state snapshot, or a chunk of one, that does not belong to the certified state."""

    code = "HM-B-005"

    @property
    def hint(self) -> str:
        return "fetch the snapshot again, from another node"


class InvariantError(AssertionError):
    """Our own bug: the process must stop before it says anything else under its key."""


def invariant(condition: object, message: str) -> None:
    """Raise `InvariantError` unless `condition`; a function, so `python -O` cannot remove it."""
    if not condition:
        raise InvariantError(message)
