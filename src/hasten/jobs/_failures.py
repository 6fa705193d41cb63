"""Decide whether the exception of a handler leads to a retry, a postponement or a final failure.

The first part of the decision is made in the process where the exception was raised, because
exceptions often cannot be sent to another process: its result, a `Failure`, can.
"""

from __future__ import annotations

import random
import traceback
from pathlib import Path
from types import TracebackType
from typing import Final

import msgspec

from hasten._durations import to_nearest_ms
from hasten.errors import InvalidResult, UnawaitedChildren
from hasten.jobs._backoff import BackoffFunction, Custom, retry_delay_ms
from hasten.jobs._control_exceptions import RetryAfter, Unrecoverable, WaitForChildren
from hasten.jobs._options import Keep, Options
from hasten.jobs._record import Failed, Lease, Outcome, Postponed, Retry

MAX_ERROR_LENGTH: Final = 4_000  # characters
MAX_TRACEBACK_LENGTH: Final = 16_000  # characters; the end is kept, which shows the error
MIN_POSTPONE_MS: Final = 100  # a job that always postpones itself must not run in a tight loop
MAX_MEMBERS: Final = 10  # how many exceptions of a group an error text includes

_OWN_FOLDER: Final = str(Path(__file__).parent)


class Failure(msgspec.Struct, frozen=True):
    """Why a run has failed, and whether its job should be retried, postponed or failed for good.

    error and traceback are texts.
    """

    error: str
    traceback: str
    # Set by RetryAfter: the job runs again after this time, and no attempt is counted.
    postpone_ms: int | None = None
    final: bool = False  # no further attempt is made
    delay_ms: int | None = None  # the delay that the task's backoff function has returned
    parks: bool = False  # set by WaitForChildren: the job waits for its children


def classify_exception(
    error: BaseException,
    *,
    attempt: int,
    give_up_on: tuple[type[BaseException], ...] = (),
    backoff_function: BackoffFunction | None = None,
) -> Failure:
    """Decide whether an exception leads to a retry, a postponement or a final failure.

    attempt is the number of the failed attempt. give_up_on and backoff_function are the settings of
    the task. Never raises, even if code of the task does.
    """
    text, trace = describe_exception(error), _format_traceback(error)
    try:
        return _classify_by_rules(error, text, trace, attempt, give_up_on, backoff_function)
    except BaseException as exc:  # noqa: BLE001  # a backoff function may even call sys.exit()
        # Both errors are reported. The job is retried, with the delay for tasks without a function.
        what = "deciding on a retry" if backoff_function is None else "its backoff function"
        both = f"{text} (and {what} failed: {describe_exception(exc)})"
        return Failure(_truncate(both, MAX_ERROR_LENGTH), trace)


def _classify_by_rules(
    error: BaseException,
    text: str,
    trace: str,
    attempt: int,
    give_up_on: tuple[type[BaseException], ...],
    backoff_function: BackoffFunction | None,
) -> Failure:
    """Classify an exception by the rules for control exceptions, give_up_on and the backoff.

    text and trace describe the exception in the result. An exception of the backoff function is not
    caught.
    """
    final: tuple[type[BaseException], ...] = (Unrecoverable, InvalidResult, UnawaitedChildren)
    final += give_up_on
    members = [error] if isinstance(error, final) else _leaf_exceptions(error)
    delays = [
        max(to_nearest_ms("RetryAfter", member.delay_ms / 1000), MIN_POSTPONE_MS)
        for member in members
        if isinstance(member, RetryAfter)
    ]
    # In a group, the exceptions that control a job count only if the group has no others.
    if all(isinstance(member, WaitForChildren) for member in members):
        return Failure(text, trace, parks=True)
    if delays and all(isinstance(member, RetryAfter | WaitForChildren) for member in members):
        return Failure(text, trace, postpone_ms=max(delays))
    if all(isinstance(member, (*final, RetryAfter)) for member in members):
        return Failure(text, trace, final=True)
    if backoff_function is None:
        return Failure(text, trace)
    delay = backoff_function(attempt, error)
    if delay is None:
        return Failure(text, trace, final=True)
    return Failure(text, trace, delay_ms=to_nearest_ms("backoff", delay))


