"""Directed hunts: clusters in the one situation where a certain bug can show itself.

A scene is a function of a seed. It draws the size, the places and the moments from the seed, brings
the cluster into its situation by taking messages out of the network, by crashes and by at most f
liars, heals it, and demands what every run must fulfil. Nothing in a scene knows of a planted bug:
played on the code as it is shipped, no scene may find anything, which is tested as well.
"""

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Final

from consensus.core.effects import Event
from consensus.core.inputs import Received
from consensus.core.messages import (
    Checkpoint,
    Commit,
    Message,
    NewView,
    Prepare,
    PrePrepare,
    Status,
    ViewChange,
    VoteVector,
)
from consensus.core.types import Number, Phase, ReplicaIndex, View
from consensus.runtime.store import create_consensus_store, recreate_consensus_store
from consensus.sim.checker import require
from consensus.sim.faults import heal
from consensus.sim.ledger import History, LedgerNode, Operation, payment, signature
from consensus.sim.liar import (
    CLASSIC,
    Liar,
    Silent,
    Trick,
    equivocates,
    forged_certificates,
    liar_with,
    no_new_view,
    proposes_again,
    says_nothing,
)
from consensus.sim.node import SIM_TIMING, Node, sign
from consensus.sim.run import HEALING_US_MAX, Cluster, converged, describe, insist, settle
from consensus.sim.world import Weather
from native.values import Digest

Scene = Callable[[int], None]
Rule = Callable[[int, int, Message], bool]
Cast = Mapping[int, Callable[[Cluster, int], Node]]

IDLE_FOR_EVER = replace(SIM_TIMING, idle_block_interval_ms=600_000)
GAP_US_MAX: Final = 15_000_000  # 32 x T and a round: no payload waits longer for one dead primary


