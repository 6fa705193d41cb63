"""The moments of a flow or a batch: first failure, ended, succeeded. They add a job each, once.

A built-in job, the *watcher*, is the parent of the root of the flow, or of all members of the
batch. The links to it have `on_failure="continue"` if the first failure is of interest, so that it
runs at once after each failure, and "ignore" otherwise. A worker runs it as follows: it reads what
has ended, and its outcome, which is a `Parked`, adds the jobs whose moment has come. This is one
step of the store, which also records which of them were added (`Parked.add_calls`, as a sum of
`BITS`). So each is added exactly once, also if the worker dies at any time. Then the watcher waits
again, or completes.

An open batch has one more child, the *opening*: a delayed job that keeps the watcher waiting. To
close the batch is to delete it. When it becomes due, because the batch was never closed, a worker
lets it fail, which closes the batch as well. Its link has `on_failure="remove"`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec

from hasten.jobs._built_in_tasks import BATCH_TASK, FLOW_TASK, OPENING_TASK, opening_id
from hasten.jobs._engine import Engine
from hasten.jobs._family import ChildProgress, has_unfinished, to_progress
from hasten.jobs._flow import MOMENTS, Moment
from hasten.jobs._options import KEEP_NONE, Options, decode_options, encode_options
from hasten.jobs._record import (
    Completed,
    Failed,
    JobRecord,
    JobTemplate,
    Lease,
    NewJob,
    OnFailure,
    Outcome,
    ParentLink,
    Parked,
    Postponed,
)
from hasten.jobs._states import FINISHED

BITS: Final[Mapping[Moment, int]] = {"first_failure": 1, "ended": 2, "succeeded": 4}

# After its root has failed, other jobs of a flow may still run. They are looked for this often.
CHECK_AGAIN_MS: Final = 1_000

LEFT_OPEN: Final = "the batch was not closed in time, so it was closed automatically"


class HookJob(msgspec.Struct, frozen=True):
    """A job that is added at a moment: its queue, id and task, and its data and options as JSON.

    added_ms is when it was described: an expiry time counts from its adding instead.
    """

    queue: str
    id: str
    task: str
    data: str
    opts: str
    described_ms: int

    @classmethod
    def of(cls, job: NewJob, now_ms: int) -> HookJob:
        """Return the description of a job that is added later."""
        return cls(job.queue, job.id or "", job.template.name, job.data, job.template.opts, now_ms)

    def to_new_job(self, now_ms: int) -> NewJob:
        """Return the job to add now."""
        options, opts = decode_options(self.opts), self.opts
        if options.expires_at_ms is not None:
            later_ms = options.expires_at_ms + now_ms - self.described_ms
            options = replace(options, expires_at_ms=later_ms)
            opts = encode_options(options)
        return NewJob(self.queue, JobTemplate(self.task, opts, options), self.data, self.id)


class WatcherData(msgspec.Struct, frozen=True):
    """The data of a watcher: the jobs to add, by moment."""

    hooks: dict[str, HookJob] = {}


decode_progress: Final = msgspec.json.Decoder(ChildProgress).decode
_decode_data: Final = msgspec.json.Decoder(WatcherData).decode


class Members(msgspec.Struct, frozen=True):
    """What a watcher knows about its members.

    is_open is whether more may be added. added has the `BITS` of the jobs that were added.
    """

    progress: ChildProgress
    is_open: bool = False
    added: int = 0


def hook_id(group: str, moment: Moment) -> str:
    """Return the id of the job that is added at a moment of a flow or a batch with this id."""
    return f"{group}-{moment.replace('_', '-')}"


def policy_of(hooks: Mapping[Moment, Any]) -> OnFailure:
    """Return what the failure of a member does to the watcher."""
    return "continue" if "first_failure" in hooks else "ignore"


def watcher_id(flow_id: str) -> str:
    """Return the id of the watcher of a flow."""
    return f"{flow_id}-flow"


def make_watcher(
    task: str, queue: str, id: str, hooks: Mapping[Moment, NewJob], *, now_ms: int
) -> NewJob:
    """Return a watcher, which adds these jobs."""
    described: dict[str, HookJob] = {
        moment: HookJob.of(job, now_ms) for moment, job in hooks.items()
    }
    data = msgspec.json.encode(WatcherData(described)).decode()
    return NewJob(queue, JobTemplate.of(task, Options(job_id=id), now_ms=now_ms), data, id)


def make_opening(queue: str, batch: str, *, open_ms: int, now_ms: int) -> NewJob:
    """Return the job that keeps a batch open, for at most open_ms."""
    options = Options(
        job_id=opening_id(batch), delay_ms=open_ms, keep_completed=KEEP_NONE, keep_failed=KEEP_NONE
    )
    return NewJob(
        queue,
        JobTemplate.of(OPENING_TASK, options, now_ms=now_ms),
        "{}",
        opening_id(batch),
        ParentLink(queue, batch, "remove"),
    )


def read_hooks(job: JobRecord) -> dict[Moment, HookJob]:
    """Return the jobs that a watcher adds. Raises `ValueError` if its data is damaged."""
    stored = _decode_data(job.data).hooks
    return {moment: stored[moment] for moment in MOMENTS if moment in stored}


async def read_members(engine: Engine, task: str, queue: str, id: str) -> Members:
    """Return what has become of the members of a flow or a batch. task is that of the watcher."""
    # First the opening: while it is there, the batch may get more members.
    is_open = False
    if task == BATCH_TASK:
        (end,) = await engine.get_ends(queue, [opening_id(id)])
        is_open = end is not None and end.state not in FINISHED
    counts = await engine.count_children(queue, id)
    progress = to_progress(counts)
    if is_open and progress.pending:
        progress = ChildProgress(progress.pending - 1, progress.completed, progress.failed)
    return Members(progress, is_open, counts.add_calls)


def choose_due(members: Members, hooks: Sequence[Moment]) -> list[Moment]:
    """Return the moments that have come, of which no job was added so far."""
    progress = members.progress
    has_ended = not members.is_open and not progress.pending
    has_come = {
        "first_failure": progress.failed > 0,
        "ended": has_ended,
        "succeeded": has_ended and not progress.failed,
    }
    return [moment for moment in hooks if has_come[moment] and not members.added & BITS[moment]]


async def run_built_in(engine: Engine, lease: Lease, now_ms: int) -> Outcome:
    """Run a built-in job, and return its outcome. Raises `StoreError`."""
    job = lease.job
    if job.name == OPENING_TASK:
        if (decode_options(job.opts).delay_ms + job.created_ms) > now_ms:  # it was promoted
            return Postponed(
                job.id, lease.token, decode_options(job.opts).delay_ms + job.created_ms - now_ms
            )
        return Failed(job.id, lease.token, LEFT_OPEN, None, KEEP_NONE)
    hooks = read_hooks(job)
    members = await read_members(engine, job.name, job.queue, job.id)
    due = choose_due(members, list(hooks))
    has_ended = not members.is_open and not members.progress.pending
    if job.name == FLOW_TASK and has_ended and await _has_unfinished_members(engine, job):
        # The root has failed, but other jobs of the flow still run.
        due = [moment for moment in due if moment == "first_failure"]
        if not due:
            return Postponed(job.id, lease.token, CHECK_AGAIN_MS)
    if due:
        added = members.added + sum(BITS[moment] for moment in due)
        jobs = [hooks[moment].to_new_job(now_ms) for moment in due]
        return Parked(job.id, lease.token, jobs, added)
    if has_ended:
        return Completed(job.id, lease.token, msgspec.json.encode(members.progress).decode())
    return Parked(job.id, lease.token, [], members.added)


async def _has_unfinished_members(engine: Engine, job: JobRecord) -> bool:
    """Return whether a job of a flow is unfinished. job is the watcher."""
    counts = await engine.count_children(job.queue, job.id)
    return bool(counts.ignored) and await has_unfinished(engine, job.queue, job.id)
