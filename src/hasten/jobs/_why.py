"""Why a job does not run now: see `Queue.why`.

`explain` is a pure function: from a job, what decides whether it runs, the workers and the time, to
the one reason that a person should read. Reasons that no worker can change come first, then what
stops all jobs of the queue, then what stops this job.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final

import msgspec

from hasten.errors import InvalidOption
from hasten.jobs._built_in_tasks import BATCH_TASK, BUILT_IN_TASKS, opening_id
from hasten.jobs._engine import CANCELLED_ERROR
from hasten.jobs._epoch import to_datetime
from hasten.jobs._options import DEFAULT_OPTIONS, Options, decode_options
from hasten.jobs._record import COUNTED_AHEAD, ChildJob, JobRecord, WhyFacts
from hasten.jobs._releases import check_release, is_at_least
from hasten.jobs._states import State
from hasten.jobs._worker_info import WorkerInfo

# Workers look for expired leases this often: see `RENEWALS_PER_LEASE` in `_leases.py`.
CHECKS_PER_LEASE: Final = 4

# An event loop that is late by more than this counts as blocked.
BLOCKED_SECONDS: Final = 2.0

MAX_ERROR: Final = 200  # characters of an error in a sentence


class Reason(StrEnum):
    """Why a job does not run now. Later versions add reasons: do not rely on a complete list."""

    COMPLETED = "completed"  # the job has run
    FAILED = "failed"  # the job failed for good, or was cancelled
    RUNNING = "running"  # a worker runs the job
    LEASE_EXPIRED = "lease-expired"  # the worker that ran the job has died or hangs
    WAITING_CHILDREN = "waiting-children"  # the job waits for its children
    DELAYED = "delayed"  # the job is not due yet
    OVERLAP = "overlap"  # the job waits until an earlier run of its schedule ends
    RETRY = "retry"  # the job waits for its next attempt
    POSTPONED = "postponed"  # the last run of the job postponed it
    EXPIRED = "expired"  # the job did not start in time: the next worker fails it
    WILL_FAIL = "will-fail"  # the next worker fails the job: it crashed too often, for example
    PAUSED = "paused"  # the queue is paused
    NO_WORKER = "no-worker"  # no worker takes jobs of the queue
    NO_RELEASE = "no-release"  # no worker has the release that the job needs
    NO_TASK = "no-task"  # no worker has the task of the job
    RATE_LIMIT = "rate-limit"  # the rate limit of the queue is reached
    CONCURRENCY = "concurrency"  # the global concurrency of the queue is reached
    BLOCKED = "blocked"  # handlers block the event loops of all workers
    BUSY = "busy"  # all slots of the workers are used
    READY = "ready"  # a worker takes the job next, or after the jobs in front of it


class Why(msgspec.Struct, frozen=True, kw_only=True):
    """Why a job does not run now, or how it has ended: a code, a sentence and the facts in it.

    Facts that do not belong to the reason are None. `str(why)` is the sentence.

    - queue, id, task, state: the job.
    - code: the reason.
    - text: a sentence for people. Its words may change between versions.
    - until: until when the reason holds, if that is known: a delay, a lease, a rate limit.
    - worker: the name of the worker that runs the job, or that an expired lease belongs to.
    - error: of the last failed run, or of the child.
    - child: the id of a child that the job waits for: a failed one if there is one.
    - child_queue: the queue of the child.
    - ahead: how many jobs are claimed before this one. They are counted up to 10,000.
    - since: the release that the job needs.
    """

    queue: str
    id: str
    task: str
    state: State
    code: Reason
    text: str
    until: datetime | None = None
    worker: str | None = None
    error: str | None = None
    child: str | None = None
    child_queue: str | None = None
    ahead: int | None = None
    since: str | None = None

    def __str__(self) -> str:
        return self.text


def explain(
    situation: WhyFacts,
    workers: Sequence[WorkerInfo],
    unknown_worker_count: int,
    *,
    now_ms: int,
) -> Why:
    """Return why a job does not run now.

    workers are the running workers of its queue. unknown_worker_count is how many more workers
    there are, whose tasks and slots are unknown.
    """
    return _Explanation(situation, workers, unknown_worker_count, now_ms).explain()


class _Explanation:
    def __init__(
        self,
        situation: WhyFacts,
        workers: Sequence[WorkerInfo],
        unknown_worker_count: int,
        now_ms: int,
    ) -> None:
        self._situation = situation
        self._job = situation.job
        self._options = _options_of(situation.job)
        self._since = _parse_release(self._options.since)
        self._workers = workers
        self._unknown_worker_count = unknown_worker_count
        self._now_ms = now_ms

    def explain(self) -> Why:
        job = self._job
        match job.state:
            case State.COMPLETED:
                return self._make_why(Reason.COMPLETED, f"has completed{self._format_end_time()}")
            case State.FAILED:
                return self._explain_failed()
            case State.ACTIVE:
                return self._explain_active()
            case State.WAITING_CHILDREN:
                return self._explain_waiting_for_children()
            case State.DELAYED if job.due_ms is not None and job.due_ms > self._now_ms:
                return self._explain_not_due(job.due_ms)
            case State.DELAYED | State.WAITING | State.PRIORITIZED:
                return self._explain_ready()

    def _make_why(
        self, code: Reason, text: str, until_ms: int | None = None, **facts: object
    ) -> Why:
        job = self._job
        return Why(
            queue=job.queue,
            id=job.id,
            task=job.name,
            state=job.state,
            code=code,
            text=f"Job {job.id} ({job.name}) {text}.",
            until=None if until_ms is None else to_datetime(until_ms),
            **facts,  # type: ignore[arg-type]  # each caller passes fields of `Why`
        )

    # Finished and running jobs --------------------------------------------------------------------

    def _format_end_time(self) -> str:
        ms = self._job.finished_ms
        return "" if ms is None else f" at {_format_time(ms)}"

    def _explain_failed(self) -> Why:
        error = self._job.error or ""
        if error == CANCELLED_ERROR:
            return self._make_why(
                Reason.FAILED, f"was cancelled{self._format_end_time()}", error=error
            )
        made = self._job.attempts_made
        attempts = (
            f", after {_format_count(made, 'attempt')}" if made else ", before it could start"
        )
        return self._make_why(
            Reason.FAILED,
            f"has failed{self._format_end_time()}{attempts}: {_short(error)}",
            error=error,
        )

    def _explain_active(self) -> Why:
        job, until_ms = self._job, self._situation.lease_until_ms
        on = f" on worker {job.worker}" if job.worker else ""
        if until_ms is not None and until_ms > self._now_ms:
            since = "" if job.started_ms is None else f" since {_format_time(job.started_ms)}"
            cancelled = ", and is being cancelled" if job.cancel_requested else ""
            return self._make_why(
                Reason.RUNNING,
                f"is running{on}{since}{cancelled}; the lease of the worker ends at "
                f"{self._format_until(until_ms)} unless it is renewed",
                until_ms,
                worker=job.worker,
            )
        lost = f"was running{on}, whose lease has expired" if on else "has an expired lease"
        return self._make_why(
            Reason.LEASE_EXPIRED,
            f"{lost}: {self._describe_when_taken_back()}",
            until_ms,
            worker=job.worker,
        )

    def _describe_when_taken_back(self) -> str:
        """Describe when the job, whose lease has expired, is taken back."""
        if self._workers:
            seconds = min(info.lease for info in self._workers) / CHECKS_PER_LEASE
            return f"another worker takes the job back within about {seconds:.3g} s"
        if self._unknown_worker_count:
            return "another worker takes the job back when it next looks for such jobs"
        return "the job runs again when a worker of the queue is started"

    # Unfinished jobs ------------------------------------------------------------------------------

    def _explain_waiting_for_children(self) -> Why:
        pending = self._situation.pending
        children = self._situation.children
        if not pending:
            return self._make_why(
                Reason.WAITING_CHILDREN, "waits for its children, of which none is unfinished"
            )
        which = f"waits for {_format_count(pending, 'child', 'children')}"
        if self._job.name == BATCH_TASK:
            opening = (self._job.queue, opening_id(self._job.id))
            if any((child.queue, child.id) == opening for child in children):
                children = [child for child in children if (child.queue, child.id) != opening]
                pending -= 1
                which = "waits for more members, because the batch is open"
                if pending:
                    which += f", and for {_format_count(pending, 'member')}"
        if not children:
            return self._make_why(Reason.WAITING_CHILDREN, which)
        child = children[0]
        return self._make_why(
            Reason.WAITING_CHILDREN,
            f"{which}: job {child.id} of queue {child.queue} {_describe_child(child)}",
            child=child.id,
            child_queue=child.queue,
            error=child.error,
        )

    def _explain_not_due(self, due_ms: int) -> Why:
        job, since = self._job, self._since
        paused = ", and the queue is paused" if self._situation.is_paused else ""
        if self._situation.is_held:
            return self._make_why(
                Reason.OVERLAP, f"waits until an earlier run of its schedule ends{paused}"
            )
        at = f"{self._format_until(due_ms)}{paused}"
        was_handed_back = job.attempts_started > job.attempts_made
        if (
            was_handed_back
            and not job.crashes
            and since is not None
            and self._all_workers_are_too_old()
        ):
            return self._explain_missing_release(since, due_ms, f"; it is offered again at {at}")
        if job.error is not None and job.attempts_made:
            of = f" of {self._options.attempts}" if self._options.attempts > 1 else ""
            return self._make_why(
                Reason.RETRY,
                f"runs again at {at}: attempt {job.attempts_made}{of} failed: {_short(job.error)}",
                due_ms,
                error=job.error,
            )
        if was_handed_back:
            text = f"was handed back by its last run and is due at {at}"
            return self._make_why(Reason.POSTPONED, text, due_ms)
        return self._make_why(Reason.DELAYED, f"is due at {at}", due_ms)

    def _explain_ready(self) -> Why:
        return (
            self._explain_if_it_cannot_start()
            or self._explain_if_queue_is_paused()
            or self._explain_if_no_worker_takes_it()
            or self._explain_if_limited()
            or self._explain_if_workers_are_busy()
            or self._explain_next()
        )

    def _explain_if_it_cannot_start(self) -> Why | None:
        failure, expires_at_ms = self._job.deferred_failure, self._options.expires_at_ms
        if failure is not None:
            return self._make_why(
                Reason.WILL_FAIL,
                f"is not run again: the next worker that claims it fails it: {_short(failure)}",
                error=failure,
            )
        # Workers whose release is too old claim a job and hand it back, which counts as a start.
        starts = self._job.attempts_made if self._since is not None else self._job.attempts_started
        if expires_at_ms is None or starts or expires_at_ms > self._now_ms:
            return None
        return self._make_why(
            Reason.EXPIRED,
            f"expired at {_format_time(expires_at_ms)}, before it could start: the next worker "
            "that claims it fails it",
        )

    def _explain_if_queue_is_paused(self) -> Why | None:
        if not self._situation.is_paused:
            return None
        text = f"waits because queue {self._job.queue} is paused: resume the queue"
        return self._make_why(Reason.PAUSED, text, ahead=self._situation.ahead)

    def _workers_that_still_claim(self) -> list[WorkerInfo]:
        """Return the workers that still take jobs."""
        return [info for info in self._workers if not info.stopping]

    def _filter_by_required_release(self, workers: Sequence[WorkerInfo]) -> list[WorkerInfo]:
        """Return those of the workers that have the release that the job needs."""
        since = self._since
        if since is None:
            return list(workers)
        return [
            info
            for info in workers
            if (release := _parse_release(info.release)) and is_at_least(release, since)
        ]

    def _all_workers_are_too_old(self) -> bool:
        return not self._unknown_worker_count and not self._filter_by_required_release(
            self._workers_that_still_claim()
        )

    def _explain_if_no_worker_takes_it(self) -> Why | None:
        if self._unknown_worker_count:
            return None  # they may have its task
        job, since = self._job, self._since
        taking = self._workers_that_still_claim()
        if not taking:
            hint = "those that run are about to stop" if self._workers else "start a worker"
            return self._make_why(
                Reason.NO_WORKER,
                f"waits because no worker takes jobs of queue {job.queue}: {hint}",
                ahead=self._situation.ahead,
            )
        able = self._filter_by_required_release(taking)
        if not able and since is not None:
            return self._explain_missing_release(since)
        if job.name in BUILT_IN_TASKS or any(job.name in info.tasks for info in able):
            return None
        known = ", ".join(sorted({task for info in able for task in info.tasks})) or "none"
        return self._make_why(
            Reason.NO_TASK,
            f"waits, and no worker of queue {job.queue} has its task: a worker that claims it "
            f"fails it (tasks of the workers: {_short(known)})",
            ahead=self._situation.ahead,
        )

    def _explain_missing_release(
        self, min_release: str, until_ms: int | None = None, text_suffix: str = ""
    ) -> Why:
        releases = sorted({info.release or "none" for info in self._workers_that_still_claim()})
        own = f" (releases of the workers: {', '.join(releases)})" if releases else ""
        return self._make_why(
            Reason.NO_RELEASE,
            f"needs a worker of release {min_release} or later, and none is running{own}"
            f"{text_suffix}",
            until_ms,
            since=min_release,
        )

    def _explain_if_limited(self) -> Why | None:
        situation = self._situation
        if situation.limited_until_ms is not None:
            return self._make_why(
                Reason.RATE_LIMIT,
                f"waits for the rate limit of queue {self._job.queue} until "
                f"{self._format_until(situation.limited_until_ms)}{self._describe_jobs_ahead()}",
                situation.limited_until_ms,
                ahead=situation.ahead,
            )
        if situation.full is None:
            return None
        return self._make_why(
            Reason.CONCURRENCY,
            f"waits because {_format_count(situation.full, 'job')} of queue {self._job.queue} run, "
            f"as many as its global concurrency allows{self._describe_jobs_ahead()}",
            ahead=situation.ahead,
        )

    def _explain_if_workers_are_busy(self) -> Why | None:
        able = self._filter_by_required_release(self._workers_that_still_claim())
        if self._unknown_worker_count or not able:
            return None
        blocked = [info for info in able if info.loop_lag > BLOCKED_SECONDS]
        if len(blocked) == len(able):
            worst = max(blocked, key=lambda info: info.loop_lag)
            return self._make_why(
                Reason.BLOCKED,
                f"waits because a handler blocks the event loop of every worker: that of worker "
                f"{worst.name} for {worst.loop_lag:.1f} s{self._describe_jobs_ahead()}",
                worker=worst.name,
                ahead=self._situation.ahead,
            )
        if any(info.slots_used < info.slots for info in able):
            return None
        slots = sum(info.slots for info in able)
        return self._make_why(
            Reason.BUSY,
            f"waits because all {_format_count(slots, 'slot')} of "
            f"{_format_count(len(able), 'worker')} are used{self._describe_jobs_ahead()}",
            ahead=self._situation.ahead,
        )

    def _explain_next(self) -> Why:
        text = f"is ready{self._describe_jobs_ahead() or ': a worker takes it next'}"
        return self._make_why(Reason.READY, text, ahead=self._situation.ahead)

    # Words ----------------------------------------------------------------------------------------

    def _describe_jobs_ahead(self) -> str:
        ahead = self._situation.ahead
        if not ahead:
            return ""
        if ahead >= COUNTED_AHEAD:
            return f"; {ahead:,} jobs or more are in front of it"
        return f"; {_format_count(ahead, 'job')} {'is' if ahead == 1 else 'are'} in front of it"

    def _format_until(self, ms: int) -> str:
        return f"{_format_time(ms)} (in {_format_duration(ms - self._now_ms)})"


def _options_of(job: JobRecord) -> Options:
    try:
        return decode_options(job.opts)
    except ValueError:  # of another program, or damaged
        return DEFAULT_OPTIONS


def _parse_release(stored: str | None) -> str | None:
    """Check a stored application release, and return it. Returns None for a malformed one."""
    try:
        return check_release("release", stored)
    except InvalidOption:
        return None


def _describe_child(child: ChildJob) -> str:
    match child.state:
        case None:
            return "no longer exists"
        case State.FAILED:
            error = _short(child.error or "")
            return f"has failed: {error}; the job waits until it is retried or removed"
        case State.ACTIVE:
            return "is running"
        case _:
            return f"is {child.state}"


def _format_count(number: int, singular: str, plural: str | None = None) -> str:
    return f"{number:,} {singular if number == 1 else plural or f'{singular}s'}"


def _format_time(ms: int) -> str:
    return to_datetime(ms).strftime("%Y-%m-%d %H:%M:%S UTC")


def _format_duration(ms: int) -> str:
    seconds = ms / 1000
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7_200:
        return f"{seconds / 60:.0f} min"
    if seconds < 172_800:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 86_400:,.0f} days"


def _short(text: str) -> str:
    """Return the first line of a text, shortened."""
    line = text.partition("\n")[0].strip().rstrip(".")
    return line if len(line) <= MAX_ERROR else f"{line[:MAX_ERROR]}…"
