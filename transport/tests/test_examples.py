"""The examples of the library guide run as they are printed."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import trio

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "docs" / "examples"


async def test_the_echo_example_gets_its_own_words_back() -> None:
    example = runpy.run_path(str(EXAMPLES / "stoq_echo.py"))
    with trio.fail_after(10):
        assert await example["main"]() == b"hello, post-quantum world"


def test_the_copy_example_moves_a_file_between_two_processes(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(3_000_001))
    command = [sys.executable, str(EXAMPLES / "stoq_copy.py")]
    with subprocess.Popen(
        [*command, "receive", str(target)], cwd=ROOT, env=_environment(), stdout=subprocess.PIPE
    ) as receiver:
        try:
            assert receiver.stdout is not None
            address, node_id = receiver.stdout.readline().decode().split()
            subprocess.run(
                [*command, "send", str(source), address, node_id],
                cwd=ROOT,
                env=_environment(),
                check=True,
                timeout=20,
            )
            assert receiver.wait(timeout=20) == 0
        finally:
            receiver.kill()
    assert target.read_bytes() == source.read_bytes()


@pytest.mark.parametrize("words", [[], ["send", "file"]])
def test_the_copy_example_explains_itself(words: list[str]) -> None:
    example = runpy.run_path(str(EXAMPLES / "stoq_copy.py"))
    with pytest.raises(SystemExit, match="Copy a file"):
        example["main"](words)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}
