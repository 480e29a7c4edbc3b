"""A small chain to drive by hand: named wallets, blocks of payloads, the outcome of each."""

from collections.abc import Sequence
from functools import cache

from caesar.core.addresses import Address, address_of
from caesar.core.genesis import LedgerGenesis
from caesar.core.receipts import Outcome
from caesar.core.rules import Parameters
from caesar.core.transactions import Transaction, Transfer
from caesar.runtime.application import LedgerApplication
from caesar.runtime.wallet import sign_transaction
from consensus.application import Block, Executed
from consensus.core.messages import BlockHeader
from consensus.core.types import NO_DIGEST, Epoch, Height
from native.batches import Batch
from native.keys import SecretKey
from native.values import Algorithm, Amount, Digest

CHAIN = Digest(b"\x2a" * 32)
FEE = 10
MILLION = 1_000_000


@cache
def wallet(name: str) -> SecretKey:
    """A key per name, made once a test run."""
    del name
    return SecretKey.generate(Algorithm.FALCON_512)


def address(name: str) -> Address:
    """Address of a named wallet."""
    return address_of(wallet(name).public)


def plain_address(number: int) -> Address:
    """An address that nobody can sign for."""
    return Address(number.to_bytes(32, "big"))


def genesis(rich: Sequence[str] = ("alice", "bob"), fee: int = FEE) -> LedgerGenesis:
    """A million base units for each of `rich`."""
    return LedgerGenesis(
        allocations=tuple((address(name), Amount(MILLION)) for name in rich),
        parameters=Parameters(transfer_fee=Amount(fee), valid_for_blocks_max=1_000),
    )


def block(height: int, payloads: Sequence[bytes]) -> Block:
    """A block as consensus would hand it over."""
    header = BlockHeader(
        chain_id=CHAIN,
        height=Height(height),
        epoch=Epoch(0),
        parent=NO_DIGEST,
        batch=NO_DIGEST,
        time_ms=height,
        state_root=NO_DIGEST,
    )
    return Block(header=header, batch=Batch.of(payloads))


def pay(
    sender: str = "alice",
    recipient: Address | str = "bob",
    amount: int = 100,
    *,
    sequence: int = 0,
    lane: int = 0,
    valid_until: int = 500,
    max_fee: int = FEE * 64,
    key: bool = True,
    chain_id: Digest = CHAIN,
    more: Sequence[tuple[Address, int]] = (),
    signer: str | None = None,
    as_sender: Address | None = None,
) -> bytes:
    """A signed transfer with anything about it changeable."""
    first = address(recipient) if isinstance(recipient, str) else recipient
    transaction = Transaction(
        chain_id=chain_id,
        sender=as_sender if as_sender is not None else address(sender),
        lane=lane,
        sequence=sequence,
        valid_until=valid_until,
        max_fee=Amount(max_fee),
        operations=tuple(
            Transfer(recipient=to, amount=Amount(value)) for to, value in ((first, amount), *more)
        ),
    )
    return sign_transaction(wallet(signer or sender), transaction, carries_key=key).payload


class World:
    """An application and its height."""

    def __init__(self, start: LedgerGenesis | None = None) -> None:
        """Enter genesis."""
        self.start = start or genesis()
        self.application = LedgerApplication(CHAIN, self.start)
        self.application.genesis()
        self.height = 0
        self.deltas: list[tuple[Height, bytes]] = []

    def execute(self, *payloads: bytes) -> Executed:
        """Execute the next block."""
        self.height += 1
        made = block(self.height, payloads)
        executed = self.application.execute(made, range(len(payloads)))
        self.deltas.append((Height(self.height), executed.delta))
        return executed

    def outcomes(self, *payloads: bytes) -> list[Outcome]:
        """Execute the next block and name the outcomes."""
        return [Outcome(code) for code in self.execute(*payloads).codes]

    def advice(self, *payloads: bytes) -> list[Outcome]:
        """What admission says."""
        advice = self.application.check(Batch.of(payloads), range(len(payloads)))
        return [Outcome(code) for code in advice.codes]

    def skip_to(self, height: int) -> None:
        """Execute empty blocks up to a height."""
        while self.height < height:
            self.execute()

    def balance(self, who: Address | str) -> int:
        """Committed balance."""
        found = address(who) if isinstance(who, str) else who
        return self.application.account(found).balance
