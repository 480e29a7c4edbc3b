"""Crashes, power cuts, lost disks, and what a node must not forget."""

import os
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from consensus.core.inputs import Received
from consensus.core.messages import (
    Commit,
    NewView,
    ViewChange,
    VoteVector,
)
from consensus.core.types import Number, ReplicaIndex
from consensus.runtime.store import create_consensus_store, recreate_consensus_store
from consensus.sim.checker import require
from consensus.sim.liars import (
    Liar,
    liar_with,
)
from consensus.sim.node import Node, sign
from consensus.sim.scenes.stage import SIGNED, Staged, all_of, opened, votes
from native.values import Digest


def power_cuts(seed: int) -> None:
    """Crashes at every moment of agreement and execution, of one node or of all."""
    stage = opened(seed, (3, 4))
    random = stage.world.random
    stage.crashes_in_writes = 8
    stage.pay_for(800, 7)
    for _ in range(random.randint(1, 4)):
        stage.run(random.randrange(20, 300))
        if random.random() < 0.5:
            stage.crash_all()
        else:
            stage.crash(random.randrange(stage.members))
    stage.run(400)
    stage.finish()


def wiped_voter(seed: int) -> None:
    """The only other voter for a committed batch loses its disk; then the witness is cut off."""
    stage = opened(seed, (3,))
    random = stage.world.random
    voter, dark = random.choice(((1, 2), (2, 1)))
    height = stage.executed(0) + 1
    stage.rules.append(
        lambda _source, target, message: target == dark and isinstance(message, SIGNED)
    )
    stage.rules.append(votes(Commit, to={voter}))
    stage.pay(0, voter)
    stage.run(60, lambda: stage.executed(0) >= height)
    stage.wipe(voter)
    # The witness says what a recovering node asks for, and nothing else.
    stage.rules = [all_of(SIGNED, source=0)]
    stage.run(3_000, lambda: stage.recovered(voter))
    stage.isolate(0)
    stage.run(random.choice((2_000, 4_000)))
    stage.finish()


def old_view_change(seed: int) -> None:
    """A liar keeps the VIEW-CHANGE that a node sent before it lost its disk, and uses it."""
    stage = opened(seed, (4,), {1: liar_with()})
    liar, reborn, dark = stage.nodes[1], 2, 3
    stage.rules = [
        lambda _source, target, message: target == reborn and isinstance(message, SIGNED),
        lambda _source, target, message: target != 1 and isinstance(message, ViewChange),
    ]
    stage.pay(reborn)
    stage.run(2_000, lambda: reborn in liar.replica.view_changes)
    kept = liar.replica.view_changes.get(ReplicaIndex(reborn))
    stage.wipe(reborn)
    stage.rules.clear()
    stage.run(8_000, lambda: stage.recovered(reborn))
    stage.run(50)
    height = stage.tip() + 1
    stage.rules = [
        lambda _source, target, message: target == dark and isinstance(message, VoteVector),
        lambda source, _target, message: source == reborn and isinstance(message, ViewChange),
        votes(Commit, to={1, reborn, dark}),
    ]
    stage.pay()
    stage.run(100, lambda: stage.executed(0) >= height)
    stage.isolate(0)
    stage.run(2_500, lambda: dark in liar.replica.view_changes)
    other = liar.replica.view_changes.get(ReplicaIndex(dark))
    stage.run(100, lambda: liar.committing is None and liar.gather.empty)
    if kept is not None and other is not None and kept.view == other.view == 1:
        _announce(stage, liar, kept, other)
    stage.rules.clear()
    stage.run(1_500)
    stage.finish()


def _announce(stage: Staged, liar: Node, kept: ViewChange, other: ViewChange) -> None:
    """The liar leads the view with a VIEW-CHANGE that is valid and forgotten."""
    number = liar.replica.last_number + 1_000
    chain_id = stage.chain_id
    own = ViewChange(
        epoch=kept.epoch,
        view=kept.view,
        signer=liar.index,
        number=Number(number),
        certificate=None,
        prepared=(),
    )
    own = own.signed(sign(liar.index, own.signed_bytes(chain_id)))
    announcement = NewView(
        epoch=kept.epoch,
        view=kept.view,
        signer=liar.index,
        number=Number(number + 1),
        view_changes=(own, kept, other),
        proposals=(),
    )
    signed = announcement.signed(sign(liar.index, announcement.signed_bytes(chain_id)))
    liar.feed(Received(sender=liar.index, message=signed))
    assert isinstance(liar, Liar)
    for peer in (2, 3):
        liar.tell(ReplicaIndex(peer), signed)


def power_cut_after_birth(seed: int) -> None:
    """The power goes when `consensus.db` has just been made: what was not synced may be gone."""
    random = Random(seed)
    synced: list[str] = []
    fsync = os.fsync

    def noting(descriptor: int) -> None:
        fsync(descriptor)
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))

    with TemporaryDirectory() as name:
        folder = Path(name).resolve()
        path = folder / "consensus.db"
        os.fsync = noting  # type: ignore[assignment]
        try:
            make = random.choice((create_consensus_store, recreate_consensus_store))
            make(path, chain_id=Digest(bytes(32)), node_id=Digest(bytes(32)))
        finally:
            os.fsync = fsync
        renamed_durably = bool(synced) and synced[-1] == str(folder)
        whole = str(path.with_suffix(".new")) in synced or str(path) in synced
        cut_keeps_it = random.random() < 0.5
        require(
            (renamed_durably or cut_keeps_it) and whole,
            "durability: a new consensus.db is gone after a power cut, and with it every vote",
        )
