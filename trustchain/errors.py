"""Everything TrustChain raises across its border, each with a code and a next step."""

from __future__ import annotations


class TrustChainError(Exception):
    """Root of the errors of this package."""

    code: str = "HM-A-000"

    @property
    def hint(self) -> str:
        """What to do next, in one sentence."""
        return "see the message; if it does not help, this is a bug worth reporting"


class MalformedDER(TrustChainError):
    """Bytes that are not the canonical DER of what was expected."""

    code = "HM-A-001"

    @property
    def hint(self) -> str:
        return "re-create the file with a tool that writes DER; it may be cut or edited"


class MalformedName(TrustChainError):
    """A DNS name or name pattern that is not well formed."""

    code = "HM-A-002"

    @property
    def hint(self) -> str:
        return "use lower-case letters, digits, hyphens and dots, for example alice.mesh"


class MalformedOperation(TrustChainError):
    """An ordered operation that does not decode."""

    code = "HM-A-003"

    @property
    def hint(self) -> str:
        return "build the request with `hypermesh cert issue` of the same version as the node"


class MalformedRequest(TrustChainError):
    """A certification request or submission that cannot be taken."""

    code = "HM-A-004"

    @property
    def hint(self) -> str:
        return "create the request with `hypermesh cert issue`, or with openssl req and a SAN"


class MalformedBundle(TrustChainError):
    """A certificate bundle that is cut, edited or something else."""

    code = "HM-A-005"

    @property
    def hint(self) -> str:
        return "fetch it again with `hypermesh cert show --index N --save FILE`"


class MalformedCheckpoint(TrustChainError):
    """A checkpoint or cosignature that does not parse."""

    code = "HM-A-006"

    @property
    def hint(self) -> str:
        return "name a file that `hypermesh ctlog head --save FILE` wrote, unedited"


class MalformedGenesis(TrustChainError):
    """The log section of a genesis that cannot be true."""

    code = "HM-A-007"

    @property
    def hint(self) -> str:
        return "create a genesis with `hypermesh cluster new`; do not edit it by hand"


class KeyFileError(TrustChainError):
    """A key file that is missing, unreadable, locked or of the wrong kind."""

    code = "HM-A-008"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self._hint = hint or "check the path, the passphrase, and that the file has mode 0600"

    @property
    def hint(self) -> str:
        return self._hint


class StateCorrupt(TrustChainError):
    """Stored rows and deltas that do not add up to one log."""

    code = "HM-A-009"

    @property
    def hint(self) -> str:
        return "stop the node, move its state database away and let it catch up from peers"


class EntryUnknown(TrustChainError):
    """No log entry with this index, name or request id."""

    code = "HM-A-010"

    @property
    def hint(self) -> str:
        return "ask a node that has caught up, or check the index with `hypermesh ctlog head`"


class HeadUnknown(TrustChainError):
    """A tree size the log has not reached."""

    code = "HM-A-011"

    @property
    def hint(self) -> str:
        return "ask for a size of at most the one `hypermesh ctlog head` shows"


class CosignerBusy(TrustChainError):
    """Too many requests wait for a cosigned checkpoint."""

    code = "HM-A-012"

    @property
    def hint(self) -> str:
        return "retry in a second; the request keeps its index"


class MalformedCredentials(TrustChainError):
    """Bytes are not the log keys of a validator, or not proof that it holds them."""

    code = "HM-A-014"

    @property
    def hint(self) -> str:
        return "make them again with this version's `hypermesh validator key`"


class EpochEndUnproven(TrustChainError):
    """What is said of the log at the end of an epoch does not follow from a certified state."""

    code = "HM-A-015"

    @property
    def hint(self) -> str:
        return "fetch it again, from another node"


class RequestRefused(TrustChainError):
    """The agreed rules refuse a request; `code` is that of its outcome, HM-A-128 and above."""

    code = "HM-A-013"

    def __init__(self, outcome: int, *, code: str, text: str, hint: str) -> None:
        super().__init__(text)
        self.outcome = int(outcome)
        self.code = code
        self._hint = hint

    @property
    def hint(self) -> str:
        return self._hint


class VerificationError(TrustChainError):
    """A certificate that must not be trusted; each subclass is one rule."""

    code = "HM-A-100"

    @property
    def hint(self) -> str:
        return "do not use this certificate; ask its holder for a new one"


class ChainInvalid(VerificationError):
    """The X.509 chain does not lead to the root of genesis."""

    code = "HM-A-101"


class ProfileInvalid(VerificationError):
    """The certificate carries fields that this profile does not allow."""

    code = "HM-A-102"


class NotYetValid(VerificationError):
    """The time is before the certificate's validity."""

    code = "HM-A-103"

    @property
    def hint(self) -> str:
        return "check the clock of this machine"


class Expired(VerificationError):
    """The time is after the certificate's validity."""

    code = "HM-A-104"

    @property
    def hint(self) -> str:
        return "renew the certificate with `hypermesh cert issue`"


class NameMismatch(VerificationError):
    """The certificate is not for the expected name."""

    code = "HM-A-105"

    @property
    def hint(self) -> str:
        return "check the name; a certificate holds only for the names it lists"


class WrongLog(VerificationError):
    """The certificate or checkpoint belongs to another log."""

    code = "HM-A-106"

    @property
    def hint(self) -> str:
        return "verify with the genesis of the network that issued the certificate"


class NotInLog(VerificationError):
    """The entry derived from the certificate is not in the checkpointed log."""

    code = "HM-A-107"


class QuorumMissing(VerificationError):
    """Fewer validators of one epoch than needed cosigned the checkpoint."""

    code = "HM-A-108"

    @property
    def hint(self) -> str:
        return (
            "if validators were replaced since, fetch who cosigns now with `hypermesh cert "
            "cosigners --out FILE` and verify with --cosigners FILE; else fetch the bundle again "
            "once more validators are up"
        )


class CosignersLeft(VerificationError):
    """Only validators that had left before the certificate began cosigned it."""

    code = "HM-A-109"
