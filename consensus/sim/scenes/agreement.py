"""What is agreed, view changes, and liars of every kind."""

from consensus.core.messages import (
    Checkpoint,
    Commit,
    Prepare,
    PrePrepare,
    Status,
)
from consensus.sim.liars import (
    CLASSIC,
    Liar,
    Trick,
    equivocates,
    forged_certificates,
    liar_with,
    no_new_view,
    says_nothing,
)
from consensus.sim.scenes.stage import Cast, Scene, Staged, opened, votes


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


def lonely_commit_and_forger(seed: int) -> None:
    """The next primary says no NEW-VIEW, and then shows certificates that only it has signed."""
    lonely_commit(seed, {1: liar_with(no_new_view, forged_certificates)})


def uneven_checkpoints(seed: int) -> None:
    """The node with the newest checkpoint is the one that has not prepared the lonely batch."""
    lonely_commit(seed, {}, uneven=True)


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