def _leaf_exceptions(error: BaseException) -> list[BaseException]:
    """Return all exceptions in a group and its nested groups; [error] if it is no group."""
    members: list[BaseException] = []
    pending = [error]
    while pending:
        exception = pending.pop()
        if isinstance(exception, BaseExceptionGroup):
            pending += reversed(exception.exceptions)
        else:
            members.append(exception)
    return members


def decide_outcome(failure: Failure, lease: Lease, options: Options, keep: Keep) -> Outcome:
    """Decide between a postponement, another attempt and a final failure, as BullMQ does.

    keep is the retention rule for the job if it fails for good.
    """
    job = lease.job
    attempt = job.attempts_made + 1
    if failure.postpone_ms is not None:
        return Postponed(job.id, lease.token, failure.postpone_ms)
    if failure.final or attempt >= options.attempts:
        return Failed(
            job.id,
            lease.token,
            failure.error,
            failure.traceback,
            keep,
            exhausted=attempt >= options.attempts,
        )
    wait_ms = failure.delay_ms
    if wait_ms is None:
        wait_ms = _delay_by_job_backoff_ms(options, attempt)
    return Retry(job.id, lease.token, failure.error, failure.traceback, wait_ms)


def make_failed_outcome(lease: Lease, text: str, keep: Keep) -> Failed:
    """Return the outcome of a job that fails for good without being run."""
    text = _truncate(_replace_surrogates(text), MAX_ERROR_LENGTH)
    return Failed(lease.job.id, lease.token, text, None, keep, counts=False)


def _delay_by_job_backoff_ms(options: Options, attempt: int) -> int:
    """Return the delay before the next attempt by the job's own backoff option, in ms."""
    if isinstance(options.backoff, Custom):
        return 0  # a name that only another worker has a backoff function for
    return retry_delay_ms(options.backoff, failed_attempt=attempt, random=random.random())  # noqa: S311


def describe_exception(error: BaseException) -> str:
    """Return the class name and text of an exception, for storing it with the job. Never raises.

    For an exception group, the exceptions in it are included.
    """
    text = _describe_single_exception(error)
    try:
        if isinstance(error, BaseExceptionGroup):
            members = _leaf_exceptions(error)
            shown = [_describe_single_exception(member) for member in members[:MAX_MEMBERS]]
            if len(members) > MAX_MEMBERS:
                shown.append(f"{len(members) - MAX_MEMBERS} more")
            text = f"{text}: {'; '.join(shown)}"
    except Exception:  # noqa: BLE001, S110  # a subclass may have broken attributes; its name is enough then
        pass
    return _truncate(text, MAX_ERROR_LENGTH)


def _describe_single_exception(error: BaseException) -> str:
    """Return the class name and text of an exception. Never raises."""
    name = type(error).__name__
    try:
        text = _replace_surrogates(str(error))
    except BaseException as exc:  # noqa: BLE001  # mistakes in __str__ are common
        text = f"its text is not available: {type(exc).__name__} in __str__"
    return f"{name}: {_truncate(text, MAX_ERROR_LENGTH)}" if text else name


def _format_traceback(error: BaseException) -> str:
    """Return the traceback as text, only its end if it is long. Never raises."""
    try:
        lines = traceback.format_exception(
            type(error), error, skip_library_frames(error.__traceback__)
        )
        text = _replace_surrogates("".join(lines))
    except BaseException as exc:  # noqa: BLE001  # the attributes of the exception may raise
        return f"the traceback is not available: {type(exc).__name__}"
    return text if len(text) <= MAX_TRACEBACK_LENGTH else "…" + text[-MAX_TRACEBACK_LENGTH:]


def skip_library_frames(trace: TracebackType | None) -> TracebackType | None:
    """Return the traceback without the library's frames before the first frame of the handler."""
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OWN_FOLDER):
        if trace.tb_next is None:
            break
        trace = trace.tb_next
    return trace


def _replace_surrogates(text: str) -> str:
    """Replace lone surrogates, which a store cannot hold."""
    return text.encode("utf-8", "replace").decode()


def _truncate(text: str, length: int) -> str:
    """Cut a text to this length, with … in place of the rest."""
    return text if len(text) <= length else text[:length] + "…"
