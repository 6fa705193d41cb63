"""The jobs that were added during a test, and how to find one of them by its arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, TypeAlias

from hasten.errors import InvalidOption
from hasten.jobs import Task
from hasten.jobs._encoding import decode_json, encode_json
from hasten.jobs._epoch import to_datetime
from hasten.jobs._record import AddResult, NewJob, Outcome
from hasten.jobs._tasks import Enqueuer
from hasten.testing._job_driver import decode_or_keep
from hasten.testing._records import EnqueuedJob, describe_call

AnyTask: TypeAlias = "Enqueuer[..., Any] | Task[..., Any, Any] | str"
"""A task, or its name."""

SHOWN: Final = 20
"""How many jobs a failure message lists."""


class EnqueuedJobs:
    """The jobs that were added, in order."""

    def __init__(self) -> None:
        self._jobs: list[EnqueuedJob] = []

    def record(self, jobs: Sequence[NewJob], results: Sequence[AddResult], now_ms: int) -> None:
        """Record the jobs that were added, without those that were in their queue already."""
        for job, result in zip(jobs, results, strict=True):
            if result.existing is None:
                self._jobs.append(_to_enqueued_job(job, result.id, now_ms))

    def record_children(self, outcomes: Sequence[Outcome], now_ms: int) -> None:
        """Record the jobs that are added together with outcomes, unless they were added before."""
        known = {(job.queue, job.job_id) for job in self._jobs}
        for outcome in outcomes:
            children: Sequence[NewJob] = getattr(outcome, "children", ())
            for child in children:
                if child.id is not None and (child.queue, child.id) not in known:
                    self._jobs.append(_to_enqueued_job(child, child.id, now_ms))

    def clear(self) -> None:
        """Forget all jobs."""
        self._jobs.clear()

    def find(
        self, task: AnyTask | None = None, partial: Mapping[str, object] | None = None
    ) -> list[EnqueuedJob]:
        """Return the jobs of a task that have these arguments, and may have more of them."""
        name = None if task is None else task_name(task)
        return [
            job
            for job in self._jobs
            if (name is None or job.task == name)
            and _is_in_queue_of(job, task)
            and _has_arguments(job, task, partial or {})
        ]

    def assert_one(self, task: AnyTask, partial: Mapping[str, object]) -> EnqueuedJob:
        """Return the first job that matches. Raises `AssertionError`, which lists the others."""
        __tracebackhide__ = True
        _check_arguments_exist(task, partial)
        found = self.find(task, partial)
        if found:
            return found[0]
        wanted = describe_call(task_name(task), dict(partial))
        raise AssertionError(f"{wanted} was not enqueued. {self._describe_others(task_name(task))}")

    def assert_none(self, task: AnyTask, partial: Mapping[str, object]) -> None:
        """Raise `AssertionError` if a job matches."""
        __tracebackhide__ = True
        _check_arguments_exist(task, partial)
        found = self.find(task, partial)
        if found:
            raise AssertionError(f"enqueued, but should not be:{_list_jobs(found)}")

    def _describe_others(self, name: str) -> str:
        if not self._jobs:
            return "No job was enqueued."
        # Jobs of the same task first: one of them is probably the wanted one.
        ordered = sorted(self._jobs, key=lambda job: job.task != name)
        return f"Enqueued instead:{_list_jobs(ordered)}"


def task_name(task: AnyTask) -> str:
    """Return the name of a task. Raises `InvalidOption`."""
    if isinstance(task, Enqueuer):
        return task.definition.name
    if isinstance(task, str):
        return task
    raise InvalidOption("task", task, "a task, such as one made by @queue.task, or its name")


def _list_jobs(jobs: Sequence[EnqueuedJob]) -> str:
    lines = [f"\n  {job}" for job in jobs[:SHOWN]]
    if len(jobs) > SHOWN:
        lines.append(f"\n  … and {len(jobs) - SHOWN:,} more")
    return "".join(lines)


def _to_enqueued_job(job: NewJob, id: str, now_ms: int) -> EnqueuedJob:
    options = job.template.options
    at = to_datetime(now_ms)
    return EnqueuedJob(
        task=job.template.name,
        queue=job.queue,
        job_id=id,
        arguments=decode_or_keep(job.data),
        at=at,
        due_at=at + timedelta(milliseconds=options.delay_ms or 0),
        priority=options.priority or 0,
        attempts=options.attempts,
        metadata=dict(options.metadata or {}),
    )


def _is_in_queue_of(job: EnqueuedJob, task: AnyTask | None) -> bool:
    return not isinstance(task, Enqueuer) or job.queue == task.queue_name


def _check_arguments_exist(task: AnyTask, partial: Mapping[str, object]) -> None:
    """Raise `InvalidOption` for arguments that the task does not have: a misspelled name."""
    if not isinstance(task, Enqueuer):
        task_name(task)
        return
    known = task.definition.parameters.stored_names
    for name, value in partial.items():
        if name not in known:
            names = ", ".join(known) or "none"
            expected = f"a parameter of the task {task.definition.name!r}, which has: {names}"
            raise InvalidOption(name, value, expected, code="unknown_name")


def _has_arguments(job: EnqueuedJob, task: AnyTask | None, partial: Mapping[str, object]) -> bool:
    if not partial:
        return True
    if not isinstance(job.arguments, dict):
        return False
    forms = [job.arguments, _decode_by_annotations(job, task)]
    return all(
        any(name in form and _is_equal(expected, form[name]) for form in forms)
        for name, expected in partial.items()
    )


def _decode_by_annotations(job: EnqueuedJob, task: AnyTask | None) -> Mapping[str, Any]:
    """Return the arguments as the handler gets them, such as datetimes and models."""
    if not isinstance(task, Enqueuer):
        return {}
    try:
        return task.definition.parameters.decode_by_name(encode_json(job.arguments).decode())
    except ValueError:
        return {}


def _is_equal(expected: object, actual: object) -> bool:
    if expected == actual:
        return True
    try:
        return bool(decode_json(encode_json(expected).decode()) == actual)
    except (TypeError, ValueError):
        return False
