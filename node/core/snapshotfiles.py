"""What the files of a snapshot folder hold: `manifest` and numbered chunks.

The manifest is the message that peers get: a run of headers up to a block certificate, and the
outline. A folder is complete when it has every chunk; a chunk is worth what its hash says, so a
folder may be copied, cut short or damaged, and is looked through again before it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from consensus.core import wire
from consensus.core.messages import Manifest, signatures
from consensus.errors import MalformedMessage, SnapshotInvalid
from consensus.limits import MESSAGE_BYTES_MAX
from native import FalconVerifier, verify_many

MANIFEST: Final = "manifest"


def chunk_name(index: int) -> str:
    """Return the file name of a chunk."""
    return f"{index:05}.chunk"


def read_manifest(
    data: bytes, bounds: wire.Bounds, verifiers: Sequence[FalconVerifier]
) -> Manifest:
    """Decode a manifest and check its certificate against the validators' keys.

    Raises `SnapshotInvalid`. The outline is still to be proven.
    """
    try:
        manifest = wire.manifest(wire.decode_value(data, MESSAGE_BYTES_MAX), bounds)
    except MalformedMessage as error:
        raise SnapshotInvalid(f"manifest: {error}") from None
    jobs = [
        (verifiers[signer], signed, signature)
        for signer, signed, signature in signatures(manifest, bounds.chain_id)
    ]
    if not all(verify_many(jobs)):
        raise SnapshotInvalid("manifest: a signature of its block certificate is wrong")
    return manifest
