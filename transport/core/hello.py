"""HELLO: what two nodes tell each other once their keys are proven, and who may stay.

    dialler                          acceptor
    HELLO          ------------->    judge, ask the verifier
    judge, verify  <-------------    HELLO
    READY          ------------->    admitted
    admitted

Each side admits the other only after its own HELLO was accepted, so `dial()` and `accept()` both
mean "both agreed". Roles and capabilities are hints; context and credential are carried for the
layers above and not looked into.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from native.codec import CodecError, Value, decode, encode
from transport.core.events import CloseReason
from transport.core.frames import ControlType
from transport.errors import HelloRefused, MalformedHello
from transport.limits import (
    HELLO_CONTEXT_BYTES_MAX,
    HELLO_CREDENTIAL_BYTES_MAX,
    HELLO_ITEMS_MAX,
    HELLO_SIZE_BYTES_MAX,
    HELLO_TEXT_CHARS_MAX,
)

PROTOCOL_VERSION: Final = 1
CHAIN_ID_SIZE_BYTES: Final = 32
INSTANCE_SIZE_BYTES: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class HelloOffer:
    """What the owner of an endpoint says about itself."""

    chain_id: bytes
    chain_name: str
    roles: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    context: bytes = b""
    credential: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello(HelloOffer):
    """An offer on the wire. `instance` is drawn anew whenever an endpoint starts, so that a peer
    can tell a restart from a second connection."""

    instance: bytes
    version: int = PROTOCOL_VERSION

    @classmethod
    def of(cls, offer: HelloOffer, instance: bytes) -> "Hello":
        """Complete an offer; raises `MalformedHello` when it breaks a limit of the wire."""
        hello = cls(
            chain_id=offer.chain_id,
            chain_name=offer.chain_name,
            roles=offer.roles,
            capabilities=offer.capabilities,
            context=offer.context,
            credential=offer.credential,
            instance=instance,
        )
        return decode_hello(encode_hello(hello))


def encode_hello(hello: Hello) -> bytes:
    """Body of a HELLO frame."""
    return encode(
        (
            hello.version,
            hello.chain_id,
            hello.chain_name,
            hello.roles,
            hello.capabilities,
            hello.context,
            hello.credential,
            hello.instance,
        )
    )


def decode_hello(body: bytes) -> Hello:
    """Raises `MalformedHello`; only the version is read of a HELLO from a later version."""
    try:
        value = decode(body, size_max=HELLO_SIZE_BYTES_MAX)
    except CodecError as error:
        raise MalformedHello(f"HELLO is not canonical: {error}") from None
    match value:
        case (int(version), *_) if not isinstance(version, bool) and version != PROTOCOL_VERSION:
            raise HelloRefused(
                CloseReason.OTHER_VERSION,
                f"protocol version {version} is not {PROTOCOL_VERSION}",
            )
        case (
            int(version),
            bytes(chain_id),
            str(chain_name),
            tuple(roles),
            tuple(capabilities),
            bytes(context),
            bytes(credential),
            bytes(instance),
        ) if not isinstance(version, bool):
            pass
        case _:
            raise MalformedHello("HELLO of an unknown form")
    if len(chain_id) != CHAIN_ID_SIZE_BYTES or len(instance) != INSTANCE_SIZE_BYTES:
        raise MalformedHello("HELLO with a chain id or instance of the wrong size")
    if len(context) > HELLO_CONTEXT_BYTES_MAX or len(credential) > HELLO_CREDENTIAL_BYTES_MAX:
        raise MalformedHello("HELLO with too long a context or credential")
    return Hello(
        version=version,
        chain_id=chain_id,
        chain_name=_text(chain_name),
        roles=_texts(roles),
        capabilities=_texts(capabilities),
        context=context,
        credential=credential,
        instance=instance,
    )


def chain_text(hello: HelloOffer) -> str:
    """A chain as people read it: its name and the start of its id."""
    return f"{hello.chain_name}-{hello.chain_id.hex()[:8]}"


def judge(ours: HelloOffer, theirs: Hello) -> None:
    """Raises `HelloRefused` unless both are on one chain."""
    if theirs.chain_id != ours.chain_id:
        raise HelloRefused(
            CloseReason.OTHER_CHAIN,
            f"this node is on chain {chain_text(ours)} ({ours.chain_id.hex()}), "
            f"the peer on {chain_text(theirs)} ({theirs.chain_id.hex()})",
        )


class Step(Enum):
    """Where one side stands."""

    AWAIT_HELLO = auto()
    AWAIT_READY = auto()
    ADMITTED = auto()


# (step, frame, dialled by us) -> next step. A pair that is not here is a protocol violation.
TRANSITIONS: Final = {
    (Step.AWAIT_HELLO, ControlType.HELLO, True): Step.ADMITTED,
    (Step.AWAIT_HELLO, ControlType.HELLO, False): Step.AWAIT_READY,
    (Step.AWAIT_READY, ControlType.READY, False): Step.ADMITTED,
}


class HelloExchange:
    """One side of the exchange. It keeps the order; its owner sends, verifies and admits."""

    __slots__ = ("dialled", "ours", "step", "theirs")

    def __init__(self, ours: Hello, *, dialled: bool) -> None:
        self.ours = ours
        self.dialled = dialled
        self.step = Step.AWAIT_HELLO
        self.theirs: Hello | None = None

    def receive(self, frame_type: int, body: bytes) -> Step:
        """Take one control frame; raises `MalformedHello` or `HelloRefused`."""
        try:
            step = TRANSITIONS[self.step, ControlType(frame_type), self.dialled]
        except (KeyError, ValueError):
            raise MalformedHello(f"control frame {frame_type} at {self.step.name}") from None
        if frame_type == ControlType.HELLO:
            theirs = decode_hello(body)
            judge(self.ours, theirs)
            self.theirs = theirs
        elif body:
            raise MalformedHello("READY carries nothing")
        self.step = step
        return step


def _text(value: Value) -> str:
    if not isinstance(value, str) or len(value) > HELLO_TEXT_CHARS_MAX or not value.isprintable():
        raise MalformedHello("HELLO with a text that is too long or not printable")
    return value


def _texts(values: tuple[Value, ...]) -> tuple[str, ...]:
    if len(values) > HELLO_ITEMS_MAX:
        raise MalformedHello("HELLO with too many roles or capabilities")
    return tuple(_text(value) for value in values)
