"""Everything that can go wrong for an operator, each with a stable code and a next step.

Codes: 0xx runtime, 1xx configuration, 2xx genesis and home, 3xx reaching a node, 4xx clusters,
5xx wallets, 6xx HTTP, 7xx certificates and the log, 8xx validators, 9xx the chain. A code is never
reused for something else.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """How a command ends; the same for every command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    CONFIGURATION = 3
    NOT_REACHABLE = 4
    NOT_READY = 5
    UNSAFE = 6
    NOT_ALLOWED = 7
    INTERRUPTED = 130


EXIT_CODE_MEANING: dict[ExitCode, str] = {
    ExitCode.OK: "success, also when there was nothing to do",
    ExitCode.FAILED: "the operation failed",
    ExitCode.USAGE: "wrong use of the command, also a file it names that cannot be read",
    ExitCode.CONFIGURATION: "configuration, genesis or home folder invalid",
    ExitCode.NOT_REACHABLE: "node not reachable",
    ExitCode.NOT_READY: "reachable, but not ready or degraded",
    ExitCode.UNSAFE: "refused for safety",
    ExitCode.NOT_ALLOWED: "not allowed",
    ExitCode.INTERRUPTED: "interrupted",
}


class NodeError(Exception):
    """Root of this room's errors: one sentence, a code, a next step and an exit code."""

    code: ClassVar[str] = "HM-D-001"
    exit_code: ClassVar[ExitCode] = ExitCode.FAILED

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InvalidArgument(NodeError):
    """An argument of a command has the wrong form."""

    code = "HM-D-002"
    exit_code = ExitCode.USAGE


class InputMissing(NodeError):
    """A file that the command line names is not there."""

    code = "HM-D-004"
    exit_code = ExitCode.USAGE


class InputUnreadable(NodeError):
    """A file that the command line names is binary, too long, or may not be read."""

    code = "HM-D-005"
    exit_code = ExitCode.USAGE


class GenesisInvalid(NodeError):
    """`genesis.json` is not a genesis: the message names the place."""

    code = "HM-D-201"
    exit_code = ExitCode.CONFIGURATION


class HomeIncomplete(NodeError):
    """A file that the home folder must hold is not there."""

    code = "HM-D-202"
    exit_code = ExitCode.CONFIGURATION


class HomeExists(NodeError):
    """The home folder already belongs to a node; making a new one would endanger its key."""

    code = "HM-D-203"
    exit_code = ExitCode.UNSAFE


class KeyMismatch(NodeError):
    """A key file does not belong to the validator that genesis names."""

    code = "HM-D-204"
    exit_code = ExitCode.CONFIGURATION


class FileModeUnsafe(NodeError):
    """A file with a secret may be read by others."""

    code = "HM-D-205"
    exit_code = ExitCode.UNSAFE


class DatabaseInvalid(NodeError):
    """A database is damaged, of another chain, or of another format."""

    code = "HM-D-207"
    exit_code = ExitCode.CONFIGURATION


class DiskFailed(NodeError):
    """The disk took no more while the node ran: full, read-only, or failing. The node stops."""

    code = "HM-D-210"
    exit_code = ExitCode.FAILED


class AlreadyRunning(NodeError):
    """Another process runs this home folder."""

    code = "HM-D-208"
    exit_code = ExitCode.UNSAFE


class KeyUnreadable(NodeError):
    """A key file is damaged or its passphrase is wrong."""

    code = "HM-D-209"
    exit_code = ExitCode.CONFIGURATION


class NotReachable(NodeError):
    """No node answers at the address."""

    code = "HM-D-301"
    exit_code = ExitCode.NOT_REACHABLE


class StoqUnfit(NodeError):
    """This machine's network cannot carry STOQ."""

    code = "HM-D-308"


class NotReady(NodeError):
    """The node answers but cannot serve, or did not become ready in time."""

    code = "HM-D-302"
    exit_code = ExitCode.NOT_READY


class UnexpectedAnswer(NodeError):
    """What answers at the address is not a HyperMesh node of this version."""

    code = "HM-D-303"
    exit_code = ExitCode.NOT_REACHABLE


