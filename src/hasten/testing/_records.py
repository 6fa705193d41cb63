"""What a test can see: the jobs that were added, and the runs of jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeAlias

RunOutcome: TypeAlias = Literal["completed", "failed", "retry", "postponed", "released", "parked"]
"""How a run of a job has ended.

- completed: the handler has returned.
- failed: the job has failed for good.
- retry: the attempt has failed, and the job runs again after its backoff.
- postponed: the job runs again later, without counting an attempt: the handler has raised
  `RetryAfter`, or the job needs a later release.
- released: the job was returned to its queue.
- parked: the job waits for jobs that it has added.
"""


@dataclass(frozen=True, slots=True)
class JobRun:
    """One run of a job in a test."""

    task: str
    """The name of the task."""
    queue: str
    """The name of the queue."""
    job_id: str
    """The id of the job."""
    arguments: Any
    """The arguments by parameter name, as they were decoded from JSON."""
    outcome: RunOutcome
    """How the run has ended."""
    at: datetime
    """When the run began, by the clock of the test."""
    attempt: int
    """The number of the attempt, from 1."""
    result: Any = None
    """What the handler has returned, if the outcome is "completed"."""
    error: BaseException | None = None
    """The exception of the handler. A `JobFailed` if the job has failed without being run."""

    def __str__(self) -> str:
        end = f": {type(self.error).__name__}: {self.error}" if self.error is not None else ""
        return f"{describe_call(self.task, self.arguments)} {self.outcome}{end}"


@dataclass(frozen=True, slots=True)
class EnqueuedJob:
    """A job that was added during a test."""

    task: str
    """The name of the task."""
    queue: str
    """The name of the queue."""
    job_id: str
    """The id of the job."""
    arguments: Any
    """The arguments by parameter name, as they were decoded from JSON."""
    at: datetime
    """When the job was added, by the clock of the test."""
    due_at: datetime
    """When the job is due: the time when it was added, and its delay."""
    priority: int = 0
    """The priority of the job, 0 if it has none."""
    attempts: int = 1
    """The maximum number of attempts."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """The texts that middlewares have stored with the job."""

    def __str__(self) -> str:
        text = f"{describe_call(self.task, self.arguments)} in queue {self.queue}"
        if self.due_at > self.at:
            text += f", due in {(self.due_at - self.at).total_seconds():g} s"
        if self.priority:
            text += f", priority {self.priority}"
        return text


def describe_call(task: str, arguments: Any) -> str:
    """Return a job as a call: `send(to='ada@example.org')`."""
    if isinstance(arguments, dict):
        return f"{task}({', '.join(f'{name}={value!r}' for name, value in arguments.items())})"
    return f"{task}, data {arguments!r}"
