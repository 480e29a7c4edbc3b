"""The kill list: each known bug is planted, and hunted until a property catches it.

`python -m consensus.sim.kill_list` hunts all bugs of `planted.BUGS` on all cores, each until its
first find, and prints one line for each. A number of section 8 that nobody has planted is reported
as missing and counts as failed; so does a bug that is not found in the budget, and so does a false
alarm: afterwards every scene is played on the shipped code for as many seeds as its hunts needed,
and at least `CLEAN_SEEDS_MIN`, and must find nothing.
"""

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from consensus.sim.checker import property_of
from consensus.sim.planted import BUGS, Bug, planted
from consensus.sim.scenes import Scene

KNOWN_BUGS: Final = 40  # of bft.md section 8
SEEDS_MAX: Final = 10_000  # and
SECONDS_MAX: Final = 300.0  # of one core, whichever ends first (bft.md section 12)
CLEAN_SEEDS_MIN: Final = 24  # all sizes and most draws of a scene


@dataclass(frozen=True, slots=True, kw_only=True)
class Find:
    """How a hunt ended; `caught_by` is None when the bug was not found."""

    label: str
    name: str
    caught_by: str | None
    scene: str
    seeds: int
    seconds: float
    text: str


def hunt(bug: Bug, *, seeds_max: int = SEEDS_MAX, seconds_max: float = SECONDS_MAX) -> Find:
    """Play the scenes of a bug, seed after seed, with the bug in, until something is violated."""
    begin = time.process_time()
    played = 0
    for seed in range(seeds_max):
        for scene in bug.scenes:
            played += 1
            error = _play(bug, scene, seed)
            took = time.process_time() - begin
            if error is not None:
                return Find(
                    label=bug.label,
                    name=bug.name,
                    caught_by=property_of(error),
                    scene=scene.__name__,
                    seeds=played,
                    seconds=took,
                    text=f"{type(error).__name__}: {error}",
                )
            if took > seconds_max:
                break
        else:
            continue
        break
    return Find(
        label=bug.label,
        name=bug.name,
        caught_by=None,
        scene="",
        seeds=played,
        seconds=time.process_time() - begin,
        text="not found",
    )


def _play(bug: Bug, scene: Scene, seed: int) -> Exception | None:
    with planted(bug):
        try:
            scene(seed)
        except Exception as error:
            return error
    return None


def _hunt_number(index: int) -> Find:
    return hunt(BUGS[index])


def alarms(scene: Scene, seeds: int) -> list[str]:
    """What a scene finds on the code as it is shipped: must be nothing."""
    found: list[str] = []
    for seed in range(seeds):
        try:
            scene(seed)
        except Exception as error:
            found.append(f"{scene.__name__} seed {seed}: {type(error).__name__}: {error}")
    return found


def scenes() -> dict[str, Scene]:
    """Every scene that hunts something."""
    return {scene.__name__: scene for bug in BUGS for scene in bug.scenes}


def _alarms_of(case: tuple[str, int]) -> list[str]:
    name, seeds = case
    return alarms(scenes()[name], seeds)


def table(finds: Sequence[Find]) -> str:
    """The finds as the rows of a Markdown table."""
    lines = [
        "| bug | planted | caught by | scene | seeds | seconds |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {find.label} | {find.name} | {find.caught_by or '**not found**'} | {find.scene} "
        f"| {find.seeds} | {find.seconds:.1f} |"
        for find in finds
    ]
    lines += [f"| {number} | **not planted yet** | | | | |" for number in missing()]
    return "\n".join(lines)


def missing() -> list[int]:
    """Numbers of section 8 that no planted bug has."""
    return sorted(set(range(1, KNOWN_BUGS + 1)) - {bug.number for bug in BUGS})


def main() -> int:
    """Exit code 0 only when every one of the known bugs was planted and found."""
    parser = argparse.ArgumentParser(prog="python -m consensus.sim.kill_list", description=__doc__)
    parser.add_argument("--only", nargs="*", help="labels, e.g. 6 10b")
    parser.add_argument("--write", type=Path, help="put the table into this page")
    parser.add_argument(
        "--clean", type=int, default=CLEAN_SEEDS_MIN, help="seeds of each scene on shipped code"
    )
    arguments = parser.parse_args()
    chosen = [
        index for index, bug in enumerate(BUGS) if not arguments.only or bug.label in arguments.only
    ]
    finds: list[Find] = []
    context = multiprocessing.get_context("spawn")
    with context.Pool(os.cpu_count() or 1) as pool:
        for find in pool.imap(_hunt_number, chosen):
            finds.append(find)
            print(line(find), flush=True)
            if arguments.only:
                print(f"      {find.scene}: {find.text[:600]}")
        played = Counter(dict.fromkeys(_scenes_of(chosen), arguments.clean))
        for index, find in zip(chosen, finds, strict=True):
            for scene in BUGS[index].scenes:
                played[scene.__name__] = max(played[scene.__name__], find.seeds)
        false = [text for texts in pool.imap(_alarms_of, sorted(played.items())) for text in texts]
    for text in false:
        print(f"FALSE ALARM on the shipped code: {text[:300]}")
    print(
        f"{sum(played.values())} runs of {len(played)} scenes on the shipped code, "
        f"{len(false)} false alarms"
    )
    if arguments.write is not None:
        write(arguments.write, table(finds))
    failed = {int(find.label.rstrip("abc")) for find in finds if find.caught_by is None}
    if arguments.only:
        return 1 if failed or false else 0
    for number in missing():
        print(f"{number:>4}  MISSING: not planted yet")
    failed.update(missing())
    print(f"{KNOWN_BUGS - len(failed)} passed, {len(failed)} failed")
    return 1 if failed or false else 0


def _scenes_of(chosen: Sequence[int]) -> list[str]:
    return [scene.__name__ for index in chosen for scene in BUGS[index].scenes]


def line(find: Find) -> str:
    """One find for people."""
    verdict = f"found by {find.caught_by}" if find.caught_by else "NOT FOUND"
    return f"{find.label:>4}  {find.name:<52} {verdict}, {find.seeds} seeds, {find.seconds:.1f} s"


BEGIN: Final = "<!-- kill list: begin -->"
END: Final = "<!-- kill list: end -->"


def write(page: Path, rows: str) -> None:
    """Replace what stands between the two marks of the page."""
    text = page.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{rows}\n{END}{after}")


if __name__ == "__main__":
    sys.exit(main())
