"""Which channel and frame type carries which message.

`encode(message)` gives the frame without a body. A PRE-PREPARE with its body is a PROPOSAL frame:
send `proposal_head(pre_prepare)` and the batch as two parts; the receiver takes it apart with
`split_proposal`. A body alone is a BODY frame, whose payload *is* the body. A body of more than
`INLINE_BODY_BYTES_MAX` is never in a PROPOSAL: the PRE-PREPARE names it by its root, and the
primary sends the BODY after it; whoever misses it asks any holder.
"""

from collections.abc import Callable
from enum import IntEnum
from typing import Final, assert_never

from consensus.core import wire
from consensus.core.messages import (
    Blocks,
    Chunk,
    EpochLink,
    Equivocation,
    FetchBlocks,
    FetchBodies,
    FetchChunk,
    FetchManifest,
    Manifest,
    Message,
    NewView,
    PrePrepare,
    RecoveryAnswer,
    Status,
    ViewChange,
    VoteVector,
)
from consensus.errors import MalformedMessage
from consensus.limits import MESSAGE_BYTES_MAX, VOTES_FRAME_BYTES_MAX
from native.codec import Value
from native.codec import encode as encode_value


class Channel(IntEnum):
    """The numbers are the leading kind bytes of STOQ streams."""

    VOTES = 1
    BULK = 2


class FrameType(IntEnum):
    """The u8 after the length. 0x10 and up are votes, 0x20 and up are bulk."""

    PRE_PREPARE = 0x10
    VOTES = 0x11
    VIEW_CHANGE = 0x12
    STATUS = 0x13
    EQUIVOCATION = 0x14
    FETCH_BLOCKS = 0x15
    FETCH_BODIES = 0x16
    FETCH_MANIFEST = 0x1A
    FETCH_CHUNK = 0x1B
    PROPOSAL = 0x20  # PRE-PREPARE and body
    BODY = 0x21
    NEW_VIEW = 0x22
    BLOCKS = 0x23
    RECOVERY_ANSWER = 0x24
    MANIFEST = 0x2A
    CHUNK = 0x2B
    PAYLOADS = 0x25  # payloads for custody, as a batch body; the runtime's own business
    EPOCH_LINK = 0x28  # the end of an epoch, for a node that is behind it


HEAD_SIZE_BYTES_MAX: Final = 8_192


def encode(message: Message) -> tuple[Channel, FrameType, bytes]:
    """The frame of a message, without any body."""
    match message:
        case VoteVector():
            return Channel.VOTES, FrameType.VOTES, wire.encode_votes(message)
        case PrePrepare():
            return Channel.VOTES, FrameType.PRE_PREPARE, encode_value(message.value())
        case ViewChange():
            return Channel.BULK, FrameType.VIEW_CHANGE, encode_value(message.value())
        case NewView():
            return Channel.BULK, FrameType.NEW_VIEW, encode_value(message.value())
        case Status():
            return Channel.VOTES, FrameType.STATUS, wire.encode_status(message)
        case RecoveryAnswer():
            return (
                Channel.BULK,
                FrameType.RECOVERY_ANSWER,
                wire.encode_recovery_answer(message),
            )
        case Equivocation():
            value = (message.first.value(), message.second.value())
            return Channel.VOTES, FrameType.EQUIVOCATION, encode_value(value)
        case FetchBlocks():
            return Channel.VOTES, FrameType.FETCH_BLOCKS, encode_value((message.first,))
        case FetchBodies():
            return Channel.VOTES, FrameType.FETCH_BODIES, encode_value((message.payload_roots,))
        case Blocks():
            return Channel.BULK, FrameType.BLOCKS, wire.encode_blocks(message)
        case EpochLink():
            return Channel.BULK, FrameType.EPOCH_LINK, encode_value(message.value())
        case FetchManifest():
            return Channel.VOTES, FrameType.FETCH_MANIFEST, encode_value((message.above,))
        case FetchChunk():
            place = (message.snapshot, message.index)
            return Channel.VOTES, FrameType.FETCH_CHUNK, encode_value(place)
        case Manifest():
            return Channel.BULK, FrameType.MANIFEST, wire.encode_manifest(message)
        case Chunk():
            chunk = (message.snapshot, message.index, message.data)
            return Channel.BULK, FrameType.CHUNK, encode_value(chunk)
        case _:
            assert_never(message)


def decode(frame_type: int, data: bytes, bounds: wire.Bounds) -> Message:
    """The message in a frame that carries one; raises `MalformedMessage`."""
    reader = _READERS.get(frame_type)
    if reader is None:
        raise MalformedMessage("unknown frame type")
    size_max = VOTES_FRAME_BYTES_MAX if frame_type in SMALL else MESSAGE_BYTES_MAX
    return reader(wire.decode_value(data, size_max), bounds)


def proposal_head(pre_prepare: PrePrepare) -> bytes:
    """The first part of a PROPOSAL frame; the body of the batch is the second."""
    head = encode_value(pre_prepare.value())
    return len(head).to_bytes(2, "big") + head


def split_proposal(data: bytes, bounds: wire.Bounds) -> tuple[PrePrepare, memoryview]:
    """PRE-PREPARE and body of a PROPOSAL frame; the body is not looked at."""
    size = int.from_bytes(data[:2], "big")
    if len(data) < 2 + size or size > HEAD_SIZE_BYTES_MAX:
        raise MalformedMessage("truncated proposal")
    value = wire.decode_value(data[2 : 2 + size], HEAD_SIZE_BYTES_MAX)
    return wire.pre_prepare(value, bounds), memoryview(data)[2 + size :]


_READERS: Final[dict[int, Callable[[Value, wire.Bounds], Message]]] = {
    FrameType.PRE_PREPARE: wire.pre_prepare,
    FrameType.VOTES: wire.votes,
    FrameType.VIEW_CHANGE: wire.view_change,
    FrameType.STATUS: wire.status,
    FrameType.EQUIVOCATION: wire.equivocation,
    FrameType.FETCH_BLOCKS: wire.fetch_blocks,
    FrameType.FETCH_BODIES: wire.fetch_bodies,
    FrameType.NEW_VIEW: wire.new_view,
    FrameType.BLOCKS: wire.blocks,
    FrameType.RECOVERY_ANSWER: wire.recovery_answer,
    FrameType.EPOCH_LINK: wire.epoch_link,
    FrameType.FETCH_MANIFEST: wire.fetch_manifest,
    FrameType.FETCH_CHUNK: wire.fetch_chunk,
    FrameType.MANIFEST: wire.manifest,
    FrameType.CHUNK: wire.chunk,
}
SMALL: Final = frozenset(
    {
        FrameType.PRE_PREPARE,
        FrameType.VOTES,
        FrameType.STATUS,
        FrameType.EQUIVOCATION,
        FrameType.FETCH_BLOCKS,
        FrameType.FETCH_BODIES,
        FrameType.FETCH_MANIFEST,
        FrameType.FETCH_CHUNK,
    }
)
