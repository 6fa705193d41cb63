"""What a handler's error means for its job: a record, from wherever the handler ran.

It is made where the error is, since exceptions do not travel well between processes.
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
from hasten.jobs._options import Keep, Options
from hasten.jobs._record import Failed, Lease, Outcome, Postponed, Retry
from hasten.jobs._steering import RetryAfter, Unrecoverable

MAX_REASON: Final = 4_000  # characters
MAX_TRACE: Final = 16_000  # characters, of its end: that is where the error is
MIN_POSTPONE_MS: Final = 100  # no attempt is counted: a job must not run in a tight loop
MAX_MEMBERS: Final = 10  # of an exception group are named in the reason

_OWN_FOLDER: Final = str(Path(__file__).parent)


class Failure(msgspec.Struct, frozen=True):
    """Why a run has failed, and what its task says of a next attempt."""

    error: str
    traceback: str
    postpone_ms: int | None = None  # RetryAfter: run again then, not counting
    final: bool = False  # no further attempt would help
    delay_ms: int | None = None  # from the task's own back-off function


def describe(
    error: BaseException,
    *,
    attempt: int,
    give_up_on: tuple[type[BaseException], ...] = (),
    backoff_function: BackoffFunction | None = None,
) -> Failure:
    """Decide what an error means for its job. Never raises, whatever the user's code does."""
    reason, trace = reason_of(error), _trace(error)
    try:
        return _decide(error, reason, trace, attempt, give_up_on, backoff_function)
    except BaseException as exc:  # noqa: BLE001  # a back-off function may even call sys.exit()
        # Its own error must not hide the job's; the job waits as it would by default.
        what = "deciding on its retry" if backoff_function is None else "its backoff function"
        note = f"{reason} (and {what} failed: {reason_of(exc)})"
        return Failure(_clip(note, MAX_REASON), trace)


def _decide(
    error: BaseException,
    reason: str,
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
        return Failure(reason, trace, postpone_ms=max(delays))
    if all(isinstance(member, (*final, RetryAfter)) for member in members):
        return Failure(reason, trace, final=True)
    if backoff_function is None:
        return Failure(reason, trace)
    delay = backoff_function(attempt, error)
    if delay is None:
        return Failure(reason, trace, final=True)
    return Failure(reason, trace, delay_ms=to_ms("backoff", delay))


def _members(error: BaseException) -> list[BaseException]:
    """The exceptions in a group, however deep; the error itself if it is no group."""
    members: list[BaseException] = []
    left = [error]
    while left:
        one = left.pop()
        if isinstance(one, BaseExceptionGroup):
            left += reversed(one.exceptions)
        else:
            members.append(one)
    return members


def outcome_of(failure: Failure, lease: Lease, options: Options, keep: Keep) -> Outcome:
    """Decide between another attempt and the end. The rule is BullMQ's."""
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


def refused(lease: Lease, reason: str, keep: Keep) -> Failed:
    """Fail a job for good without having run it."""
    reason = _clip(_text(reason), MAX_REASON)
    return Failed(lease.job.id, lease.token, reason, None, keep, counts=False)


def _backoff_ms(options: Options, attempt: int) -> int:
    if isinstance(options.backoff, Custom):
        return 0  # this worker's task has no function for it
    return delay_ms(options.backoff, attempt=attempt, random=random.random())  # noqa: S311


def reason_of(error: BaseException) -> str:
    """One text that names the error, and its members if it is a group. Never raises."""
    reason = _named(error)
    try:
        if isinstance(error, BaseExceptionGroup):
            members = _members(error)
            shown = [_named(member) for member in members[:MAX_MEMBERS]]
            if len(members) > MAX_MEMBERS:
                shown.append(f"{len(members) - MAX_MEMBERS} more")
            reason = f"{reason}: {'; '.join(shown)}"
    except Exception:  # noqa: BLE001, S110  # a group of the user's own making: its name will do
        pass
    return _clip(reason, MAX_REASON)


def _named(error: BaseException) -> str:
    name = type(error).__name__
    try:
        text = _text(str(error))
    except BaseException as exc:  # noqa: BLE001  # a slip in __str__ is common
        text = f"its text cannot be read: {type(exc).__name__} in __str__"
    return f"{name}: {_clip(text, MAX_REASON)}" if text else name


def _trace(error: BaseException) -> str:
    try:
        lines = traceback.format_exception(type(error), error, handler_trace(error.__traceback__))
        text = _text("".join(lines))
    except BaseException as exc:  # noqa: BLE001  # traceback reads attributes of the user's
        return f"the traceback cannot be shown: {type(exc).__name__}"
    return text if len(text) <= MAX_TRACE else "…" + text[-MAX_TRACE:]


def handler_trace(trace: TracebackType | None) -> TracebackType | None:
    """The traceback from the handler's first frame on, without ours above it."""
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OWN_FOLDER):
        if trace.tb_next is None:
            break
        trace = trace.tb_next
    return trace


def _text(text: str) -> str:
    """As valid text: a store cannot hold lone surrogates."""
    return text.encode("utf-8", "replace").decode()


def _clip(text: str, length: int) -> str:
    return text if len(text) <= length else text[:length] + "…"
