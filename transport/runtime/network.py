"""What the paths of an endpoint's connections show together, read when somebody asks."""

from collections.abc import Iterable

from transport.core.engine import Engine, PathTuple
from transport.core.measures import Spread
from transport.metrics import NetworkCounts


class NetworkCounter:
    """Sums counters over connections, of which the engine forgets those that ended. The
    owner says when one is about to end."""

    def __init__(self) -> None:
        self._totals = [0, 0, 0]  # packets sent, packets lost, black holes
        self._seen: dict[int, tuple[int, int, int]] = {}

    def read(self, engine: Engine, handles: Iterable[int]) -> NetworkCounts:
        """Totals until now, and how the open connections differ."""
        rtts_s: list[float] = []
        mtus: list[float] = []
        windows: list[float] = []
        for handle in handles:
            path = self._count(engine, handle)
            if path is not None:
                rtts_s.append(path[0])
                mtus.append(path[2])
                windows.append(path[3])
        sent_total, lost_total, holes_total = self._totals
        return NetworkCounts(
            packets_sent_total=sent_total,
            packets_lost_total=lost_total,
            black_holes_total=holes_total,
            rtt_seconds=Spread.of(rtts_s),
            mtu_bytes=Spread.of(mtus),
            congestion_window_bytes=Spread.of(windows),
        )

    def ended(self, engine: Engine, handle: int) -> None:
        """This connection is about to be forgotten by the engine."""
        self._count(engine, handle)
        self._seen.pop(handle, None)

    def _count(self, engine: Engine, handle: int) -> PathTuple | None:
        path = engine.path(handle)
        if path is None:
            return None
        now, before = (path[4], path[5], path[8]), self._seen.get(handle, (0, 0, 0))
        # A migration begins a new path, whose counters begin at 0.
        for place, (new, old) in enumerate(zip(now, before, strict=True)):
            self._totals[place] += new - old if new >= old else new
        self._seen[handle] = now
        return path
