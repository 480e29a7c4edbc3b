"""What a command makes of answers that no HyperMesh node gives."""

from __future__ import annotations

import re
from typing import Any

import pytest

from node.client import NodeClient
from node.errors import UnexpectedAnswer

PROPER = "ab" * 32


@pytest.mark.parametrize("strange", ["ab", "zz" * 32, 7, None, ["ab" * 32], PROPER.upper()])
def test_a_proof_without_proper_hashes_is_strange_and_no_lie_about_the_log(
    monkeypatch: pytest.MonkeyPatch, strange: Any
) -> None:
    document = {"index": 1, "size": 2, "leaf_hash": PROPER, "hashes": [PROPER]}
    with NodeClient("http://[::1]:1") as client:
        monkeypatch.setattr(client, "_json", lambda *_: document)
        assert client.log_inclusion(1, 2) == document
        assert client.log_consistency(1, 2) == document
        document["hashes"] = [PROPER, strange]
        for ask in (client.log_inclusion, client.log_consistency):
            with pytest.raises(UnexpectedAnswer, match="whose hashes are not"):
                ask(1, 2)
        document.update(hashes=[], leaf_hash=strange)
        with pytest.raises(UnexpectedAnswer, match=re.escape("answered with a")):
            client.log_inclusion(1, 2)
