"""The options of a job: checked at the call, stored in BullMQ's form.

`JobOptions` is what callers may write, `Options` the checked record in milliseconds. They are
stored as a JSON object with BullMQ's names. Options that BullMQ does not have (time-out, expiry,
the cap of a back-off) are in a member `hasten`, which Node stores and ignores.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, TypedDict

import msgspec

from hasten._caches import cache_short_texts
from hasten._checks import check_flag, check_time, check_whole_number, is_async
from hasten._durations import MAX_MS, MAX_SECONDS, Duration, is_duration, to_ms
from hasten._escapes import is_printable
from hasten.errors import InvalidOption
from hasten.jobs._backoff import Backoff, BackoffFunction, Custom, Exponential, Fixed
from hasten.jobs._encoding import UNDECODABLE, why_undecodable
from hasten.jobs._functions import is_generator

MAX_PRIORITY: Final = 2**21 - 1  # BullMQ's: its scores hold 21 bits of it
MAX_JOB_ID: Final = 512
MAX_NAME: Final = 255
PRINTABLE_TEXT: Final = (
    "valid text without control characters and invisible ones, such as marks of direction"
)
MAX_ATTEMPTS: Final = 1_000_000
MAX_COUNT: Final = 2**53 - 1  # the largest whole number that Node and Lua count exactly
DEFAULT_KEEP_LOGS: Final = 1_000
MAX_KEEP_LOGS: Final = 1_000_000

# Names of other keys of a queue in BullMQ, in the same key space as the ids of jobs.
RESERVED_IDS: Final = frozenset(
    "active wait waiting waiting-children paused id delayed prioritized stalled-check completed "
    "failed stalled repeat limiter meta events pc marker de delay priority".split()
)


@dataclass(frozen=True, slots=True)
class Keep:
    """How long finished jobs are kept: the newest `count`, and none older than `age`.

    age is a `Duration`. None means no limit; `Keep(count=0)` keeps no job. Whenever a job finishes,
    its rule is applied to all jobs in that state of the queue, as in BullMQ.
    """

    count: int | None = None
    age: Duration | None = None

    def __post_init__(self) -> None:
        if self.count is not None:
            check_whole_number("Keep(count)", self.count, 0, MAX_COUNT)
        if self.age is not None:
            to_ms("Keep(age)", self.age)

    @property
    def nothing(self) -> bool:
        """Whether no job is kept."""
        return self.count == 0

    @property
    def age_ms(self) -> int | None:
        """The age in ms; None for no limit."""
        return None if self.age is None else to_ms("Keep(age)", self.age)


KEEP_ALL: Final = Keep()
KEEP_NONE: Final = Keep(count=0)

# A store must not grow without limit, but yesterday's failures should still be visible.
DEFAULT_KEEP_COMPLETED: Final = Keep(count=1_000, age=24 * 3600)
DEFAULT_KEEP_FAILED: Final = Keep(count=10_000, age=14 * 24 * 3600)


class TaskOptions(TypedDict, total=False):
    """The options of a task, which a call may override for one job: see `Queue.task`."""

    delay: Duration
    priority: int
    lifo: bool
    attempts: int
    backoff: Backoff | str | Duration | BackoffFunction | None
    timeout: Duration | None
    expires: Duration | None
    keep_completed: Keep | bool | int | None
    keep_failed: Keep | bool | int | None
    keep_logs: int


class JobOptions(TaskOptions, total=False):
    """The options of one call: those of a task, `at` (a datetime) and `job_id`."""

    at: datetime
    job_id: str


@dataclass(frozen=True, slots=True)
class Options:
    """The validated options of one job, times in milliseconds. None: the worker's default."""

    attempts: int = 1
    backoff: Backoff | None = None
    delay_ms: int = 0
    priority: int = 0
    lifo: bool = False
    timeout_ms: int | None = None
    expires_ms: int | None = None  # after the job is due
    expires_at_ms: int | None = None  # since the epoch; only this is stored
    keep_completed: Keep | None = None
    keep_failed: Keep | None = None
    keep_logs: int | None = None  # lines; None is the default, `DEFAULT_KEEP_LOGS`
    job_id: str | None = None

    def resolved(self, now_ms: int) -> Options:
        """Return the options with the time of expiry, which is computed when the job is added."""
        if self.expires_ms is None:
            return self
        expires_at_ms = now_ms + self.delay_ms + self.expires_ms
        return replace(self, expires_ms=None, expires_at_ms=expires_at_ms)


