"""The options of a job: validated when it is added, and stored as JSON in BullMQ's format.

`JobOptions` are the keyword arguments of a call, `Options` is the validated record with times in
milliseconds. It is stored as a JSON object with BullMQ's names. Options that BullMQ does not have
(time-out, expiry, the cap of a backoff) are in its member `hasten`, which BullMQ ignores.
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

from hasten._caches import cache_results_for_short_texts
from hasten._checks import check_aware_datetime, check_flag, check_whole_number, is_async
from hasten._durations import MAX_MS, MAX_SECONDS, Duration, is_duration, to_nearest_ms
from hasten._escapes import is_printable
from hasten.errors import InvalidOption
from hasten.jobs._backoff import Backoff, BackoffFunction, Custom, Exponential, Fixed
from hasten.jobs._deduplication import (
    Deduplication,
    DeduplicationKey,
    DeduplicationMode,
    DeduplicationRule,
    encode_deduplication,
    to_deduplication_rule,
)
from hasten.jobs._encoding import UNDECODABLE, describe_decoding_error
from hasten.jobs._functions import is_generator
from hasten.jobs._releases import check_release
from hasten.jobs._schedule_ids import jitter_of_slot, split_job_id
from hasten.jobs._trace_context import split_context

MAX_PRIORITY: Final = 2**21 - 1  # as in BullMQ, whose sort keys have 21 bits for the priority
MAX_JOB_ID: Final = 512
MAX_NAME: Final = 255
MAX_METADATA_BYTES: Final = 4_096  # of one job: it is stored, and sent to every worker
PRINTABLE_TEXT: Final = (
    "valid text without control characters or invisible characters, such as direction marks"
)
MAX_ATTEMPTS: Final = 1_000_000
MAX_COUNT: Final = 2**53 - 1  # the largest whole number that Node and Lua count exactly

# BullMQ's longest preset is two weeks. The server writes a zero for each minute without jobs.
MAX_METRICS_MINUTES: Final = 100_000
DEFAULT_KEEP_LOGS: Final = 1_000
MAX_KEEP_LOGS: Final = 1_000_000

# BullMQ stores a job under the key `prefix:queue:ID`. These names stand in place of an id in the
# other keys of the queue.
RESERVED_IDS: Final = frozenset(
    "active wait waiting waiting-children paused id delayed prioritized stalled-check completed "
    "failed stalled repeat limiter meta events pc marker de delay priority".split()
)


@dataclass(frozen=True, slots=True)
class Keep:
    """A retention rule for finished jobs: keep the newest `count`, and none older than `age`.

    age is a `Duration`. None means no limit; `Keep(count=0)` keeps no job. As in BullMQ, when a job
    finishes, its rule is applied to all jobs of the queue that finished in the same state.
    """

    count: int | None = None
    age: Duration | None = None

    def __post_init__(self) -> None:
        if self.count is not None:
            check_whole_number("Keep(count)", self.count, 0, MAX_COUNT)
        if self.age is not None:
            to_nearest_ms("Keep(age)", self.age)

    @property
    def keeps_nothing(self) -> bool:
        """Whether the rule keeps no job at all."""
        return self.count == 0

    @property
    def age_ms(self) -> int | None:
        """The maximum age in ms; None means no limit."""
        return None if self.age is None else to_nearest_ms("Keep(age)", self.age)


KEEP_ALL: Final = Keep()
KEEP_NONE: Final = Keep(count=0)

# By default a store does not grow without limit, and recent failures can still be examined.
DEFAULT_KEEP_COMPLETED: Final = Keep(count=1_000, age=24 * 3600)
DEFAULT_KEEP_FAILED: Final = Keep(count=10_000, age=14 * 24 * 3600)


class TaskOptions(TypedDict, total=False):
    """The options of a task. Each can be overridden for a single job.

    `Queue.task` describes them.
    """

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
    since: str | None
    unique: DeduplicationKey | None
    throttle: tuple[DeduplicationKey, Duration] | None
    debounce: tuple[DeduplicationKey, Duration, Duration] | None
    latest: DeduplicationKey | None


class JobOptions(TaskOptions, total=False):
    """The options of a single job: all options of `TaskOptions`, and also `at` and `job_id`.

    at is the time at which the job becomes due (instead of delay). job_id is the id of the job: if
    a job with this id is in the queue already, no other one is added.
    """

    at: datetime
    job_id: str


@dataclass(frozen=True, slots=True)
class Options:
    """The validated options of one job, with times in milliseconds.

    If keep_completed or keep_failed is None, the default of the worker applies.
    """

    attempts: int = 1
    backoff: Backoff | None = None
    delay_ms: int = 0
    priority: int = 0
    lifo: bool = False
    timeout_ms: int | None = None
    expires_ms: int | None = None  # after the due time; see `with_expiry_time`
    expires_at_ms: int | None = None  # since the epoch; the form that is stored with a job
    keep_completed: Keep | None = None
    keep_failed: Keep | None = None
    keep_logs: int | None = None  # log lines; None means `DEFAULT_KEEP_LOGS`
    job_id: str | None = None
    since: str | None = None  # the release that a worker must have at least
    metadata: Mapping[str, str] | None = None  # of middlewares
    deduplication: DeduplicationRule | None = None

    def with_expiry_time(self, now_ms: int, *, longest_wait_ms: int = 0) -> Options:
        """Return the options of a job added at now_ms: expires_ms is converted to expires_at_ms.

        longest_wait_ms is how long the job may be delayed in all, if that is longer than its delay.
        """
        if self.expires_ms is None:
            return self
        due_ms = now_ms + max(self.delay_ms, longest_wait_ms)
        return replace(self, expires_ms=None, expires_at_ms=due_ms + self.expires_ms)


DEFAULT_OPTIONS: Final = Options()

_BOUNDS: Final = {
    "attempts": (1, MAX_ATTEMPTS),
    "priority": (0, MAX_PRIORITY),
    "keep_logs": (1, MAX_KEEP_LOGS),
}

_DEDUPLICATION_MODES: Final = frozenset(DeduplicationMode)

_TASK_OPTION_NAMES: Final = frozenset(TaskOptions.__annotations__)
_JOB_OPTION_NAMES: Final = frozenset(JobOptions.__annotations__)


def merge_task_options(given: Mapping[str, Any], base: Options = DEFAULT_OPTIONS) -> Options:
    """Validate the options of a queue or a task, and return base updated with them.

    Raises `InvalidOption`.
    """
    return _merge_options(given, base, _TASK_OPTION_NAMES, now_ms=0)


def merge_job_options(given: Mapping[str, Any], base: Options, *, now_ms: int) -> Options:
    """Validate the options of one call, and return the options of its task updated with them.

    base are the options of the task. Raises `InvalidOption` with the name of the option and its
    valid values.
    """
    if callable(given.get("backoff")):
        raise InvalidOption(
            "backoff", given["backoff"], "a delay, 'exponential', Fixed(…) or Exponential(…): a "
            "function cannot be stored with a job, so set it in @queue.task(backoff=…)",
        )  # fmt: skip
    return _merge_options(given, base, _JOB_OPTION_NAMES, now_ms=now_ms)


def _merge_options(
    given: Mapping[str, Any], base: Options, known: frozenset[str], *, now_ms: int
) -> Options:
    """Validate the given options, and return base updated with them.

    known are the names of the options that are allowed here.
    """
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
                changes["delay_ms"] = to_nearest_ms(option, value)
            case "at":
                if "delay" in given:
                    raise InvalidOption(
                        option, value, "given without delay=: use either at or delay"
                    )
                changes["delay_ms"] = _to_delay_ms(option, value, now_ms)
            case "timeout" | "expires":
                ms = None if value is None else to_nearest_ms(option, value, at_least_ms=1)
                changes[f"{option}_ms"] = ms
            case "backoff":
                changes[option] = check_backoff(value)
            case "keep_completed" | "keep_failed":
                changes[option] = check_keep(option, value)
            case "job_id":
                changes[option] = check_job_id(value)
            case "since":
                changes[option] = check_release(option, value)
            case "unique" | "throttle" | "debounce" | "latest":
                rule = to_deduplication_rule(
                    DeduplicationMode(option), value, may_be_parameter=known is _TASK_OPTION_NAMES
                )
                changes["deduplication"] = changes.get("deduplication") or rule
    merged = replace(base, **changes)
    if merged.deduplication is not None:
        _reject_conflicts(merged, merged.deduplication, given)
    return merged


def _reject_conflicts(options: Options, rule: DeduplicationRule, given: Mapping[str, Any]) -> None:
    """Raise `InvalidOption` for options that cannot be combined with deduplication.

    options are the merged options, rule is their deduplication, and given are those of this call.
    """
    modes = [each for each in given if each in _DEDUPLICATION_MODES and given[each] is not None]
    if len(modes) > 1:
        raise InvalidOption.conflict(modes[1], given[modes[1]], modes[0])
    if modes:
        other: str = rule.mode
    else:
        other = f"{rule.mode} of its task: add {rule.mode}=None to add a job without it"
    if options.job_id is not None:
        raise InvalidOption.conflict("job_id", options.job_id, other)
    if rule.mode is DeduplicationMode.DEBOUNCE:
        for option in given.keys() & {"delay", "at"}:
            raise InvalidOption.conflict(option, given[option], f"{other} (it sets the delay)")
    if rule.mode is DeduplicationMode.LATEST and options.expires_ms is not None:
        raise InvalidOption.conflict(
            "expires",
            options.expires_ms / 1000,
            f"{other} (a job that is kept until another one ends would expire meanwhile)",
        )


def check_backoff(value: object) -> Backoff | None:
    """Validate the option `backoff`, and convert it to a `Backoff`.

    A delay becomes `Fixed`, "exponential" becomes `Exponential()`, a function becomes `Custom()`.
    """
    match value:
        case None | Fixed() | Exponential() | Custom():
            return value
        case "exponential":
            return Exponential()
        case "fixed":
            raise InvalidOption("backoff", value, "given with a delay: backoff=5 or Fixed(5)")
        case type():  # a class is callable, but Exponential without () is a mistake
            pass
        case str() if not is_duration(value):
            pass
        case _ if callable(value):
            _check_backoff_function(value)
            return Custom()
        case _ if not isinstance(value, bool):
            to_nearest_ms("backoff", value)
            return Fixed(value)  # type: ignore[arg-type]  # to_nearest_ms has checked it
    raise InvalidOption(
        "backoff",
        value,
        "a delay, 'exponential', Fixed(…), Exponential(…) or a function",
    )


def _check_backoff_function(function: Callable[..., object]) -> None:
    """Raise `InvalidOption` unless the function can be called as `function(attempt, error)`."""
    if is_async(function) or is_generator(function):
        raise InvalidOption("backoff", function, "a plain function, not async and not a generator")
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
            f"a function of two arguments, the number of the attempt and its error: {exc}",
        ) from exc


def check_keep(option: str, value: object) -> Keep | None:
    """Validate a retention rule, and convert a count, True or False to a `Keep`."""
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


def check_metadata(metadata: object) -> Mapping[str, str]:
    """Check what middlewares store with a job. Raises `InvalidOption`."""
    expected = "a dict of strings by name"
    if not isinstance(metadata, Mapping):
        raise InvalidOption("metadata", metadata, expected)
    size = 0
    for name, value in metadata.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise InvalidOption("metadata", {name: value}, expected)
        try:
            size += len(name.encode()) + len(value.encode())
        except UnicodeEncodeError as exc:
            raise InvalidOption("metadata", {name: value}, f"valid Unicode: {exc}") from exc
    if size > MAX_METADATA_BYTES:
        expected = f"at most {MAX_METADATA_BYTES:,} bytes together; these have {size:,}"
        raise InvalidOption("metadata", sorted(metadata), expected)
    return metadata


def check_job_id(value: object) -> str:
    """Validate a job id that was chosen by the caller, and return it."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_JOB_ID:
        expected = f"a string of 1 to {MAX_JOB_ID} characters"
    elif value.isdecimal():
        expected = "an id that is not a number, because the queue assigns numbers itself"
    elif ":" in value:
        expected = "an id without ':', because ':' separates the parts of a Redis key"
    elif not is_printable(value):
        expected = PRINTABLE_TEXT
    elif value in RESERVED_IDS:
        expected = "an id that is not one of the names the queue uses for its own keys in the store"
    else:
        return value
    raise InvalidOption("job_id", value, expected)


