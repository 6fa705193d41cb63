"""Events of single responses, for metrics and logs."""

from __future__ import annotations

from dataclasses import dataclass

from hasten.compression._head import SkipReason


@dataclass(frozen=True, slots=True)
class Compressed:
    """A response was sent compressed. For a stream, the event comes at its end, complete or not."""

    encoding: str
    """As in Content-Encoding."""

    level: int
    bytes_before: int
    bytes_after: int
    seconds: float
    """Time spent compressing, including the wait for a thread; 0 for a body from the cache."""

    streamed: bool = False
    cached: bool = False


@dataclass(frozen=True, slots=True)
class Skipped:
    """A response was sent uncompressed."""

    reason: SkipReason


CompressionEvent = Compressed | Skipped
"""The argument of `on_event`."""
