"""The threads, stream limit and event receivers that all responses of a middleware share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hasten._checks import check_function, check_instance, check_whole_number
from hasten._logs import get_logger
from hasten.compression._codecs import Codec
from hasten.compression._events import CompressionEvent, Skipped
from hasten.compression._head import SkipReason
from hasten.compression._pool import CompressionThreads
from hasten.compression._stats import CompressionStats

logger = get_logger("hasten.compression")

SLICED_ABOVE_BYTES: Final = 4 * 1024 * 1024
"""A larger body is compressed and sent in slices, and so without a Content-Length."""


class SharedResources:
    """The objects that all responses of one middleware share.

    They are the thread pool, the number of open streams, and the receivers of events (stats and
    on_event).
    """

    def __init__(
        self,
        threads: int | None,
        max_streams: int,
        stats: CompressionStats | None,
        on_event: Callable[[CompressionEvent], None] | None,
    ) -> None:
        self.pool = CompressionThreads("compression", threads)
        self.open_streams = 0
        self._max_streams = check_whole_number("max_streams", max_streams, 0)
        self._stats = check_instance("stats", stats, CompressionStats)
        self._on_event = check_function("on_event", on_event, "event")
        self.is_observed = stats is not None or on_event is not None
        self._quick_sizes: dict[tuple[Codec, int], int] = {}

    @property
    def has_room_for_stream(self) -> bool:
        """Whether fewer than max_streams streams are open."""
        return self.open_streams < self._max_streams

    def is_quick_to_compress(self, codec: Codec, level: int, size: int) -> bool:
        """Return whether compressing size bytes is quick enough for the event loop."""
        try:
            return size <= self._quick_sizes[codec, level]
        except KeyError:
            most = codec.level_policy.estimate_max_bytes(level, self.pool.offload_after)
            self._quick_sizes[codec, level] = min(most, SLICED_ABOVE_BYTES)
            return self.is_quick_to_compress(codec, level, size)

    def emit_skipped(self, reason: SkipReason) -> None:
        """Emit a `Skipped` event for a response that is sent uncompressed."""
        if self.is_observed:
            self.emit(Skipped(reason))

    def emit(self, event: CompressionEvent) -> None:
        """Count an event in stats, and pass it to on_event. Exceptions of on_event are logged."""
        if self._stats is not None:
            self._stats._count_event(event)
        if self._on_event is not None:
            try:
                self._on_event(event)
            except Exception:
                # The response matters more than its metrics.
                logger.exception("on_event of CompressionMiddleware raised an exception")