def check_name(kind: str, name: object) -> str:
    """Validate the name of a queue, a task or a worker, and return it.

    kind is "queue", "task" or "worker".
    """
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME:
        raise InvalidOption(f"{kind} name", name, f"a string of 1 to {MAX_NAME} characters")
    if not is_printable(name):
        raise InvalidOption(f"{kind} name", name, PRINTABLE_TEXT)
    if kind == "queue" and ":" in name:
        raise InvalidOption(
            f"{kind} name",
            name,
            "a name without ':', because ':' separates the parts of a Redis key",
        )
    return name


def _to_delay_ms(option: str, value: object, now_ms: int) -> int:
    """Return the time from now_ms to a datetime, 0 if it has passed. Raises `InvalidOption`."""
    delay_ms = max(0, _datetime_to_epoch_ms(option, value) - now_ms)
    if delay_ms > MAX_MS:
        raise InvalidOption(option, value, "a time in the next hundred years")
    return delay_ms


def _datetime_to_epoch_ms(option: str, value: object) -> int:
    """Convert a datetime with a time zone to ms since the epoch. Raises `InvalidOption`."""
    since_epoch = check_aware_datetime(option, value) - datetime(1970, 1, 1, tzinfo=UTC)
    return round(since_epoch.total_seconds() * 1000)