class OperationRefused(NodeError):
    """The node answered with a refusal; its own code, cause and next step are shown."""

    code = "HM-D-304"

    def __init__(
        self, message: str, *, hint: str, remote_code: str, status: int, cause: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.remote_code = remote_code
        self.status = status
        self.cause = cause


class NodeNotFound(NodeError):
    """The selector names no node."""

    code = "HM-D-305"
    exit_code = ExitCode.USAGE


class PortInUse(NodeError):
    """A port that a node needs is taken; the holder is named where the system lets us see it."""

    code = "HM-D-401"
    exit_code = ExitCode.FAILED


class ClusterExists(NodeError):
    """A cluster of this name is already there."""

    code = "HM-D-402"
    exit_code = ExitCode.UNSAFE


class ClusterNotFound(NodeError):
    """No cluster of this name is there."""

    code = "HM-D-403"
    exit_code = ExitCode.USAGE


class ClusterStartFailed(NodeError):
    """At least one node did not start; the others are left as the message says."""

    code = "HM-D-404"
    exit_code = ExitCode.FAILED


class NotConfirmed(NodeError):
    """A dangerous command was not confirmed."""

    code = "HM-D-405"
    exit_code = ExitCode.UNSAFE


class NotRunning(NodeError):
    """There is no process to act on."""

    code = "HM-D-406"


class WalletExists(NodeError):
    """A wallet of this name is already there; it is never overwritten."""

    code = "HM-D-501"
    exit_code = ExitCode.UNSAFE


class WalletNotFound(NodeError):
    """No wallet of this name is there."""

    code = "HM-D-502"
    exit_code = ExitCode.USAGE


class PassphraseMissing(NodeError):
    """A passphrase is needed and nobody can be asked."""

    code = "HM-D-503"
    exit_code = ExitCode.USAGE


class PassphraseWrong(NodeError):
    """The passphrase does not open the key file."""

    code = "HM-D-504"
    exit_code = ExitCode.NOT_ALLOWED


class PaymentFailed(OperationRefused):
    """A transfer was executed and failed, or was refused; the ledger's own code is shown."""

    code = "HM-D-505"


class PaymentOpen(NodeError):
    """A transfer was sent and is not final yet: it may still be executed."""

    code = "HM-D-506"
    exit_code = ExitCode.NOT_READY


class ChainInvalid(NodeError):
    """A chain, from a node or from files, that does not hold: the message names the block."""

    code = "HM-D-911"


class ProofFileInvalid(NodeError):
    """A proof file that shows nothing."""

    code = "HM-D-912"


class RollbackUnsafe(NodeError):
    """Taking the newest block back could make this node contradict itself."""

    code = "HM-D-913"
    exit_code = ExitCode.UNSAFE


class StatesMoving(NodeError):
    """Two nodes' states cannot be compared while they are at different blocks."""

    code = "HM-D-914"
    exit_code = ExitCode.NOT_READY


class NotInBlock(NodeError):
    """No block that the node holds has what was asked for."""

    code = "HM-D-915"


class LoadRefused(NodeError):
    """A network executed nothing of a load that was put on it."""

    code = "HM-D-507"


class LogInvalid(NodeError):
    """The certificate log contradicts itself or its checkpoint."""

    code = "HM-D-702"


class ChangeFileInvalid(NodeError):
    """A file is not a proposed change of validators."""

    code = "HM-D-801"
    exit_code = ExitCode.USAGE


class ChangeOutdated(NodeError):
    """A change was proposed for another network, or for a validator set that votes no more."""

    code = "HM-D-802"
    exit_code = ExitCode.UNSAFE


class ChangeImpossible(NodeError):
    """The present validator set cannot be changed like this."""

    code = "HM-D-803"
    exit_code = ExitCode.USAGE


class NotAMember(NodeError):
    """The key of this home has no say in the change."""

    code = "HM-D-804"
    exit_code = ExitCode.NOT_ALLOWED


class ChangeOpen(NodeError):
    """The change was sent, but is not ordered yet."""

    code = "HM-D-805"
    exit_code = ExitCode.NOT_READY


class SnapshotMissing(NodeError):
    """The node has no complete snapshot of its state."""

    code = "HM-D-901"
    exit_code = ExitCode.NOT_READY


class WouldOverwrite(NodeError):
    """A folder is in use, or a state is newer than what would replace it."""

    code = "HM-D-902"
    exit_code = ExitCode.UNSAFE
