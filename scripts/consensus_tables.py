"""Tables of docs/reference/consensus.md, taken from the code and checked against encodings."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from wire_profile import Table, limit_rows

CONSENSUS_PROFILE: Final = Path(__file__).parent / "consensus_profile.md"
VOTE: Final = "[signer, number, index, size, [path…], signature]"
LAYOUTS: Final = {
    "PrePrepare": "[view, number, batch header, signature]",
    "VoteVector": "[epoch, signer, number, [leaf…], signature]",
    "ViewChange": "[epoch, view, signer, number, block certificate or nil, "
    "[prepared certificate…], signature]",
    "NewView": "[epoch, view, number, [VIEW-CHANGE…], [PRE-PREPARE…], signature]",
    "Status": "[epoch, view, in view change, phase, boot, echo, executed, "
    "block certificate or nil, mask of VIEW-CHANGEs held, stamp or nil, unix ms]",
    "RecoveryAnswer": "[epoch, echo, executed, block certificate or nil, NEW-VIEW or nil, "
    "[VIEW-CHANGE…]]",
    "Equivocation": "[PRE-PREPARE, PRE-PREPARE]",
    "FetchBlocks": "[first height]",
    "Blocks": "[[block header…], [batch header…], block certificate]",
    "FetchBodies": "[[payload root…]]",
    "FetchManifest": "[above height]",
    "Manifest": "[bytes of a BLOCKS message, bytes of the outline]",
    "FetchChunk": "[snapshot, index]",
    "Chunk": "[snapshot, index, bytes]",
}
PARTS: Final = (
    ("vote", VOTE),
    ("prepared certificate", "[PRE-PREPARE, [vote…]]"),
    ("block certificate", "[[epoch, height, header hash, state root, next set], [vote…]]"),
    ("stamp", "[kind, signer, epoch, number, content, signature]"),
)
CONTENTS: Final = {
    "PRE_PREPARE": "H(`[view, sequence, batch digest]`)",
    "VOTES": "Merkle root of the leaves",
    "VIEW_CHANGE": "H(`[view, block certificate or nil, [prepared certificate…]]`)",
    "NEW_VIEW": "H(`[view, [[signer, number, content of the VIEW-CHANGE]…], "
    "[[number, batch digest]…]]`)",
}
BODIES: Final = ("PROPOSAL", "BODY", "PAYLOADS")


def consensus_tables() -> dict[str, Table]:
    """Every table that the page names."""
    return {
        "quorums": _quorums(),
        "domains": _domains(),
        "frames": _frames(),
        "layouts": _layouts(),
        "consensus_limits": (
            ("limit", "value", "unit", "reason"),
            [tuple(row) for row in limit_rows("consensus")],
        ),
    }


def _quorums() -> Table:
    from consensus.core.quorum import faults, quorum, weak_quorum

    sizes = (1, 2, 3, 4, 5, 6, 7, 10, 13, 20, 21, 22)
    return (
        ("n", *[str(size) for size in sizes]),
        [
            (name, *[str(rule(size)) for size in sizes])
            for name, rule in (("f", faults), ("Q", quorum), ("W", weak_quorum))
        ],
    )


def _domains() -> Table:
    from consensus.core.messages import DOMAINS, SignedKind

    return (
        ("kind", "number", "domain", "content"),
        [
            (kind.name, str(int(kind)), f"`{DOMAINS[kind].decode()}`", CONTENTS[kind.name])
            for kind in SignedKind
        ],
    )


def _frames() -> Table:
    from consensus.core import frames
    from consensus.limits import (
        MESSAGE_BYTES_MAX,
        PROPOSAL_FRAME_BYTES_MAX,
        VOTES_FRAME_BYTES_MAX,
    )
    from consensus.tests.samples import messages

    carried = {frames.encode(message)[1]: frames.encode(message)[0] for message in messages()}
    rows: list[tuple[str, ...]] = []
    for frame in frames.FrameType:
        channel = carried.get(frame, frames.Channel.BULK)
        size_max = VOTES_FRAME_BYTES_MAX if frame in frames.SMALL else MESSAGE_BYTES_MAX
        if frame.name in BODIES:
            size_max = PROPOSAL_FRAME_BYTES_MAX
        rows.append(
            (
                frame.name,
                f"`0x{int(frame):02x}`",
                channel.name.lower(),
                f"{size_max:,}",
            )
        )
    return ("frame", "type", "stream", "bytes at most"), rows


def _layouts() -> Table:
    """Refuses to write a page whose number of fields is not that of the code."""
    from consensus.core import frames
    from consensus.limits import MESSAGE_BYTES_MAX
    from consensus.tests.samples import messages
    from native.codec import decode

    rows: list[tuple[str, ...]] = []
    for message in messages():
        _, frame, data = frames.encode(message)
        value = decode(data, size_max=MESSAGE_BYTES_MAX)
        layout = LAYOUTS[type(message).__name__]
        if not isinstance(value, tuple) or len(value) != count_fields(layout):
            raise SystemExit(f"the layout of {frame.name} is not what the code writes: {layout}")
        rows.append((frame.name.replace("_", "-"), f"`{layout}`"))
    rows += [(name, f"`{layout}`") for name, layout in PARTS]
    return ("message or part", "bytes"), rows


def count_fields(layout: str) -> int:
    """Commas at the outermost level of a layout, and one."""
    depth = count = 0
    for letter in layout:
        depth += (letter == "[") - (letter == "]")
        count += letter == "," and depth == 1
    return count + 1
