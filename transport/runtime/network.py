"""What the paths of an endpoint's connections show together, read when somebody asks."""

from collections.abc import Iterable

from transport.core.engine import Engine
from transport.core.measures import Spread
from transport.metrics import NetworkCounts


class NetworkCounter:
    """Sums counters over connections, of which the engine forgets those that ended. What happened
    between the last reading and the end of a connection is not counted: the owner reads it then."""

    def __init__(self) -> None:
        self._totals = [0, 0, 0]  # packets sent, packets lost, black holes
        self._seen: dict[int, tuple[int, int, int]] = {}

    def read(self, engine: Engine, handles: Iterable[int]) -> NetworkCounts:
        """Totals until now, and how the open connections differ."""
        rtts_s: list[float] = []
        mtus: list[float] = []
        windows: list[float] = []
        for handle in handles:
            path = engine.path(handle)
            if path is None:
                continue
            rtt_s, _, mtu, window, sent, lost, _, _, holes, _ = path
            rtts_s.append(rtt_s)
            mtus.append(mtu)
            windows.append(window)
            now, before = (sent, lost, holes), self._seen.get(handle, (0, 0, 0))
            # A migration begins a new path, whose counters begin at 0.
            for place, (new, old) in enumerate(zip(now, before, strict=True)):
                self._totals[place] += new - old if new >= old else new
            self._seen[handle] = now
        sent_total, lost_total, holes_total = self._totals
        return NetworkCounts(
            packets_sent_total=sent_total,
            packets_lost_total=lost_total,
            black_holes_total=holes_total,
            rtt_seconds=Spread.of(rtts_s),
            mtu_bytes=Spread.of(mtus),
            congestion_window_bytes=Spread.of(windows),
        )

    def forget(self, handle: int) -> None:
        """This connection ended."""
        self._seen.pop(handle, None)
