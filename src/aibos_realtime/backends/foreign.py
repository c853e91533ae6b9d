"""What is found where only our nodes write, and none of them wrote: counted, told once a minute for each kind, and passed over."""

from __future__ import annotations

from ..clock import Clock
from ..logs import get_logger
from ..metrics import Metrics

logger = get_logger("aibos_realtime.cluster")

EVERY = 60.0


class Foreign:
    """Counts into `metrics.foreign_records`."""

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self._metrics = metrics
        self._clock = clock
        self._told: dict[str, float] = {}

    def note(self, what: str, count: int = 1) -> None:
        """`what`: the kind, as the beginning of a sentence ("an entry of the directory of rooms"); nothing of what was found."""
        if count <= 0:
            return
        self._metrics.foreign_records += count
        now = self._clock.monotonic()
        if now - self._told.get(what, -EVERY) >= EVERY:
            self._told[what] = now
            logger.warning("%s is none of ours, and was passed over (%d such things so far)", what, self._metrics.foreign_records)
