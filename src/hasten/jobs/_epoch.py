"""Convert stored times."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

LATEST_MS: Final = 253_402_300_799_000  # the last second of the year 9999


def to_datetime(ms: int) -> datetime:
    """Convert ms since 1970 to a time in UTC. Any number is accepted: the nearest valid time."""
    return datetime.fromtimestamp(min(max(ms, 0), LATEST_MS) / 1000, UTC)
