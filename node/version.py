"""Which HyperMesh this is."""

from __future__ import annotations

from functools import cache
from typing import Final

DATA_FORMAT: Final = 1  # of the home folder: databases, genesis and key files
API_VERSION: Final = 1  # of the HTTP routes below /api/v1


@cache
def version() -> str:
    """Return the version of the installed distribution."""
    from importlib import metadata

    try:
        return metadata.version("hypermesh")
    except metadata.PackageNotFoundError:
        return "0.0.0+uninstalled"
