"""Background jobs: do slow work later, in this process or another, and lose none of it."""

from hasten.jobs.backoff import Exponential, Fixed
from hasten.jobs.context import Context
from hasten.jobs.events import QueueEvents
from hasten.jobs.job import Job, SyncJob
from hasten.jobs.options import JobOptions, Keep, TaskOptions
from hasten.jobs.queue import JobSpec, Queue, SyncQueue
from hasten.jobs.record import Event, JobRecord
from hasten.jobs.states import State
from hasten.jobs.steering import RetryAfter, Unrecoverable
from hasten.jobs.tasks import Arguments, Enqueuer, RunIn, SyncEnqueuer, Task
from hasten.jobs.worker import Worker

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
    "Task",
    "TaskOptions",
    "Unrecoverable",
    "Worker",
]
