"""Log the slots of schedules that get no run."""

from __future__ import annotations

from typing import Final

from hasten._logs import get_logger
from hasten.jobs._epoch import to_datetime
from hasten.jobs._schedule_times import SlotPlan

logger: Final = get_logger("hasten.schedules")


def log_left_out(
    queue: str, schedule: str, slot_ms: int, plan: SlotPlan, *, is_dropped: bool, overlaps: bool
) -> None:
    """Log that slots get no run. is_dropped: the slot of the claimed job is one of them."""
    slot = to_datetime(slot_ms).isoformat()
    if is_dropped and overlaps:
        logger.info(
            "queue %s: schedule %s: no run for the slot %s, because an earlier run has not "
            "finished (overlap='skip'); slots left out: %d",
            queue, schedule, slot, plan.passed + 1,
        )  # fmt: skip
    elif is_dropped:
        logger.warning(
            "queue %s: schedule %s: no run for the slot %s, because the next slot is over, too "
            "(missed='skip'); slots left out: %d",
            queue, schedule, slot, plan.passed + 1,
        )  # fmt: skip
    elif plan.passed:
        logger.warning(
            "queue %s: schedule %s: the run for the slot %s is late; later slots left out: %d",
            queue, schedule, slot, plan.passed,
        )  # fmt: skip
