"""Deduplication: when a new job is a duplicate of an existing one, and what is done with it.

A job has a deduplication key if its task, or the call that adds it, has one of the options unique,
throttle, debounce and latest. The job that took the key first is its owner. While the key is taken,
other jobs of the task with this key are duplicates and are not added. `decide_on_new_job` has the
rules. The SQLite engine calls it; on Redis, the script `lua/lib/deduplication.lua` does the same.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from inspect import Parameter
from typing import Any, Final, Protocol, TypeAlias

import msgspec

from hasten._checks import is_async
from hasten._durations import to_nearest_ms
from hasten.errors import InvalidOption
from hasten.jobs._encoding import decode_json, encode
from hasten.jobs._functions import is_generator

DeduplicationKey: TypeAlias = str | Callable[..., str]
"""A text, or a function that returns one. The function is called with arguments of the job.

It gets those arguments that its parameters name: ``lambda account: f"account-{account}"``. As an
option of a task, a text that is the name of a parameter stands for the argument of that parameter.
"""

MAX_KEY: Final = 512  # characters

_KEY_TEXT: Final = f"text of 1 to {MAX_KEY} characters, without control characters"
_A_KEY: Final = "a text, or a function of arguments that returns one"


class DeduplicationMode(StrEnum):
    """The four options, of which a job may have one. `Queue.task` describes them."""

    UNIQUE = "unique"
    THROTTLE = "throttle"
    DEBOUNCE = "debounce"
    LATEST = "latest"


@dataclass(frozen=True, slots=True)
class DeduplicationRule:
    """One of the four options, as a task or a call gives it. Times are in ms.

    may_be_parameter: the key is an option of a task, where a text may be the name of a parameter.
    window_ms is the time of throttle and the quiet time of debounce, else 0.
    """

    mode: DeduplicationMode
    key: DeduplicationKey
    may_be_parameter: bool = False
    window_ms: int = 0
    max_wait_ms: int = 0


class Deduplication(msgspec.Struct, frozen=True, gc=False):
    """The deduplication of one new job: a rule, with the key of this job.

    id is the key as it is stored: see `to_deduplication_id`.
    """

    mode: DeduplicationMode
    id: str
    window_ms: int = 0
    max_wait_ms: int = 0


class StoredParameters(Protocol):
    """What a key needs of the parameters of a task."""

    @property
    def stored_names(self) -> tuple[str, ...]:
        """The names of the parameters whose arguments are stored."""

    def add_defaults(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments, and the defaults of the parameters that have none."""


# Checking options ---------------------------------------------------------------------------------


def to_deduplication_rule(
    mode: DeduplicationMode, value: object, *, may_be_parameter: bool
) -> DeduplicationRule | None:
    """Convert the value of one of the four options to a rule. None means no deduplication.

    Raises `InvalidOption`.
    """
    match mode, value:
        case _, None:
            return None
        case DeduplicationMode.THROTTLE, (key, seconds):
            window_ms, max_wait_ms = to_nearest_ms(mode, seconds, at_least_ms=1), 0
        case DeduplicationMode.DEBOUNCE, (key, quiet, max_wait):
            window_ms = to_nearest_ms(mode, quiet, at_least_ms=1)
            max_wait_ms = to_nearest_ms(mode, max_wait)
            if max_wait_ms < window_ms:
                expected = "(key, quiet time, longest wait), the longest wait at least as long"
                raise InvalidOption(mode, value, f"{expected} as the quiet time")
        case DeduplicationMode.THROTTLE, _:
            raise InvalidOption(mode, value, "(key, time in which further jobs are dropped)")
        case DeduplicationMode.DEBOUNCE, _:
            expected = "(key, quiet time, longest wait), such as ('account', 5, '1m')"
            raise InvalidOption(mode, value, expected)
        case _:
            key, window_ms, max_wait_ms = value, 0, 0
    return DeduplicationRule(mode, _check_key(mode, key), may_be_parameter, window_ms, max_wait_ms)


def _check_key(mode: DeduplicationMode, key: object) -> DeduplicationKey:
    """Return the key if it is a valid text, or a function that can be called.

    Raises `InvalidOption`.
    """
    if isinstance(key, str):
        return check_key_text(mode, key)
    if not callable(key) or isinstance(key, type):
        raise InvalidOption(mode, key, _A_KEY)
    if is_async(key) or is_generator(key):
        raise InvalidOption(mode, key, f"{_A_KEY}, not async and not a generator")
    _get_parameters_of_function(mode, key)
    return key


