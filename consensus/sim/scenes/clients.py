"""Clients of the ledger: what they were told, and in which order."""

from consensus.core.types import ReplicaIndex
from consensus.sim.ledger import History, LedgerNode, Operation, payment, signature
from consensus.sim.liars import (
    liar_with,
    proposes_again,
)
from consensus.sim.scenes.stage import Staged, opened


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
