"""Rules of stream numbers and of reset codes (RFC 9000, sections 2.1 and 3)."""

from enum import IntEnum


class ResetCode(IntEnum):
    """Why one direction of a stream was abandoned; travels with RESET_STREAM and STOP_SENDING."""

    CANCELLED = 0  # the one who wrote, or read, lost interest
    OVERLOADED = 1  # too many calls at a time
    MALFORMED = 2  # what came is not what this kind of stream carries
    TIMEOUT = 3  # the time limit in the REQUEST has passed


def is_bidirectional(stream: int) -> bool:
    """Whether both ends may write."""
    return stream & 0x2 == 0


def is_dialler_stream(stream: int) -> bool:
    """Whether the side that dialled opened it."""
    return stream & 0x1 == 0