def _get_parameters_of_function(
    mode: DeduplicationMode, function: Callable[..., str]
) -> list[Parameter]:
    """Return the parameters of a key function. Raises `InvalidOption` if they cannot be named."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError as exc:
        expected = f"a function whose parameters can be determined: {exc}"
        raise InvalidOption(mode, function, expected) from exc
    if any(each.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD) for each in parameters):
        raise InvalidOption(mode, function, "a function without *args and **kwargs")
    return parameters


def check_key_text(option: str, key: object) -> str:
    """Return the key if it is a text that can be a deduplication key. Raises `InvalidOption`."""
    if isinstance(key, str) and _is_valid_key_text(key):
        return key
    raise InvalidOption(option, key, _KEY_TEXT)


def _is_valid_key_text(key: str) -> bool:
    """Return whether a text can be a deduplication key."""
    if not 0 < len(key) <= MAX_KEY:
        return False
    return key.isprintable() or not any(_is_unstorable(character) for character in key)


def _is_unstorable(character: str) -> bool:
    """Return whether a character is a control character, or half of a surrogate pair."""
    return character < " " or "\x7f" <= character < "\xa0" or "\ud800" <= character <= "\udfff"


def check_rule_of_task(rule: DeduplicationRule, task: str, parameters: StoredParameters) -> None:
    """Check the key of a task's option against the parameters of the task.

    Raises `InvalidOption` for a function that needs an argument which the task does not have, and
    for a text that is nearly the name of a parameter: it would be the same key for all jobs.
    """
    names = parameters.stored_names
    known = f"the task {task!r} has {', '.join(names) if names else 'none'}"
    if isinstance(rule.key, str):
        near = difflib.get_close_matches(rule.key, names, n=1, cutoff=0.8)
        if rule.may_be_parameter and rule.key not in names and near:
            expected = f"the name of a parameter, or a text less similar to {near[0]!r}: {known}"
            raise InvalidOption(rule.mode, rule.key, expected)
        return
    for parameter in _get_parameters_of_function(rule.mode, rule.key):
        if parameter.name not in names and parameter.default is Parameter.empty:
            raise InvalidOption(
                rule.mode, rule.key, "a function whose parameters have the names of parameters of "
                f"its task: it needs {parameter.name!r}, and {known}",
            )  # fmt: skip


# The key of a job ---------------------------------------------------------------------------------


def make_deduplication(
    rule: DeduplicationRule, task: str, arguments: object, parameters: StoredParameters | None
) -> Deduplication:
    """Return the deduplication of a job with these arguments, which are usually a dict by name.

    parameters are those of the task, None if its function is not known here. Raises `InvalidOption`
    if the arguments give no valid key.
    """
    given = arguments if isinstance(arguments, Mapping) else {}
    if isinstance(rule.key, str):
        key = _resolve_text(rule, given, parameters)
    else:
        key = _resolve_function(rule, rule.key, given, parameters)
    return Deduplication(
        rule.mode, to_deduplication_id(task, key), rule.window_ms, rule.max_wait_ms
    )


def to_deduplication_id(task: str, key: str) -> str:
    """Return the deduplication id that is stored for a key of a task.

    It is "task:key". A ":" in the name of the task is stored as "%3A", and a "%" as "%25":
    otherwise the key "b:c" of a task "a" would be the key "c" of a task "a:b".
    """
    return _id_prefix(task) + key


def to_deduplication_key(task: str, id: str) -> str:
    """Return the key in a stored deduplication id. An id of another program is its own key."""
    return id.removeprefix(_id_prefix(task))


def _id_prefix(task: str) -> str:
    """Return the beginning of the ids of a task."""
    return task.replace("%", "%25").replace(":", "%3A") + ":"


def _resolve_text(
    rule: DeduplicationRule, given: Mapping[str, Any], parameters: StoredParameters | None
) -> str:
    """Return the key for a text: the argument of the parameter with this name, or the text."""
    name = str(rule.key)
    if parameters is None or not rule.may_be_parameter or name not in parameters.stored_names:
        return name
    value = given[name] if name in given else parameters.add_defaults(given).get(name)
    if type(value) is not str:
        value = _scalar_to_text(value)
    if value is None or not _is_valid_key_text(value):
        found = "too long" if value else "empty" if value == "" else "of another type"
        raise InvalidOption(
            rule.mode, name, f"a parameter whose argument is {_KEY_TEXT}, or a number, a flag, a "
            f"UUID or a time: the argument of this job is {found}. Use a function that returns text"
        )  # fmt: skip
    return value


def _scalar_to_text(value: object) -> str | None:
    """Return the text of a value that JSON stores as a text, a number or a flag; else None."""
    encoded = encode(value)
    if encoded[:1] == b'"':
        return str(decode_json(encoded.decode()))
    return None if encoded[:1] in b"[{n" else encoded.decode()


def _resolve_function(
    rule: DeduplicationRule,
    function: Callable[..., str],
    given: Mapping[str, Any],
    parameters: StoredParameters | None,
) -> str:
    """Return the key that the function makes of the arguments that it names."""
    available = given if parameters is None else parameters.add_defaults(given)
    args, kwargs = [], {}
    for parameter in _get_parameters_of_function(rule.mode, function):
        if parameter.name not in available:
            if parameter.default is Parameter.empty:
                expected = f"a function of arguments that the job has: it has no {parameter.name!r}"
                raise InvalidOption(rule.mode, function, expected)
        elif parameter.kind is Parameter.POSITIONAL_ONLY:
            args.append(available[parameter.name])
        else:
            kwargs[parameter.name] = available[parameter.name]
    try:
        key: object = function(*args, **kwargs)
    except Exception as exc:
        expected = f"a function that returns the key: it raised {type(exc).__name__}: {exc}"
        raise InvalidOption(rule.mode, function, expected) from exc
    if not isinstance(key, str):
        expected = f"a function that returns {_KEY_TEXT}: it returned an object of another type, "
        raise InvalidOption(rule.mode, function, f"{expected}{type(key).__name__}")
    if not _is_valid_key_text(key):
        expected = f"a function that returns {_KEY_TEXT}: it returned {len(key):,} characters"
        raise InvalidOption(rule.mode, function, expected)
    return key


# Deciding -----------------------------------------------------------------------------------------


class OwnerStage(Enum):
    """How far the job that owns a key has come."""

    UNSTARTED = "unstarted"  # it is delayed or ready, and has never run
    STARTED = "started"  # it runs, or has run and waits for its next run
    ENDED = "ended"  # it has completed or failed, or no longer exists


class Decision(Enum):
    """What to do with a new job that has a deduplication key."""

    ADD = "add"  # it is added, and owns the key
    DROP = "drop"  # it is not added
    REPLACE = "replace"  # it is not added; the owner gets its data
    KEEP_NEXT = "keep-next"  # it is added when the owner ends


def decide_on_new_job(
    mode: DeduplicationMode, owner: OwnerStage | None, *, has_window: bool
) -> Decision:
    """Decide what to do with a new job.

    owner is None if nobody owns the key. has_window: the key was taken by throttle, and stays taken
    until the end of its time, whatever happens to the owner.
    """
    if owner is None:
        return Decision.ADD
    match mode:
        case DeduplicationMode.UNIQUE | DeduplicationMode.THROTTLE:
            is_free = owner is OwnerStage.ENDED and not has_window
            return Decision.ADD if is_free else Decision.DROP
        case DeduplicationMode.DEBOUNCE:
            return Decision.REPLACE if owner is OwnerStage.UNSTARTED else Decision.ADD
        case DeduplicationMode.LATEST:
            return {
                OwnerStage.UNSTARTED: Decision.REPLACE,
                OwnerStage.STARTED: Decision.KEEP_NEXT,
                OwnerStage.ENDED: Decision.ADD,
            }[owner]


def debounced_due_ms(deduplication: Deduplication, first_ms: int, due_ms: int, now_ms: int) -> int:
    """Return when a debounced job is due after another call.

    first_ms is when the first call added the job, due_ms when it was due before this call.
    """
    latest_ms = first_ms + deduplication.max_wait_ms
    if latest_ms <= now_ms:
        return min(due_ms, now_ms)
    return min(now_ms + deduplication.window_ms, latest_ms)


# Wire format --------------------------------------------------------------------------------------


def encode_deduplication(deduplication: Deduplication) -> dict[str, Any]:
    """Return BullMQ's option `de` (deduplication)."""
    wire: dict[str, Any] = {"id": deduplication.id}
    match deduplication.mode:
        case DeduplicationMode.THROTTLE:
            wire["ttl"] = deduplication.window_ms
        case DeduplicationMode.DEBOUNCE:
            wire["replace"] = True
        case DeduplicationMode.LATEST:
            wire["keepLastIfActive"] = True
    return wire


class _WireOptions(msgspec.Struct):
    """The part of stored options that has the deduplication id."""

    de: Any = None


_decoder: Final = msgspec.json.Decoder(_WireOptions)


def read_deduplication_id(opts: str) -> str | None:
    """Return the deduplication id in the stored options of a job, None if there is none."""
    if '"de"' not in opts:
        return None
    try:
        found = _decoder.decode(opts).de
    except (ValueError, RecursionError):
        return None
    id = found.get("id") if isinstance(found, dict) else None
    return id if isinstance(id, str) else None
