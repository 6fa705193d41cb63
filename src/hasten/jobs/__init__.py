"""Background jobs: add jobs to queues, and run them with workers in the same or other processes."""

from hasten.jobs._backoff import Exponential, Fixed
from hasten.jobs._context import Context
from hasten.jobs._control_exceptions import RetryAfter, Unrecoverable
from hasten.jobs._events import QueueEvents
from hasten.jobs._job import Job, SyncJob
from hasten.jobs._options import JobOptions, Keep, TaskOptions
from hasten.jobs._queue import JobSpec, Queue, SyncQueue
from hasten.jobs._record import Event, JobRecord
from hasten.jobs._states import State
from hasten.jobs._sync_events import SyncQueueEvents
from hasten.jobs._task_definition import RunIn
from hasten.jobs._tasks import Arguments, Enqueuer, SyncEnqueuer, Task
from hasten.jobs._worker import Worker

__all__ = [
    "Arguments",
    "Context",
    "Enqueuer",
    "Event",
    "Exponential",
    "Fixed",
    "Job",
    "JobOptions",
    "JobRecord",
    "JobSpec",
    "Keep",
    "Queue",
    "QueueEvents",
    "RetryAfter",
    "RunIn",
    "State",
    "SyncEnqueuer",
    "SyncJob",
    "SyncQueue",
    "SyncQueueEvents",
    "Task",
    "TaskOptions",
    "Unrecoverable",
    "Worker",
]