# Wire format --------------------------------------------------------------------------------------


def encode_options(options: Options, deduplication: Deduplication | None = None) -> str:
    """Return the JSON that is stored for options with an absolute expiry, in BullMQ's format.

    Times are in ms, except the age of retention rules: it is in seconds.
    """
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
            wire["backoff"] = _encode_backoff("fixed", delay, jitter)
        case Exponential(delay, cap, jitter):
            wire["backoff"] = _encode_backoff("exponential", delay, jitter)
            if cap is not None:
                ours["cap"] = to_nearest_ms("backoff cap", cap)
        case Custom(name):
            wire["backoff"] = {"type": name}
    if options.keep_completed is not None:
        wire["removeOnComplete"] = _encode_keep(options.keep_completed)
    if options.keep_failed is not None:
        wire["removeOnFail"] = _encode_keep(options.keep_failed)
    if options.keep_logs is not None:
        wire["kl"] = options.keep_logs
    if deduplication is not None:
        wire["de"] = encode_deduplication(deduplication)
    ours |= _encode_hasten_options(options)
    if ours:
        wire["hasten"] = ours
    return msgspec.json.encode(wire).decode()


def _encode_hasten_options(options: Options) -> dict[str, Any]:
    """Return the options that BullMQ does not have, for the member `hasten`."""
    ours: dict[str, Any] = {}
    if options.timeout_ms is not None:
        ours["timeout"] = options.timeout_ms
    if options.expires_at_ms is not None:
        ours["expiresAt"] = options.expires_at_ms
    if options.expires_ms is not None:  # of a schedule: it applies to each of its jobs
        ours["expires"] = options.expires_ms
    if options.since is not None:
        ours["since"] = options.since
    if options.metadata:
        ours["metadata"] = options.metadata
    return ours


