"""`Slot`: tells a task's function for which slot of its schedule it runs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Slot:
    """The slot of a schedule that a run belongs to.

    A task gets it through a parameter with this annotation. If the task is also enqueued by other
    code, annotate the parameter as `Slot | None = None`, so that this code need not pass it; a
    worker passes a slot nevertheless, with the time at which the job was added.

    planned is the time of the slot. Compare it with the current time to see how late the run is.
    previous is the slot of the run of the schedule that started before this one, None for the first
    one. missed is how many slots had no run of their own since that run started: those that passed
    until this run started, and those that were dropped because of `missed` or `overlap`. The missed
    slots of a cron pattern are counted up to 100.
    """

    planned: datetime
    previous: datetime | None = None
    missed: int = 0
