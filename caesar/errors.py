"""What this room raises. Outcomes of transactions are not errors: see `caesar.core.receipts`.

Outcome codes take HM-L-000 to HM-L-255, exceptions HM-L-300 and up. Our own bugs are
`caesar.core.invariants.InvariantError`, which stops the process.
"""

__all__ = [
    "AccountProofInvalid",
    "AddressInvalid",
    "CaesarError",
    "GenesisInvalid",
    "StateDamaged",
    "TransactionMalformed",
    "ValidatorPayloadMalformed",
]


class CaesarError(Exception):
    """Root of the exceptions of this room."""

    code = "HM-L-300"

    @property
    def hint(self) -> str:
        """The next step, in one sentence."""
        return "see the log of this node"


class AddressInvalid(CaesarError):
    """A text is not an account address."""

    code = "HM-L-301"

    @property
    def hint(self) -> str:
        return "an address starts with hm1 and has 61 characters; copy it again, whole"


class GenesisInvalid(CaesarError):
    """Allocations or parameters of the genesis file do not hold."""

    code = "HM-L-302"

    @property
    def hint(self) -> str:
        return "compare genesis.json with the one the other validators use"


class TransactionMalformed(CaesarError):
    """Bytes or fields are not a transaction."""

    code = "HM-L-303"

    @property
    def hint(self) -> str:
        return "build the transaction with `hypermesh wallet send` or caesar.runtime.wallet"


class AccountProofInvalid(CaesarError):
    """A proof does not lead from an account to the application root."""

    code = "HM-L-304"

    @property
    def hint(self) -> str:
        return "fetch proof and certificate again; if it stays, do not trust that node"


class StateDamaged(CaesarError):
    """The stored rows and deltas do not make up a ledger."""

    code = "HM-L-305"

    @property
    def hint(self) -> str:
        return "move state.db away and restart: the node executes its blocks again"


class ValidatorPayloadMalformed(CaesarError):
    """Bytes are neither a change of validators nor evidence."""

    code = "HM-L-306"

    @property
    def hint(self) -> str:
        return "make it with `hypermesh validator propose`"