def _encode_backoff(kind: str, delay: Duration, jitter: float) -> dict[str, Any]:
    wire: dict[str, Any] = {"type": kind, "delay": to_nearest_ms("backoff", delay)}
    if jitter:
        wire["jitter"] = jitter
    return wire


def _encode_keep(keep: Keep) -> bool | dict[str, Any]:
    """Return a retention rule as BullMQ's option removeOnComplete or removeOnFail.

    True removes all jobs, False keeps all jobs, and a dict has the limits.
    """
    if keep == KEEP_ALL:
        return False
    if keep.keeps_nothing:
        return True
    wire: dict[str, Any] = {}
    if keep.count is not None:
        wire["count"] = keep.count
    if keep.age_ms is not None:
        wire["age"] = keep.age_ms / 1000
    return wire


class _WireHastenOptions(msgspec.Struct):
    """The options that BullMQ does not have, as stored."""

    timeout: Any = None
    expiresAt: Any = None
    expires: Any = None
    schedule: Any = None
    cap: Any = None
    since: Any = None
    metadata: Any = None


# Programs in other languages write options, too, so a member may have any type and size.
class _WireOptions(msgspec.Struct):
    """The options of a job as stored, with BullMQ's names."""

    attempts: Any = None
    backoff: Any = None
    delay: Any = None
    timestamp: Any = None
    priority: Any = None
    lifo: Any = None
    jobId: Any = None
    removeOnComplete: Any = None
    removeOnFail: Any = None
    kl: Any = None  # BullMQ's option keepLogs
    hasten: _WireHastenOptions = msgspec.field(default_factory=_WireHastenOptions)


