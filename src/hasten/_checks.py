"""Functions that check the options of callers: each returns the value or raises `InvalidOption`.

Call them in constructors, so that a mistake fails at start-up and not during a request:

    self.limit = check_whole_number("limit", limit, 1, MAX_LIMIT)
    self.on_event = check_function("on_event", on_event, "event")

The first argument is the name of the option as the caller wrote it. Durations and sizes are checked
and converted by `hasten._durations.to_nearest_ms` and `hasten._sizes.to_byte_count`. Where no
function fits, raise the errors directly:

- `InvalidOption(option, value, "a list of paths")` for other wrong values. The last argument
  completes the message "must be …".
- `InvalidOption.conflict` for two options that exclude each other.
- `UsageError` for a call at the wrong place or time.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from typing import Any, TypeGuard, TypeVar

from hasten.errors import InvalidOption

T = TypeVar("T")
F = TypeVar("F")
Choice = TypeVar("Choice", bound=str)


def is_int_not_bool(value: object) -> TypeGuard[int]:
    """Return whether a value is an int, but not a bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_int_or_float_not_bool(value: object) -> TypeGuard[float]:
    """Return whether a value is an int or a float, but not a bool."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_whole_number(option: str, value: object, least: int, most: int | None = None) -> int:
    """Return the value if it is an int from least to most, both included."""
    if is_int_not_bool(value) and least <= value and (most is None or value <= most):
        return value
    bounds = f"of at least {least:,}" if most is None else f"from {least:,} to {most:,}"
    code = "out_of_range" if is_int_not_bool(value) else "invalid"
    raise InvalidOption(option, value, f"a whole number {bounds}", code=code)


def check_number(option: str, value: object, least: float, most: float) -> float:
    """Return the value if it is a number from least to most, both included."""
    if is_int_or_float_not_bool(value) and least <= value <= most:  # never true of NaN
        return value
    expected = f"a number from {least:g} to {most:g}"
    code = "out_of_range" if is_int_or_float_not_bool(value) else "invalid"
    raise InvalidOption(option, value, expected, code=code)


def check_flag(option: str, value: object) -> bool:
    """Return the value if it is True or False."""
    if isinstance(value, bool):
        return value
    raise InvalidOption(option, value, "True or False")


def check_text(option: str, value: object) -> str:
    """Return the value if it is a string that is not empty."""
    if isinstance(value, str) and value:
        return value
    raise InvalidOption(option, value, "a string that is not empty")


def check_texts(option: str, value: object, expected: str) -> list[str]:
    """Return the strings of a collection that contains nothing but strings.

    A string is rejected, although it is a collection of strings: it is usually meant as a single
    entry. expected completes "must be …" in the error message, such as "a list of origins".
    """
    if isinstance(value, Collection) and not isinstance(value, str | bytes):
        texts = [each for each in value if isinstance(each, str)]
        if len(texts) == len(value):
            return texts
    raise InvalidOption(option, value, expected)


def check_choice(option: str, value: object, choices: Iterable[Choice]) -> Choice:
    """Return the member of choices that equals the value."""
    known = list(choices)
    for choice in known:
        if isinstance(value, str) and value == choice:
            return choice
    raise InvalidOption(option, value, f"one of {', '.join(repr(str(each)) for each in known)}")


def check_instance(option: str, value: T, kind: type) -> T:
    """Return the value if it is None or an instance of the class kind."""
    if value is None or isinstance(value, kind):
        return value
    raise InvalidOption(option, value, f"{kind.__name__}(…) or None")


def check_function(option: str, value: F, *arguments: str, may_be_async: bool = False) -> F:
    """Return the value if it is None or a function that accepts these positional arguments.

    arguments are names that stand for the positional arguments in the error message, such as
    "on_event(event)". The parameters of the function may have other names. Without arguments, any
    function is accepted. An async function is rejected unless may_be_async is set, because the
    caller would not await its result.
    """
    if value is None:
        return value
    if (
        callable(value)
        and _accepts_positional_arguments(value, arguments)
        and (may_be_async or not is_async(value))
    ):
        return value
    expected = "a function" if may_be_async else "a function that is not async"
    if arguments:
        expected += f", that accepts the call {option}({', '.join(arguments)})"
    raise InvalidOption(option, value, expected)


def is_async(function: object) -> bool:
    """Return whether a function is async, or a callable object with an async `__call__`."""
    while isinstance(function, functools.partial):
        function = function.func
    kind: Any = type(function)
    return inspect.iscoroutinefunction(function) or (
        callable(function) and inspect.iscoroutinefunction(kind.__call__)
    )


def _accepts_positional_arguments(
    function: Callable[..., object], arguments: Collection[str]
) -> bool:
    if not arguments:
        return True
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        return False
    except ValueError:  # a built-in function without a signature: assume that it does
        return True
    return True


def check_aware_datetime(option: str, value: object) -> datetime:
    """Return the value if it is a datetime with a time zone."""
    if not isinstance(value, datetime):
        raise InvalidOption(option, value, "a datetime")
    if value.tzinfo is None:
        raise InvalidOption(option, value, "a datetime with a time zone, such as datetime.now(UTC)")
    return value