DEFAULT_OPTIONS: Final = Options()

_BOUNDS: Final = {
    "attempts": (1, MAX_ATTEMPTS),
    "priority": (0, MAX_PRIORITY),
    "keep_logs": (1, MAX_KEEP_LOGS),
}

_PER_TASK: Final = frozenset(TaskOptions.__annotations__)
_PER_JOB: Final = frozenset(JobOptions.__annotations__)


def check_task_options(given: Mapping[str, Any], base: Options = DEFAULT_OPTIONS) -> Options:
    """Check the options of a queue or a task. Raises `InvalidOption`."""
    return _check(given, base, _PER_TASK, now_ms=0)


def check_job_options(given: Mapping[str, Any], base: Options, *, now_ms: int) -> Options:
    """Check the options of one call, and merge them with those of its task.

    Raises `InvalidOption` with the name of the option and its valid values.
    """
    if callable(given.get("backoff")):
        raise InvalidOption(
            "backoff", given["backoff"], "a function only in @queue.task(backoff=…), "
            "because it cannot be stored with a job",
        )  # fmt: skip
    return _check(given, base, _PER_JOB, now_ms=now_ms)


def _check(
    given: Mapping[str, Any], base: Options, known: frozenset[str], *, now_ms: int
) -> Options:
    changes: dict[str, Any] = {}
    for option, value in given.items():
        if option not in known:
            raise InvalidOption(option, value, f"one of the options {', '.join(sorted(known))}")
        match option:
            case "attempts" | "priority" | "keep_logs":
                changes[option] = check_whole_number(option, value, *_BOUNDS[option])
            case "lifo":
                changes[option] = check_flag(option, value)
            case "delay":
                changes["delay_ms"] = to_ms(option, value)
            case "at":
                if "delay" in given:
                    raise InvalidOption(option, value, "either at or delay, not both")
                changes["delay_ms"] = max(0, _epoch_ms(option, value) - now_ms)
                if changes["delay_ms"] > MAX_MS:
                    raise InvalidOption(option, value, "a time in the next hundred years")
            case "timeout" | "expires":
                ms = None if value is None else to_ms(option, value, at_least_ms=1)
                changes[f"{option}_ms"] = ms
            case "backoff":
                changes[option] = check_backoff(value)
            case "keep_completed" | "keep_failed":
                changes[option] = check_keep(option, value)
            case "job_id":
                changes[option] = check_job_id(value)
    return replace(base, **changes)


def check_backoff(value: object) -> Backoff | None:
    """Check the option `backoff`, and convert its short forms."""
    match value:
        case None | Fixed() | Exponential() | Custom():
            return value
        case "exponential":
            return Exponential()
        case "fixed":
            raise InvalidOption("backoff", value, "a delay with it: backoff=5 or Fixed(5)")
        case type():  # a class is callable, but Exponential without () is a mistake
            pass
        case str() if not is_duration(value):
            pass
        case _ if callable(value):
            _check_backoff_function(value)
            return Custom()
        case _ if not isinstance(value, bool):
            to_ms("backoff", value)
            return Fixed(value)  # type: ignore[arg-type]  # to_ms has checked it
    raise InvalidOption(
        "backoff",
        value,
        "a delay, 'exponential', Fixed(…), Exponential(…) or a function",
    )


def _check_backoff_function(function: Callable[..., object]) -> None:
    if is_async(function) or is_generator(function):
        raise InvalidOption("backoff", function, "a plain function: it is called, not awaited")
    try:
        signature = inspect.signature(function)
    except ValueError:  # some built-in functions have no signature
        return
    try:
        signature.bind(1, ValueError())
    except TypeError as exc:
        raise InvalidOption(
            "backoff",
            function,
            f"a function of two arguments, the attempt and the error, but {exc}",
        ) from exc


def check_keep(option: str, value: object) -> Keep | None:
    """Check a keep rule, and convert its short forms."""
    match value:
        case None | Keep():
            return value
        case bool():
            return KEEP_ALL if value else KEEP_NONE
        case int() if 0 <= value <= MAX_COUNT:
            return Keep(count=value)
    raise InvalidOption(
        option,
        value,
        f"Keep(count=…, age=…), a count from 0 to {MAX_COUNT:,}, True (all) or False (none)",
    )