_decoder: Final = msgspec.json.Decoder(_WireOptions)


# The jobs of one task usually have identical options, so most calls are answered from the cache.
@cache_results_for_short_texts(1024)
def decode_options(text: str) -> Options:
    """Decode the JSON of options that hasten or BullMQ has written. Ignores unknown members.

    Numbers outside their range are replaced by the nearest limit. Raises `ValueError` if the text
    is not a JSON object, or a member has a wrong type.
    """
    options, trace_context = split_context(text)
    if trace_context is not None:  # of a single job: without it, the options are probably cached
        return decode_options(options)
    try:
        return _to_options(_decode_wire_options(text))
    except UNDECODABLE as exc:
        raise ValueError(
            f"the options of the job cannot be read: {describe_decoding_error(exc)}"
        ) from exc


def _decode_wire_options(text: str) -> _WireOptions:
    try:
        return _decoder.decode(text)
    except msgspec.ValidationError:
        # The text may contain a number that msgspec rejects and json accepts, such as 1e400.
        return msgspec.convert(json.loads(text, parse_int=float), _WireOptions)


def _to_options(wire: _WireOptions) -> Options:
    # BullMQ writes 0 attempts for a single one. In the other fields, 0 or less means "not set".
    expires_at_ms, timeout_ms = wire.hasten.expiresAt, wire.hasten.timeout
    return Options(
        attempts=_read_clamped_whole_number("attempts", wire.attempts, 1, MAX_COUNT),
        backoff=_read_backoff(wire.backoff, wire.hasten.cap),
        delay_ms=_read_ms("delay", wire.delay),
        priority=_read_clamped_whole_number("priority", wire.priority, 0, MAX_PRIORITY),
        lifo=wire.lifo is True,
        timeout_ms=_read_ms("hasten.timeout", timeout_ms) or None,
        expires_at_ms=_read_clamped_whole_number("hasten.expiresAt", expires_at_ms, 0, MAX_COUNT)
        or _read_expiry_of_scheduled(wire),
        keep_completed=_read_keep("removeOnComplete", wire.removeOnComplete),
        keep_failed=_read_keep("removeOnFail", wire.removeOnFail),
        keep_logs=_read_clamped_whole_number("keepLogs", wire.kl, 0, MAX_KEEP_LOGS) or None,
        job_id=wire.jobId if isinstance(wire.jobId, str) else None,
        since=wire.hasten.since if isinstance(wire.hasten.since, str) else None,
        metadata=_read_metadata(wire.hasten.metadata),
    )


