"""What became of each answer, for metrics."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass

from hasten.compression.head import Reason


@dataclass(frozen=True, slots=True)
class Coded:
    """An answer left coded. For a stream, this comes when it ends, broken or not."""

    coding: str
    """As in Content-Encoding."""

    level: int
    bytes_before: int
    bytes_after: int
    seconds: float
    """Spent compressing, a wait for a thread included; 0 for what came from the cache."""

    streamed: bool = False
    cached: bool = False


@dataclass(frozen=True, slots=True)
class Skipped:
    """An answer left as the application made it, and why."""

    reason: Reason


Event = Coded | Skipped


class Counters:
    """Counts what a middleware does: hand one over as its on_event, and read `snapshot`.

    Several middlewares may share one. Reading and counting are safe from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._coded: Counter[str] = Counter()
        self._before: Counter[str] = Counter()
        self._after: Counter[str] = Counter()
        self._seconds: dict[str, float] = {}
        self._skipped: Counter[str] = Counter()

    def __call__(self, event: Event) -> None:
        with self._lock:
            match event:
                case Coded():
                    coding = event.coding
                    self._coded[coding] += 1
                    self._before[coding] += event.bytes_before
                    self._after[coding] += event.bytes_after
                    self._seconds[coding] = self._seconds.get(coding, 0) + event.seconds
                case Skipped():
                    self._skipped[event.reason] += 1

    def snapshot(self) -> dict[str, object]:
        """All counts since the start.

        ``{"coded": {"zstd": {"responses", "bytes_before", "bytes_after", "bytes_saved", "ratio",
        "seconds"}}, "skipped": {"small": 3}}``. ratio is bytes before over bytes after.
        """
        with self._lock:
            return {
                "coded": {
                    coding: {
                        "responses": responses,
                        "bytes_before": self._before[coding],
                        "bytes_after": self._after[coding],
                        "bytes_saved": self._before[coding] - self._after[coding],
                        "ratio": self._before[coding] / max(self._after[coding], 1),
                        "seconds": self._seconds[coding],
                    }
                    for coding, responses in sorted(self._coded.items())
                },
                "skipped": dict(sorted(self._skipped.items())),
            }
