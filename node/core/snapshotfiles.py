"""What the files of a snapshot folder hold: `manifest`, `links` and numbered chunks.

The manifest is the message that peers get: a run of headers up to a block certificate, and the
outline. The links prove from genesis who signed that certificate. A folder is complete when it has
every chunk; a chunk is worth what its hash says, so a folder may be copied, cut short or damaged,
and is looked through again before it is used.
"""

from __future__ import annotations

from typing import Final

from consensus.core import wire
from consensus.core.light import HeaderProof, Lineage, decode_links
from consensus.core.messages import Manifest
from consensus.errors import MalformedMessage, ProofInvalid, SnapshotInvalid
from consensus.limits import MESSAGE_BYTES_MAX

MANIFEST: Final = "manifest"
LINKS: Final = "links"


def chunk_name(index: int) -> str:
    """Return the file name of a chunk."""
    return f"{index:05}.chunk"


def read_lineage(data: bytes, genesis: Lineage) -> Lineage:
    """Decode links and follow them from genesis; raises `SnapshotInvalid`."""
    try:
        return genesis.decoded(decode_links(data))
    except ProofInvalid as error:
        raise SnapshotInvalid(f"links: {error}") from None


def read_manifest(data: bytes, lineage: Lineage) -> Manifest:
    """Decode a manifest and check its certificate against the validators of its epoch.

    Raises `SnapshotInvalid`. The outline is still to be proven.
    """
    try:
        manifest = wire.manifest(wire.decode_value(data, MESSAGE_BYTES_MAX), lineage.bounds)
        run = manifest.run
        lineage.verify_header(HeaderProof(headers=run.headers, certificate=run.certificate))
    except (MalformedMessage, ProofInvalid) as error:
        raise SnapshotInvalid(f"manifest: {error}") from None
    return manifest