def _read_expiry_of_scheduled(wire: _WireOptions) -> int | None:
    """Return when a job of a schedule expires. Its options have the time from its slot on.

    Without a slot, the time counts from when the job was due when it was added.
    """
    expires_ms = _read_ms("hasten.expires", wire.hasten.expires)
    if not expires_ms:
        return None
    of = split_job_id(wire.jobId) if isinstance(wire.jobId, str) else None
    if of is not None:
        return of[1] + jitter_of_slot(_read_jitter(wire.hasten.schedule), *of) + expires_ms
    added_ms = _read_clamped_whole_number("timestamp", wire.timestamp, 0, MAX_COUNT)
    return added_ms + _read_ms("delay", wire.delay) + expires_ms if added_ms else None


def _read_jitter(schedule: object) -> int:
    """Return the jitter in the policy of a schedule, in ms; see `_schedule_wire`."""
    jitter_ms = schedule.get("jitter") if isinstance(schedule, dict) else None
    return jitter_ms if isinstance(jitter_ms, int) else 0


def _read_number(option: str, value: object) -> float | None:
    """Return a number from the JSON of options; None if the member is missing.

    It may be a string such as "5", as in Node. Raises `InvalidOption` for anything else.
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


def _read_clamped_whole_number(option: str, value: object, least: int, most: int) -> int:
    """Return a number, rounded up and limited to least…most; least if the member is missing."""
    number = _read_number(option, value)
    return least if number is None else math.ceil(min(max(number, least), most))


def _read_ms(option: str, value: object) -> int:
    """Return a time in ms, limited to 0…MAX_MS; 0 if the member is missing."""
    number = _read_number(option, value)
    return 0 if number is None else round(min(max(number, 0), MAX_MS))


def _read_backoff(wire: object, cap: object) -> Backoff | None:
    """Convert BullMQ's option backoff: a number in ms, or an object with a type and a delay.

    cap is the maximum delay in ms, None for no maximum.
    """
    if not isinstance(wire, dict):
        delay_ms = _read_ms("backoff", wire)
        return Fixed(delay_ms / 1000) if delay_ms else None
    kind = wire.get("type", "fixed")
    if not isinstance(kind, str):
        raise InvalidOption("backoff.type", kind, "a string")
    if kind not in {"fixed", "exponential"}:
        return Custom(kind)
    delay = _read_ms("backoff.delay", wire.get("delay")) / 1000
    jitter = min(max(_read_number("backoff.jitter", wire.get("jitter")) or 0, 0), 1)
    if kind == "fixed":
        return Fixed(delay, jitter)
    # BullMQ has no cap, so it is stored in the member `hasten`.
    return Exponential(delay, None if cap is None else _read_ms("hasten.cap", cap) / 1000, jitter)


def _read_keep(option: str, wire: object) -> Keep | None:
    """Convert BullMQ's removeOnComplete or removeOnFail: a flag, a count or an object.

    Returns None if the option is missing: the default of the worker then applies.
    """
    match wire:
        case None:
            return None
        case bool():
            return KEEP_NONE if wire else KEEP_ALL
        case dict():
            age = _read_number(f"{option}.age", wire.get("age"))
            return Keep(
                count=_read_kept_count(f"{option}.count", wire.get("count")),
                age=None if age is None or age < 0 else min(age, MAX_SECONDS),
            )
        case _:
            return Keep(count=_read_kept_count(option, wire))


def _read_metadata(wire: object) -> Mapping[str, str] | None:
    if not isinstance(wire, dict) or not wire:
        return None
    return {str(name): value for name, value in wire.items() if isinstance(value, str)}


def _read_kept_count(option: str, wire: object) -> int | None:
    """Return how many finished jobs to keep, from an option of BullMQ; None means no limit."""
    number = _read_number(option, wire)
    # BullMQ's -1 means that all jobs are kept.
    return None if number is None or number < 0 else math.ceil(min(number, MAX_COUNT))


def decode_keep_logs(text: str) -> int:
    """Return how many log lines to keep for a job with these options.

    Returns the default if the options do not set it or cannot be decoded.
    """
    try:
        keep = decode_options(text).keep_logs
    except ValueError:
        keep = None
    return DEFAULT_KEEP_LOGS if keep is None else keep
