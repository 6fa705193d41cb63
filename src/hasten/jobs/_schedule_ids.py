"""The ids and the jitter of the jobs of schedules."""

from __future__ import annotations

import zlib
from typing import Final

PREFIX: Final = "repeat:"
"""The ids of the jobs of schedules begin with this."""


def job_id_of(schedule: str, slot_ms: int) -> str:
    """Return the id of the job for a slot."""
    return f"{PREFIX}{schedule}:{slot_ms}"


def split_job_id(id: str) -> tuple[str, int] | None:
    """Return the schedule and the slot of a job by its id; None if no schedule has added it."""
    if not id.startswith(PREFIX):
        return None
    schedule, _, slot = id.removeprefix(PREFIX).rpartition(":")
    return (schedule, int(slot)) if slot.isascii() and slot.isdecimal() and len(slot) < 16 else None


def jitter_of_slot(most_ms: int, schedule: str, slot_ms: int) -> int:
    """Return by how many ms the job of a slot is delayed, at most most_ms.

    It looks random, but is always the same for a slot. So a schedule that is stored again is the
    same, and different schedules are spread.
    """
    if most_ms <= 0:
        return 0
    return zlib.crc32(f"{schedule}:{slot_ms}".encode()) % (most_ms + 1)