class Staged(Cluster):
    """A cluster in fair weather with chosen liars, whose network obeys rules."""

    def __init__(
        self,
        seed: int,
        members: int,
        cast: Cast,
        everybody: Callable[[Cluster, int], Node] = Node,
    ) -> None:
        super().__init__(seed, members)
        self.rotation_blocks = 0  # views move only when something is wrong
        self.nodes = [cast.get(index, everybody)(self, index) for index in range(members)]
        self.liars = set(cast)
        self.rules: list[Rule] = []
        self.payloads = 0
        for node in self.nodes:
            node.disk_us_max = 400
            node.clock.skew_ms = self.world.random.randint(-50, 50)

    def censor(self, source: int, target: int, message: Message) -> bool:
        return any(rule(source, target, message) for rule in self.rules)

    def run(self, milliseconds: int, until: Callable[[], bool] = lambda: False) -> bool:
        """Play on in small steps until it is true, and look at the cap of every map."""
        end = self.world.now_us + milliseconds * 1_000
        while self.world.now_us < end and not until():
            self.world.run_until(min(end, self.world.now_us + 1_000))
        for node in self.honest:
            if node.up:
                self.checker.bounded(node.replica)
        return until()

    def pay(self, *targets: int) -> bytes:
        """A new payload in the custody of these nodes, or of all."""
        self.payloads += 1
        payload = b"payload %d of %d" % (self.payloads, self.world.random.getrandbits(32))
        self.checker.injected.add(payload)
        for index in targets or range(self.members):
            self.nodes[index].take_payloads((payload,))
        return payload

    def pay_for(self, milliseconds: int, every: int) -> None:
        """Load from now on: one payload in each interval."""
        for moment in range(0, milliseconds, every):
            self.world.after(moment * 1_000, lambda: void(self.pay()))

    def speak(self, index: int, *, loud: bool = True) -> None:
        """Let a silent node behave like an honest one for a while."""
        node = self.nodes[index]
        assert isinstance(node, Silent)
        node.speaks = loud

    def hush(self, index: int) -> None:
        self.speak(index, loud=False)

    def isolate(self, index: int) -> None:
        """No link of this node works."""
        for peer in range(self.members):
            if peer != index:
                self.world.cut |= {(index, peer), (peer, index)}

    def executed(self, index: int) -> int:
        return self.nodes[index].replica.executed

    def tip(self) -> int:
        return max(node.replica.executed for node in self.honest if node.up)

    def recovered(self, index: int) -> bool:
        node = self.nodes[index]
        return node.up and node.replica.phase is Phase.VOTING

    def views(self) -> list[View]:
        return [node.replica.view for node in self.honest if node.up]

    def expect_progress(self, within_us: int) -> None:
        """Honest nodes execute another block in this time, whatever goes on."""
        before = self.tip()
        require(
            self.run(within_us // 1_000, lambda: self.tip() > before),
            f"liveness: no block for {within_us // 1_000_000} s: {describe(self)}",
        )

    def finish(self, within_us: int = HEALING_US_MAX) -> None:
        """Everything is healed: all that must hold in the end."""
        self.rules.clear()
        heal(self)
        for node in self.nodes:
            if not node.up:
                node.start()
        payload = b"after healing %d" % self.world.random.getrandbits(32)
        insist(self, payload)
        require(
            self.world.run_until(self.world.now_us + within_us, lambda: converged(self, payload)),
            f"liveness: not converged {within_us // 1_000_000} s after healing: {describe(self)}",
        )
        settle(self)
        for node in self.honest:
            self.checker.bounded(node.replica)
        self._calm()
        self.checker.durable()
        self._replay()

    def _calm(self) -> None:
        """With everything healed and blocks coming, no timer is longer than at the start (L6)."""
        if not self.liars:
            stretched = [
                node.index
                for node in self.nodes
                if node.replica.active and node.replica.failed_views
            ]
            require(not stretched, f"timers of {stretched} are still stretched: {describe(self)}")

    def _replay(self) -> None:
        """A process that starts on the records is the one that wrote them (S14)."""
        for node in self.honest:
            self.run(200, lambda found=node: _quiet(found))  # type: ignore[misc]
            if not _quiet(node):
                continue
            before = _state_of(node)
            node.crash()
            node.start()
            after = _state_of(node)
            differing = [name for name, value in before.items() if after[name] != value]
            require(
                not differing,
                f"replay of the records of node {node.index} gives another {differing}",
            )


def _quiet(node: Node) -> bool:
    return node.up and node.committing is None and node.gather.empty and not node.executing


def _state_of(node: Node) -> dict[str, object]:
    """What a replica must know again after a crash."""
    replica = node.replica
    open_places = [place for place in sorted(replica.instances) if place > replica.certified]
    return {
        "view": (replica.view, replica.active),
        "tip": replica.tip,
        "certificate": replica.certificate,
        "number": replica.last_number,
        "bounds": (replica.first_sequence, replica.first_view),
        "prepared": {place: replica.prepared[place] for place in sorted(replica.prepared)},
        "checkpoints cast": max(replica.cast_through, replica.certified),
        "votes": [
            (place, kind, ballots[replica.me].view, ballots[replica.me].digest)
            for place in open_places
            for kind, ballots in (
                ("prepare", replica.instances[place].prepares),
                ("commit", replica.instances[place].commits),
            )
            if replica.me in ballots
        ],
    }


def void(_value: object) -> None:
    """For actions whose value nobody wants."""


def opened(
    seed: int,
    sizes: tuple[int, ...],
    cast: Cast | None = None,
    *,
    everybody: Callable[[Cluster, int], Node] = Node,
) -> Staged:
    """A running cluster with a few blocks; size by seed."""
    stage = Staged(seed, sizes[seed % len(sizes)], cast or {}, everybody)
    stage.start()
    stage.run(40)
    for _ in range(stage.world.random.randrange(3)):
        stage.pay()
        stage.run(stage.world.random.randrange(1, 15))
    stage.run(30)
    return stage


# --- rules


def votes(kind: type, *, to: Collection[int]) -> Rule:
    """Vectors with a leaf of this kind do not arrive at these nodes."""
    return lambda _source, target, message: (
        target in to
        and isinstance(message, VoteVector)
        and any(isinstance(leaf, kind) for leaf in message.leaves)
    )


def all_of(kind: type | tuple[type, ...], *, source: int | None = None) -> Rule:
    """Messages of this kind do not arrive anywhere."""
    return lambda sender, _target, message: isinstance(message, kind) and source in (None, sender)


SIGNED: Final = (PrePrepare, VoteVector, ViewChange, NewView)


# --- what is agreed, and a view change


def lonely_commit(seed: int, cast: Cast | None = None, *, uneven: bool = False) -> None:
    """One node executes a batch, nobody else learns of it, and the next primary may lie."""
    if cast is None:
        cast = {1: liar_with(*CLASSIC)} if seed % 3 else {}
    stage = opened(seed, (4, 4, 5, 7), cast)
    random = stage.world.random
    others = [index for index in range(1, stage.members) if index not in cast]
    unprepared = {random.choice(others)} if random.random() < 0.7 else set[int]()
    behind = {index for index in others if index not in unprepared and random.random() < 0.5}
    if uneven:
        unprepared, behind = {stage.members - 1}, set(others[:-1])
        stage.rules.append(
            lambda _source, target, message: target in behind and isinstance(message, Status)
        )
    if uneven or random.random() < 0.5:
        stage.rules.append(votes(Checkpoint, to=behind))
        stage.pay()
        stage.run(20)
    stage.rules.append(votes(Commit, to=range(1, stage.members)))
    stage.rules.append(votes(Prepare, to=unprepared))
    height = stage.executed(0) + 1
    stage.pay()
    stage.run(60, lambda: stage.executed(0) >= height)
    stage.isolate(0)
    stage.run(2_000, lambda: max(stage.views()) > 0)
    stage.run(5)
    stage.rules.clear()
    stage.run(random.choice((500, 1_500, 4_000)))
    stage.finish()


def two_certificates(seed: int) -> None:
    """An old certificate at one node, and a newer one for another batch that is committed."""
    stage = opened(seed, (4, 4, 7))
    last = stage.members - 1
    everybody = set(range(stage.members))
    stage.rules.append(votes(Prepare, to=everybody - {last}))
    stage.pay()
    stage.run(20)
    stage.isolate(last)
    stage.rules = [votes(Prepare, to=everybody), votes(Commit, to=everybody - {1})]
    stage.run(
        2_000,
        lambda: all(node.replica.view == 1 and node.replica.active for node in stage.nodes[:last]),
    )
    stage.rules = [votes(Commit, to=everybody - {1})]
    height = stage.executed(1) + 1
    stage.pay(1)
    stage.run(300, lambda: stage.executed(1) >= height)
    stage.world.cut = set()
    stage.isolate(1)
    stage.rules.clear()
    stage.run(stage.world.random.choice((1_500, 3_000)))
    stage.finish()


def proposed_again(seed: int) -> None:
    """Batches above a gap are prepared, and a new primary proposes them again."""
    stage = opened(seed, (4, 4, 7))
    random = stage.world.random
    gap = stage.executed(0) + 1
    if random.random() < 0.6:
        stage.rules.append(
            lambda _source, _target, message: (
                isinstance(message, PrePrepare) and message.sequence == gap
            )
        )
    stage.rules.append(votes(Commit, to=range(stage.members)))
    for _ in range(random.randint(1, 4)):
        stage.pay()
        stage.run(8)
    stage.run(10)
    stage.isolate(0)
    stage.rules.clear()
    stage.run(random.choice((700, 1_500)))
    stage.finish()


def with_liar(seed: int, tricks: tuple[Trick, ...], *, leads: bool = False) -> Staged:
    """Load, a view change or two, and one liar that knows only these tricks."""
    members = (4, 4, 5, 7)[seed % 4]
    next_to_lead = seed % 2 == 1 and not leads
    place = 0 if leads else 1 if next_to_lead else seed // 4 % members
    stage = opened(seed, (members,), {place: liar_with(*tricks)})
    random = stage.world.random
    stage.pay_for(600, random.choice((5, 20, 60)))
    stage.run(random.randrange(50, 500))
    if next_to_lead or random.random() < 0.3:
        view = max(stage.views())
        stage.rules.append(votes(Commit, to=range(members)))
        stage.pay()
        stage.run(15)
        stage.isolate(view % members)
        stage.run(2_000, lambda: max(stage.views()) > view)
        stage.rules.clear()
        stage.run(random.randrange(300, 1_500))
        stage.world.cut = set()
    stage.run(random.randrange(50, 500))
    stage.finish()
    return stage


def among_liars(*tricks: Trick, leads: bool = False) -> Scene:
    """`with_liar` as a scene."""

    def scene(seed: int) -> None:
        with_liar(seed, tricks, leads=leads)

    scene.__name__ = "_and_".join(["among_liars", *[trick.__name__ for trick in tricks]])
    if leads:
        scene.__name__ += "_that_lead"
    return scene


def halves_and_a_silent_primary(seed: int) -> None:
    """The first primary shows two batches for one place to the halves, then falls silent."""
    stage = opened(seed, (4,), {0: liar_with(equivocates)})
    liar = stage.nodes[0]
    assert isinstance(liar, Liar)
    liar.boldness = 1.0
    stage.rules.append(votes(Prepare, to=range(4)))
    stage.pay()
    stage.run(stage.world.random.randrange(5, 30))
    liar.tricks = (says_nothing,)
    stage.rules.clear()
    stage.finish()


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


# --- lost memory


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


# --- liveness


def dead_primary_under_load(seed: int) -> None:
    """The next primary is silent and payloads keep coming: the view must fail all the same."""
    stage = opened(seed, (4, 5), {1: Silent})
    random = stage.world.random
    stage.pay_for(40_000, random.choice((20, 50, 100)))
    stage.run(100)
    stage.isolate(0)
    stage.run(random.randrange(500, 1_500))
    stage.world.cut = set()
    stage.expect_progress(GAP_US_MAX)


def frozen_primary(seed: int) -> None:
    """The primary keeps its connections and says nothing."""
    stage = opened(seed, (4, 5, 7))
    random = stage.world.random
    stage.pay()
    frozen = stage.views()[0] % stage.members
    stage.rules.append(lambda source, _target, _message: source == frozen)
    stage.pay_for(20_000, random.choice((20, 100)))
    stage.run(20)
    stage.expect_progress(GAP_US_MAX)
    stage.run(100)
    stage.finish()


def killed_primary(seed: int) -> None:
    """The primary dies under load: one gap, not longer than its timeout and a view change (L7)."""
    stage = opened(seed, (4, 5, 7))
    world, random = stage.world, stage.world.random
    stage.pay_for(2_000, random.choice((10, 40)))
    stage.run(random.randrange(200, 500))
    timeout_us = max(node.replica.request_timeout_us for node in stage.nodes)
    stage.nodes[stage.views()[0] % stage.members].crash()
    tip, since_us, gap_us = stage.tip(), world.now_us, 0
    end_us = world.now_us + 1_500_000
    while world.now_us < end_us:
        world.run_until(world.now_us + 1_000)
        if stage.tip() > tip:
            tip, gap_us, since_us = stage.tip(), max(gap_us, world.now_us - since_us), world.now_us
    gap_us = max(gap_us, world.now_us - since_us)
    # A payload is forwarded to the primary after a quarter of T, and its clock starts there.
    limit_us = timeout_us * 5 // 4 * 12 // 10 + 50_000
    require(
        gap_us <= limit_us,
        f"a gap of {gap_us // 1_000} ms after a killed primary, limit {limit_us // 1_000} ms",
    )
    stage.finish()


def long_outage(seed: int) -> None:
    """Views fail for minutes because no NEW-VIEW arrives; then a silent liar is next to lead."""
    silent = seed % 4
    stage = opened(seed, (4,), {silent: Silent})
    stage.speak(silent)
    stage.rules.append(all_of(NewView))
    stage.pay()
    stage.rules.append(votes(Prepare, to=range(4)))
    stage.run(90_000 + 10_000 * (seed % 7))
    stage.run(60_000, lambda: all(view % 4 == silent for view in stage.views()))
    stage.hush(silent)
    stage.rules.clear()
    stage.finish(45_000_000)


def slow_links_after_an_outage(seed: int) -> None:
    """A payload is old, views have failed because of the network, and the network is slow."""
    stage = opened(seed, (4, 7))
    stage.rules += [all_of(NewView), votes(Prepare, to=range(stage.members))]
    old = stage.pay()
    stage.run(20_000 + 1_000 * (seed % 5))
    stage.rules.clear()
    stage.world.weather = Weather(delay_us_min=40_000, delay_us_mean=60_000)
    require(
        stage.run(60_000, lambda: old in stage.checker.acknowledged),
        f"liveness: an old payload waits for ever: {describe(stage)}",
    )
    stage.finish()


def scattered_views(seed: int) -> None:
    """Three nodes have gone many views ahead of the fourth, and one of them falls silent."""
    silent = 1 + seed % 2
    stage = opened(seed, (4,), {silent: Silent})
    stage.speak(silent)
    stage.isolate(0)
    stage.rules.append(
        lambda _source, target, message: (
            isinstance(message, ViewChange) and message.view % stage.members == target
        )
    )
    stage.pay()
    stage.run(200_000)
    stage.hush(silent)
    stage.world.cut = set()
    stage.finish()


def one_goes_ahead(seed: int) -> None:
    """One node saw a quorum for a view and has left it, the others never saw one."""
    silent = 1 + seed % 3
    stage = opened(seed, (4,), {silent: Silent})
    stage.speak(silent)
    random = stage.world.random
    ahead = random.choice([index for index in (1, 2, 3) if index != silent])
    stage.rules.append(all_of(NewView))
    stage.rules.append(
        lambda _source, target, message: target != ahead and isinstance(message, ViewChange)
    )
    stage.rules.append(votes(Prepare, to=range(4)))
    stage.pay()
    stage.run(3_000, lambda: stage.nodes[ahead].replica.view >= 2)
    stage.hush(silent)
    stage.finish()


def deaf_node(seed: int) -> None:
    """A node can send and cannot receive, for good: the others must not follow it for ever."""
    stage = opened(seed, (4, 5, 7))
    deaf = seed % stage.members
    for peer in range(stage.members):
        if peer != deaf:
            stage.world.cut.add((peer, deaf))
    stage.pay_for(30_000, 300)
    stage.run(30_000)
    highest = max(
        view for node, view in zip(stage.nodes, stage.views(), strict=True) if node.index != deaf
    )
    require(highest <= 3, f"views move on because one node asks for them: {stage.views()}")
    stage.finish()


def alone_for_long(seed: int) -> None:
    """A node cut off from all others asks for one view, and does not run ahead of them."""
    stage = opened(seed, (3, 4, 7))
    alone = seed % stage.members
    stage.isolate(alone)
    stage.pay()
    stage.pay_for(20_000, 500)
    stage.run(20_000)
    views = stage.views()
    require(
        views[alone] <= max(views[:alone] + views[alone + 1 :]) + 2,
        f"views race ahead at a node that is alone: {views}",
    )
    stage.finish()


def late_in_a_view_change(seed: int) -> None:
    """A node is late when the view changes, and without it there is no quorum."""
    silent = 1 + seed % 2
    stage = opened(seed, (4,), {silent: Silent})
    random = stage.world.random
    stage.speak(silent)
    stage.isolate(3)
    stage.pay_for(200, 6)
    stage.run(random.randrange(150, 350))
    stage.hush(silent)
    stage.world.cut = set()
    if random.random() < 0.7:
        stage.crash(0)
    stage.run(20)
    stage.pay()
    stage.finish()


def late_and_idle(seed: int) -> None:
    """A node missed the last blocks, and no new one comes: its links work again, that is all."""
    stage = Staged(seed, (3, 4, 7)[seed % 3], {})
    for node in stage.nodes:
        node.timing = IDLE_FOR_EVER
    stage.start()
    stage.run(60)
    late = 1 + seed % (stage.members - 1)
    if stage.members == 3:
        late = 2
    stage.isolate(late)
    for _ in range(stage.world.random.randint(1, 12)):
        stage.pay(0, 1)
        stage.run(10)
    stage.run(200)
    stage.world.cut = set()
    stage.run(5_000, lambda: stage.executed(late) == stage.tip())
    require(
        stage.executed(late) == stage.tip(),
        f"an idle cluster leaves a late node behind: {describe(stage)}",
    )


def uncertified_tip(seed: int) -> None:
    """Every node dies between the execution of the last block and its vote for it."""
    stage = Staged(seed, (3, 4)[seed % 2], {})
    for node in stage.nodes:
        node.timing = IDLE_FOR_EVER
    stage.start()
    stage.run(60)
    stage.pay()
    waiting = set(range(stage.members))
    end = stage.world.now_us + 200_000
    while waiting and stage.world.now_us < end:
        stage.world.run_until(stage.world.now_us + 50)
        for index in list(waiting):
            if stage.nodes[index].executing:
                waiting.discard(index)
                stage.crash(index)
    stage.run(
        15_000,
        lambda: all(
            node.up and node.replica.certified == node.replica.executed == stage.tip()
            for node in stage.nodes
        ),
    )
    require(
        all(node.replica.certified == stage.tip() for node in stage.nodes),
        f"certificates do not converge in an idle cluster: {describe(stage)}",
    )


def no_fault_at_all(seed: int) -> None:
    """Payloads reach some nodes only, nothing else is wrong: nobody may be deposed."""
    stage = opened(seed, (2, 3, 4, 7))
    for _ in range(6):
        stage.pay(stage.world.random.randrange(1, stage.members))
        stage.run(stage.world.random.randrange(10, 900))
    stage.run(2_000)
    started = stage.world.counters[Event.VIEW_CHANGE_STARTED.value]
    require(started == 0, f"{started} view changes without any fault: {describe(stage)}")
    stage.finish()


def starved_client(seed: int) -> None:
    """The primary proposes everything but the payloads of one client."""
    stage = opened(seed, (4, 7), {0: liar_with()})
    liar = stage.nodes[0]
    assert isinstance(liar, Liar)
    liar.starves = starved = b"payload of a client nobody likes"
    stage.checker.injected.add(starved)
    for node in stage.nodes:
        node.take_payloads((starved,))
    stage.pay_for(40_000, 60)
    require(
        stage.run(20_000, lambda: starved in stage.checker.acknowledged),
        f"liveness: a primary starves a client for 20 s: {describe(stage)}",
    )


def lossy_network(seed: int) -> None:
    """A third of all messages is lost for good, and blocks come nevertheless."""
    stage = opened(seed, (4,))
    stage.world.weather = Weather(drop=0.35)
    stage.pay_for(20_000, 200)
    for _ in range(10):
        stage.expect_progress(4_000_000)
    stage.finish()


def split_quorums(seed: int) -> None:
    """Two parts of a small cluster cannot hear each other; a liar may speak to both."""
    members = (2, 3, 5, 6)[seed % 4]
    stage = opened(seed, (members,), {0: liar_with(equivocates)} if members > 3 else None)
    random = stage.world.random
    indexes = list(range(members))
    random.shuffle(indexes)
    left = set(indexes[: members // 2])
    for one in range(members):
        for other in range(members):
            if (one in left) != (other in left) and not {one, other} & stage.liars:
                stage.world.cut.add((one, other))
    stage.pay_for(1_000, 50)
    stage.run(3_000)
    stage.finish()


def lonely_commit_and_forger(seed: int) -> None:
    """The next primary says no NEW-VIEW, and then shows certificates that only it has signed."""
    lonely_commit(seed, {1: liar_with(no_new_view, forged_certificates)})


def uneven_checkpoints(seed: int) -> None:
    """The node with the newest checkpoint is the one that has not prepared the lonely batch."""
    lonely_commit(seed, {}, uneven=True)


# --- clients


class Client:
    """Calls one operation after another and notes what it saw (linearizable reads are ordered)."""

    def __init__(self, stage: Staged, history: History, number: int, calls: int) -> None:
        self.stage = stage
        self.history = history
        self.number = number
        self.calls = calls

    def next(self) -> None:
        """Call again, a moment later."""
        if self.calls:
            self.calls -= 1
            random = self.stage.world.random
            call = self.read if random.random() < 0.4 else self.write
            self.stage.world.after(random.randrange(500, 20_000), call)

    def write(self) -> None:
        random = self.stage.world.random
        amount = random.randrange(1, 70)
        self._order(payment(self.number, random.randrange(3), amount, random.getrandbits(40)))

    def read(self) -> None:
        """A read is an ordered payload without effect: it is answered where it was executed."""
        body = b"read %d" % self.stage.world.random.getrandbits(40)
        self._order(body + b" " + signature(body))

    def _order(self, payload: bytes) -> None:
        world = self.stage.world
        operation = Operation(payload=payload, invoked_us=world.now_us)
        self.history.operations.append(operation)
        self.stage.checker.injected.add(payload)
        self._send(operation)
        self._await(operation)

    def _send(self, operation: Operation) -> None:
        if operation.responded_us is None:
            for node in self.stage.nodes:
                self.stage.carry_payloads(
                    ReplicaIndex(node.index), node.index, (operation.payload,)
                )
            self.stage.world.after(700_000, lambda: self._send(operation))

    def _await(self, operation: Operation) -> None:
        height = self.stage.checker.acknowledged.get(operation.payload)
        if height is None:
            self.stage.world.after(1_000, lambda: self._await(operation))
        else:
            self.answered(operation, height)

    def answered(self, operation: Operation, height: int) -> None:
        operation.responded_us = self.stage.world.now_us
        operation.height = height
        self.next()


def clients_of_a_ledger(seed: int) -> None:
    """Clients that write and read, a forger among them, while nodes fall behind and crash."""
    members = (4, 4, 5, 7)[seed % 4]
    stage = opened(seed, (members,), everybody=LedgerNode)
    random = stage.world.random
    history = History()
    for node in stage.nodes:
        assert isinstance(node, LedgerNode)
        node.history = history
    for number in range(3):
        Client(stage, history, number, calls=12).next()
    forged = b"0 1 99 %d " % seed + b"forgery!"
    stage.checker.injected.add(forged)
    stage.nodes[random.randrange(members)].take_payloads((forged,))
    slow = random.randrange(1, members)
    for _ in range(3):
        stage.isolate(slow)
        stage.run(random.randrange(50, 300))
        stage.world.cut = set()
        stage.run(random.randrange(10, 200))
        if random.random() < 0.5:
            stage.crash(random.randrange(members))
    stage.run(3_000)
    stage.finish()
    history.check(stage.checker.log)


def old_batches_again(seed: int) -> None:
    """The primary proposes executed batches again, while others restart from their snapshots."""
    stage = opened(seed, (4, 7), {0: liar_with(proposes_again)}, everybody=LedgerNode)
    random = stage.world.random
    history = History()
    for node in stage.nodes:
        if isinstance(node, LedgerNode):
            node.history = history
    for number in range(2):
        Client(stage, history, number, calls=10).next()
    for _ in range(3):
        stage.run(random.randrange(40, 200))
        stage.crash(random.randrange(1, stage.members))
        stage.run(random.randrange(10, 100))
    stage.run(2_000)
    stage.finish()
    history.check(stage.checker.log)


# --- files


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
