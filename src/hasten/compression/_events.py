"""The events that a middleware emits for each response: `Compressed` or `Skipped`."""

from __future__ import annotations

from dataclasses import dataclass

from hasten.compression._head import SkipReason


@dataclass(frozen=True, slots=True)
class Compressed:
    """A response was sent compressed.

    For a stream, the event is emitted when it ends, even if it ends before it is complete.
    """

    encoding: str
    """The value of Content-Encoding, such as "br"."""

    level: int
    """The compression level; 0 for a body from the cache."""

    bytes_before: int
    bytes_after: int
    seconds: float
    """Time spent on compression, including the wait for a thread; 0 for a body from the cache."""

    streamed: bool = False
    cached: bool = False


@dataclass(frozen=True, slots=True)
class Skipped:
    """A response was sent uncompressed."""

    reason: SkipReason


CompressionEvent = Compressed | Skipped
"""The type of the argument of on_event."""
