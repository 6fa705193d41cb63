"""Add the running job to log records."""

from __future__ import annotations

import logging
from typing import Final

from hasten.jobs._current import running_job

ATTRIBUTES: Final = ("queue", "task", "job_id", "attempt")


class JobLogFilter(logging.Filter):
    """Adds the running job to every log record: `queue`, `task`, `job_id` and `attempt`.

    Add it to a handler of `logging`, so that it sees the records of all loggers, and use the
    attributes in the format: ``%(queue)s %(job_id)s``. Outside of jobs they have the value of
    default. Attributes that a record has already, from ``extra=``, are not changed.
    """

    def __init__(self, default: object = "-") -> None:
        super().__init__()
        self._default = default

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the attributes. Returns True: no record is dropped."""
        running = running_job.get()
        facts = (self._default,) * len(ATTRIBUTES)
        if running is not None:
            job = running.context.job
            facts = (job.queue, job.name, job.id, running.context.attempt)
        for name, value in zip(ATTRIBUTES, facts, strict=True):
            if not hasattr(record, name):
                setattr(record, name, value)
        return True
