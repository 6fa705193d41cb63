"""Checks of the values that callers pass: each returns the value or raises `InvalidOption`.

Call them where an object is made, so that a mistake fails at start-up and not in a request:

    self.limit = check_whole_number("limit", limit, 1, MAX_LIMIT)
    self.on_event = check_function("on_event", on_event, "event")

The first argument is the name of the option as the caller wrote it. Durations and sizes have their
own checks, which also convert: `hasten._durations.to_ms`, `hasten._sizes.to_bytes`. A value that
none of these checks fits raises `InvalidOption(option, value, "what it must be")` itself; an option
that excludes another one raises `InvalidOption.conflict`; a call at the wrong place or time raises
`UsageError`.
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


def is_whole_number(value: object) -> TypeGuard[int]:
    """Return whether a value is an int, and neither True nor False."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Return whether a value is an int or a float, and neither True nor False."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_whole_number(option: str, value: object, least: int, most: int | None = None) -> int:
    """Return the value if it is an int from least to most, both included."""
    if is_whole_number(value) and least <= value and (most is None or value <= most):
        return value
    bounds = f"of at least {least:,}" if most is None else f"from {least:,} to {most:,}"
    code = "out_of_range" if is_whole_number(value) else "invalid"
    raise InvalidOption(option, value, f"a whole number {bounds}", code=code)


def check_number(option: str, value: object, least: float, most: float) -> float:
    """Return the value if it is a number from least to most, both included."""
    if is_number(value) and least <= value <= most:  # never true of NaN
        return value
    expected = f"a number from {least:g} to {most:g}"
    code = "out_of_range" if is_number(value) else "invalid"
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
    """Return the strings of a collection. A single string is rejected: it is a sequence, too.

    expected is for the message: what the collection must be, such as "a list of origins".
    """
    if isinstance(value, Collection) and not isinstance(value, str | bytes):
        texts = [each for each in value if isinstance(each, str)]
        if len(texts) == len(value):
            return texts
    raise InvalidOption(option, value, expected)


def check_choice(option: str, value: object, choices: Iterable[Choice]) -> Choice:
    """Return the one of the choices that equals the value."""
    known = list(choices)
    for choice in known:
        if isinstance(value, str) and value == choice:
            return choice
    raise InvalidOption(option, value, f"one of {', '.join(repr(str(each)) for each in known)}")


def check_instance(option: str, value: T, kind: type) -> T:
    """Return the value if it is an object of this class or None."""
    if value is None or isinstance(value, kind):
        return value
    raise InvalidOption(option, value, f"{kind.__name__}(…) or None")


def check_function(option: str, value: F, *parameters: str, may_be_async: bool = False) -> F:
    """Return the value if it is None or a function with as many arguments as parameters.

    parameters name the arguments in the message. Without them the number is not checked. An async
    function is rejected unless may_be_async is set: its result would never be awaited.
    """
    if value is None:
        return value
    if callable(value) and _takes(value, parameters) and (may_be_async or not is_async(value)):
        return value
    plain = "function" if may_be_async else "function that is not async"
    call = f": {option}({', '.join(parameters)})" if parameters else ""
    raise InvalidOption(option, value, f"a {plain}{call}")


def is_async(function: object) -> bool:
    """Return whether a function is async, or a callable object with an async `__call__`."""
    while isinstance(function, functools.partial):
        function = function.func
    kind: Any = type(function)
    return inspect.iscoroutinefunction(function) or (
        callable(function) and inspect.iscoroutinefunction(kind.__call__)
    )


def _takes(function: Callable[..., object], parameters: Collection[str]) -> bool:
    if not parameters:
        return True
    try:
        inspect.signature(function).bind(*parameters)
    except TypeError:
        return False
    except ValueError:  # some built-in functions have no signature
        return True
    return True


def check_time(option: str, value: object) -> datetime:
    """Return the value if it is a datetime with a time zone."""
    if not isinstance(value, datetime):
        raise InvalidOption(option, value, "a datetime")
    if value.tzinfo is None:
        raise InvalidOption(option, value, "a datetime with a time zone, such as datetime.now(UTC)")
    return value
