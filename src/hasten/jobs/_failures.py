"""Decide what the error of a handler means for its job.

The decision is made in the process where the error occurred, because exceptions often cannot be
sent to another process.
"""

from __future__ import annotations

import random
import traceback
from pathlib import Path
from types import TracebackType
from typing import Final

import msgspec

from hasten._durations import to_ms
from hasten.errors import InvalidResult
from hasten.jobs._backoff import BackoffFunction, Custom, delay_ms
from hasten.jobs._control_exceptions import RetryAfter, Unrecoverable
from hasten.jobs._options import Keep, Options
from hasten.jobs._record import Failed, Lease, Outcome, Postponed, Retry

MAX_ERROR_LENGTH: Final = 4_000  # characters
MAX_TRACEBACK_LENGTH: Final = 16_000  # characters; the end is kept, which shows the error
MIN_POSTPONE_MS: Final = 100  # no attempt is counted, so the job could run in a tight loop
MAX_MEMBERS: Final = 10  # how many exceptions of a group the error text names

_OWN_FOLDER: Final = str(Path(__file__).parent)


class Failure(msgspec.Struct, frozen=True):
    """Why a run has failed, and whether and when its task wants another attempt."""

    error: str
    traceback: str
    postpone_ms: int | None = (
        None  # by RetryAfter: run again after this, without counting an attempt
    )
    final: bool = False  # no further attempt is made
    delay_ms: int | None = None  # from the backoff function of the task


def classify(
    error: BaseException,
    *,
    attempt: int,
    give_up_on: tuple[type[BaseException], ...] = (),
    backoff_function: BackoffFunction | None = None,
) -> Failure:
    """Decide what an error means for its job. Never raises, whatever the code of the task does."""
    text, trace = error_text(error), _format_traceback(error)
    try:
        return _decide(error, text, trace, attempt, give_up_on, backoff_function)
    except BaseException as exc:  # noqa: BLE001  # a backoff function may even call sys.exit()
        # The error of the job is kept beside this one; the job waits as it would by default.
        what = "the decision on its retry" if backoff_function is None else "its backoff function"
        both = f"{text} (and {what} failed: {error_text(exc)})"
        return Failure(_clip(both, MAX_ERROR_LENGTH), trace)


def _decide(
    error: BaseException,
    text: str,
    trace: str,
    attempt: int,
    give_up_on: tuple[type[BaseException], ...],
    backoff_function: BackoffFunction | None,
) -> Failure:
    final: tuple[type[BaseException], ...] = (Unrecoverable, InvalidResult, *give_up_on)
    members = [error] if isinstance(error, final) else _members(error)
    delays = [
        max(to_ms("RetryAfter", member.delay_ms / 1000), MIN_POSTPONE_MS)
        for member in members
        if isinstance(member, RetryAfter)
    ]
    # A group counts as one of these exceptions only if it holds nothing else.
    if len(delays) == len(members):
        return Failure(text, trace, postpone_ms=max(delays))
    if all(isinstance(member, (*final, RetryAfter)) for member in members):
        return Failure(text, trace, final=True)
    if backoff_function is None:
        return Failure(text, trace)
    delay = backoff_function(attempt, error)
    if delay is None:
        return Failure(text, trace, final=True)
    return Failure(text, trace, delay_ms=to_ms("backoff", delay))


def _members(error: BaseException) -> list[BaseException]:
    """Return the exceptions in a group and its inner groups; the error itself if it is no group."""
    members: list[BaseException] = []
    pending = [error]
    while pending:
        one = pending.pop()
        if isinstance(one, BaseExceptionGroup):
            pending += reversed(one.exceptions)
        else:
            members.append(one)
    return members


def outcome_of(failure: Failure, lease: Lease, options: Options, keep: Keep) -> Outcome:
    """Decide between another attempt and a final failure, as BullMQ does."""
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
        wait_ms = _backoff_ms(options, attempt)
    return Retry(job.id, lease.token, failure.error, failure.traceback, wait_ms)


def failed_without_run(lease: Lease, text: str, keep: Keep) -> Failed:
    """Return the outcome of a job that fails for good without a run."""
    text = _clip(_storable(text), MAX_ERROR_LENGTH)
    return Failed(lease.job.id, lease.token, text, None, keep, counts=False)


def _backoff_ms(options: Options, attempt: int) -> int:
    if isinstance(options.backoff, Custom):
        return 0  # the task has no function for it in this worker
    return delay_ms(options.backoff, attempt=attempt, random=random.random())  # noqa: S311


def error_text(error: BaseException) -> str:
    """Return a text that names the error, and its members if it is a group. Never raises."""
    text = _describe(error)
    try:
        if isinstance(error, BaseExceptionGroup):
            members = _members(error)
            shown = [_describe(member) for member in members[:MAX_MEMBERS]]
            if len(members) > MAX_MEMBERS:
                shown.append(f"{len(members) - MAX_MEMBERS} more")
            text = f"{text}: {'; '.join(shown)}"
    except Exception:  # noqa: BLE001, S110  # a subclass of a group may fail; its name is enough then
        pass
    return _clip(text, MAX_ERROR_LENGTH)


def _describe(error: BaseException) -> str:
    name = type(error).__name__
    try:
        text = _storable(str(error))
    except BaseException as exc:  # noqa: BLE001  # mistakes in __str__ are common
        text = f"its text is not available: {type(exc).__name__} in __str__"
    return f"{name}: {_clip(text, MAX_ERROR_LENGTH)}" if text else name


def _format_traceback(error: BaseException) -> str:
    try:
        lines = traceback.format_exception(
            type(error), error, handler_traceback(error.__traceback__)
        )
        text = _storable("".join(lines))
    except BaseException as exc:  # noqa: BLE001  # the attributes that it reads may raise
        return f"the traceback is not available: {type(exc).__name__}"
    return text if len(text) <= MAX_TRACEBACK_LENGTH else "…" + text[-MAX_TRACEBACK_LENGTH:]


def handler_traceback(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback from the first frame of the handler, without hasten's own frames."""
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OWN_FOLDER):
        if trace.tb_next is None:
            break
        trace = trace.tb_next
    return trace


def _storable(text: str) -> str:
    """Replace lone surrogates, which a store cannot hold."""
    return text.encode("utf-8", "replace").decode()


def _clip(text: str, length: int) -> str:
    return text if len(text) <= length else text[:length] + "…"
