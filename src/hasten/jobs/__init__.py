"""Background jobs: do slow work later, in this process or another, and lose none of it."""

from hasten.jobs.backoff import Exponential, Fixed
from hasten.jobs.context import Context
from hasten.jobs.events import QueueEvents
from hasten.jobs.job import Job
from hasten.jobs.options import JobOptions, Keep, TaskOptions
from hasten.jobs.queue import Queue
from hasten.jobs.record import Event
from hasten.jobs.states import State
from hasten.jobs.steering import RetryAfter, Unrecoverable
from hasten.jobs.tasks import Arguments, Task
from hasten.jobs.worker import Worker

__all__ = [
    "Arguments",
    "Context",
    "Event",
    "Exponential",
    "Fixed",
    "Job",
    "JobOptions",
    "Keep",
    "Queue",
    "QueueEvents",
    "RetryAfter",
    "State",
    "Task",
    "TaskOptions",
    "Unrecoverable",
    "Worker",
]
