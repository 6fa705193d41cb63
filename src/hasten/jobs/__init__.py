"""Background jobs: add jobs to queues, and run them with workers in the same or other processes."""

from hasten.jobs._backoff import Exponential, Fixed
from hasten.jobs._batch import Batch, SyncBatch
from hasten.jobs._children import Children, ResultDecoder, SyncChildren
from hasten.jobs._context import Context
from hasten.jobs._control_exceptions import RetryAfter, Unrecoverable, WaitForChildren
from hasten.jobs._current import current_job
from hasten.jobs._deduplication import DeduplicationKey
from hasten.jobs._events import QueueEvents
from hasten.jobs._family import Child, ChildProgress, JobTree
from hasten.jobs._flow import Arguments, Flow, Node, Nodes, SyncFlow
from hasten.jobs._health_app import Health
from hasten.jobs._job import Job, SyncJob
from hasten.jobs._job_log_filter import JobLogFilter
from hasten.jobs._middleware import Call, CallNext, Carry, EnqueueCall, Middleware, RunCall
from hasten.jobs._options import JobOptions, Keep, TaskOptions
from hasten.jobs._queue import JobSpec, Queue, SyncQueue
from hasten.jobs._record import ChildOutcome, Event, JobRecord, OnFailure, ParentLink
from hasten.jobs._schedule_record import Missed, Overlap
from hasten.jobs._schedules import Schedule, Schedules, SyncSchedules
from hasten.jobs._slot import Slot
from hasten.jobs._states import State
from hasten.jobs._sync_events import SyncQueueEvents
from hasten.jobs._task_definition import RunIn
from hasten.jobs._tasks import Enqueuer, SyncEnqueuer, Task
from hasten.jobs._why import Reason, Why
from hasten.jobs._worker import Worker
from hasten.jobs._worker_info import WorkerInfo

__all__ = [
    "Arguments",
    "Batch",
    "Call",
    "CallNext",
    "Carry",
    "Child",
    "ChildOutcome",
    "ChildProgress",
    "Children",
    "Context",
    "DeduplicationKey",
    "EnqueueCall",
    "Enqueuer",
    "Event",
    "Exponential",
    "Fixed",
    "Flow",
    "Health",
    "Job",
    "JobLogFilter",
    "JobOptions",
    "JobRecord",
    "JobSpec",
    "JobTree",
    "Keep",
    "Middleware",
    "Missed",
    "Node",
    "Nodes",
    "OnFailure",
    "Overlap",
    "ParentLink",
    "Queue",
    "QueueEvents",
    "Reason",
    "ResultDecoder",
    "RetryAfter",
    "RunCall",
    "RunIn",
    "Schedule",
    "Schedules",
    "Slot",
    "State",
    "SyncBatch",
    "SyncChildren",
    "SyncEnqueuer",
    "SyncFlow",
    "SyncJob",
    "SyncQueue",
    "SyncQueueEvents",
    "SyncSchedules",
    "Task",
    "TaskOptions",
    "Unrecoverable",
    "WaitForChildren",
    "Why",
    "Worker",
    "WorkerInfo",
    "current_job",
]
