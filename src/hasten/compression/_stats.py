"""Counters of compressed and uncompressed responses, for metrics."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import asdict, dataclass

from hasten.compression._events import Compressed, CompressionEvent, Skipped
from hasten.compression._head import SkipReason


@dataclass(frozen=True, slots=True)
class EncodingStats:
    """The number, size and compression time of all responses that were sent with one encoding."""

    responses: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    seconds: float = 0.0
    """Time spent on compression, including the wait for a thread."""

    @property
    def bytes_saved(self) -> int:
        """How many bytes compression has saved: bytes_before minus bytes_after."""
        return self.bytes_before - self.bytes_after

    @property
    def ratio(self) -> float:
        """The compression ratio: bytes_before divided by bytes_after."""
        return self.bytes_before / max(self.bytes_after, 1)


class CompressionStats:
    """Counts responses and bytes of a middleware: ``CompressionMiddleware(app, stats=stats)``.

    Several middlewares may share one object. It is thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._compressed: dict[str, EncodingStats] = {}
        self._skipped: Counter[SkipReason] = Counter()

    @property
    def compressed(self) -> dict[str, EncodingStats]:
        """The totals of compressed responses, by encoding: "br", "gzip" and so on."""
        with self._lock:
            return dict(sorted(self._compressed.items()))

    @property
    def skipped(self) -> dict[SkipReason, int]:
        """The number of uncompressed responses, by the reason why they were not compressed."""
        with self._lock:
            return dict(sorted(self._skipped.items()))

    def as_dict(self) -> dict[str, object]:
        """Return all totals as a dict that JSON can encode, including bytes_saved and ratio."""
        with self._lock:
            compressed, skipped = dict(self._compressed), dict(self._skipped)
        return {
            "compressed": {
                encoding: {**asdict(t), "bytes_saved": t.bytes_saved, "ratio": t.ratio}
                for encoding, t in sorted(compressed.items())
            },
            "skipped": dict(sorted(skipped.items())),
        }

    def reset(self) -> None:
        """Set all totals to zero."""
        with self._lock:
            self._compressed.clear()
            self._skipped.clear()

    def __repr__(self) -> str:
        return f"<CompressionStats compressed={self.compressed} skipped={self.skipped}>"

    def _count_event(self, event: CompressionEvent) -> None:
        with self._lock:
            match event:
                case Compressed():
                    so_far = self._compressed.get(event.encoding, _NONE)
                    self._compressed[event.encoding] = EncodingStats(
                        so_far.responses + 1,
                        so_far.bytes_before + event.bytes_before,
                        so_far.bytes_after + event.bytes_after,
                        so_far.seconds + event.seconds,
                    )
                case Skipped():
                    self._skipped[event.reason] += 1


_NONE = EncodingStats()