def check_job_id(value: object) -> str:
    """Check the id of a job that a caller has chosen."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_JOB_ID:
        expected = f"a string of 1 to {MAX_JOB_ID} characters"
    elif value.isdecimal():
        expected = "an id that is not a number: the queue assigns numbers"
    elif ":" in value:
        expected = "an id without ':', which separates the parts of a key"
    elif not is_printable(value):
        expected = PRINTABLE_TEXT
    elif value in RESERVED_IDS:
        expected = "an id that is not a key of the queue itself"
    else:
        return value
    raise InvalidOption("job_id", value, expected)


def check_name(what: str, name: object) -> str:
    """Check the name of a queue, a task or a worker."""
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME:
        raise InvalidOption(f"{what} name", name, f"a string of 1 to {MAX_NAME} characters")
    if not is_printable(name):
        raise InvalidOption(f"{what} name", name, PRINTABLE_TEXT)
    if what == "queue" and ":" in name:
        raise InvalidOption(f"{what} name", name, "a name without ':', which separates keys")
    return name


def _epoch_ms(option: str, value: object) -> int:
    since_epoch = check_time(option, value) - datetime(1970, 1, 1, tzinfo=UTC)
    return round(since_epoch.total_seconds() * 1000)


# On the wire ------------------------------------------------------------------------------------


def encode_options(options: Options) -> str:
    """Encode resolved options as BullMQ's JSON: milliseconds, but seconds in keep rules."""
    wire: dict[str, Any] = {"attempts": options.attempts}
    ours: dict[str, Any] = {}
    if options.delay_ms:
        wire["delay"] = options.delay_ms
    if options.priority:
        wire["priority"] = options.priority
    if options.lifo:
        wire["lifo"] = True
    if options.job_id is not None:
        wire["jobId"] = options.job_id
    match options.backoff:
        case Fixed(delay, jitter):
            wire["backoff"] = _wire_backoff("fixed", delay, jitter)
        case Exponential(delay, cap, jitter):
            wire["backoff"] = _wire_backoff("exponential", delay, jitter)
            if cap is not None:
                ours["cap"] = to_ms("backoff cap", cap)
        case Custom(name):
            wire["backoff"] = {"type": name}
    if options.keep_completed is not None:
        wire["removeOnComplete"] = _wire_keep(options.keep_completed)
    if options.keep_failed is not None:
        wire["removeOnFail"] = _wire_keep(options.keep_failed)
    if options.keep_logs is not None:
        wire["kl"] = options.keep_logs
    if options.timeout_ms is not None:
        ours["timeout"] = options.timeout_ms
    if options.expires_at_ms is not None:
        ours["expiresAt"] = options.expires_at_ms
    if ours:
        wire["hasten"] = ours
    return msgspec.json.encode(wire).decode()


def _wire_backoff(kind: str, delay: Duration, jitter: float) -> dict[str, Any]:
    wire: dict[str, Any] = {"type": kind, "delay": to_ms("backoff", delay)}
    if jitter:
        wire["jitter"] = jitter
    return wire


def _wire_keep(keep: Keep) -> bool | dict[str, Any]:
    if keep == KEEP_ALL:
        return False
    if keep.nothing:
        return True
    wire: dict[str, Any] = {}
    if keep.count is not None:
        wire["count"] = keep.count
    if keep.age_ms is not None:
        wire["age"] = keep.age_ms / 1000
    return wire


class _WireOurs(msgspec.Struct):
    timeout: Any = None
    expiresAt: Any = None
    cap: Any = None


# Other programs write these as well: a member may have any type and size.
class _WireOptions(msgspec.Struct):
    attempts: Any = None
    backoff: Any = None
    delay: Any = None
    priority: Any = None
    lifo: Any = None
    jobId: Any = None
    removeOnComplete: Any = None
    removeOnFail: Any = None
    kl: Any = None  # BullMQ's option keepLogs
    hasten: _WireOurs = msgspec.field(default_factory=_WireOurs)


_decoder: Final = msgspec.json.Decoder(_WireOptions)


# The jobs of one task have the same text: most workers decode each text once.
@cache_short_texts(1024)
def decode_options(text: str) -> Options:
    """Decode options that hasten or BullMQ wrote. Unknown members are ignored.

    Numbers are limited to their range. Raises `ValueError` if the text is not a JSON object, or a
    member is invalid.
    """
    try:
        return _read_options(_decode(text))
    except UNDECODABLE as exc:
        raise ValueError(f"its options cannot be read: {why_undecodable(exc)}") from exc


def _decode(text: str) -> _WireOptions:
    try:
        return _decoder.decode(text)
    except msgspec.ValidationError:
        # Perhaps a number that msgspec cannot represent, such as 1e400.
        return msgspec.convert(json.loads(text, parse_int=float), _WireOptions)


def _read_options(wire: _WireOptions) -> Options:
    # BullMQ writes 0 attempts for one run. For the other numbers, 0 or less means none.
    expires_at_ms, timeout_ms = wire.hasten.expiresAt, wire.hasten.timeout
    return Options(
        attempts=_whole("attempts", wire.attempts, 1, MAX_COUNT),
        backoff=_read_backoff(wire.backoff, wire.hasten.cap),
        delay_ms=_ms("delay", wire.delay),
        priority=_whole("priority", wire.priority, 0, MAX_PRIORITY),
        lifo=wire.lifo is True,
        timeout_ms=_ms("hasten.timeout", timeout_ms) or None,
        expires_at_ms=_whole("hasten.expiresAt", expires_at_ms, 0, MAX_COUNT) or None,
        keep_completed=_read_keep("removeOnComplete", wire.removeOnComplete),
        keep_failed=_read_keep("removeOnFail", wire.removeOnFail),
        keep_logs=_whole("keepLogs", wire.kl, 0, MAX_KEEP_LOGS) or None,
        job_id=wire.jobId if isinstance(wire.jobId, str) else None,
    )


def _number(option: str, value: object) -> float | None:
    """Read a number, which may be a text as in Node; None if the member is missing.

    Raises `InvalidOption` for anything else.
    """
    number = value
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            number = None
    elif value is None:
        return None
    if not isinstance(number, int | float) or isinstance(number, bool) or not number <= math.inf:
        raise InvalidOption(option, value, "a number")
    return number


def _whole(option: str, value: object, least: int, most: int) -> int:
    number = _number(option, value)
    return least if number is None else math.ceil(min(max(number, least), most))


def _ms(option: str, value: object) -> int:
    number = _number(option, value)
    return 0 if number is None else round(min(max(number, 0), MAX_MS))


def _read_backoff(wire: object, cap: object) -> Backoff | None:
    if not isinstance(wire, dict):
        delay_ms = _ms("backoff", wire)
        return Fixed(delay_ms / 1000) if delay_ms else None
    kind = wire.get("type", "fixed")
    if not isinstance(kind, str):
        raise InvalidOption("backoff.type", kind, "a string")
    if kind not in {"fixed", "exponential"}:
        return Custom(kind)
    delay = _ms("backoff.delay", wire.get("delay")) / 1000
    jitter = min(max(_number("backoff.jitter", wire.get("jitter")) or 0, 0), 1)
    if kind == "fixed":
        return Fixed(delay, jitter)
    # BullMQ has no cap.
    return Exponential(delay, None if cap is None else _ms("hasten.cap", cap) / 1000, jitter)


def _read_keep(option: str, wire: object) -> Keep | None:
    match wire:
        case None:
            return None
        case bool():
            return KEEP_NONE if wire else KEEP_ALL
        case dict():
            age = _number(f"{option}.age", wire.get("age"))
            return Keep(
                count=_read_count(f"{option}.count", wire.get("count")),
                age=None if age is None or age < 0 else min(age, MAX_SECONDS),
            )
        case _:
            return Keep(count=_read_count(option, wire))


def _read_count(option: str, wire: object) -> int | None:
    number = _number(option, wire)
    # Node's -1 means all.
    return None if number is None or number < 0 else math.ceil(min(number, MAX_COUNT))


def read_keep_logs(text: str) -> int:
    """Return how many log lines a job keeps: the default if its options cannot be read."""
    try:
        keep = decode_options(text).keep_logs
    except ValueError:
        keep = None
    return DEFAULT_KEEP_LOGS if keep is None else keep
