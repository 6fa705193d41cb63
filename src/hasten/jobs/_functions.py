"""Find out about functions: their names, where they are defined, whether they are generators.

A function is any callable: also a `functools.partial`, a bound method, an object with `__call__`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

Function = Callable[..., Any]


def is_generator(function: Function) -> bool:
    """Return whether calling the function returns a generator."""
    return any(
        inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body)
        for body in _function_and_call_method(function)
    )


def _function_and_call_method(function: Function) -> tuple[Function, Function]:
    """Return the two callables of which one contains the code of a function.

    These are the function itself, without `functools.partial` around it, and the `__call__` method
    of its class.
    """
    while isinstance(function, functools.partial):
        function = function.func
    return function, type(function).__call__


def unwrap_function(function: Function) -> Any:
    """Return the function inside partials, objects with `__call__` and decorators' wrappers."""
    function, call = _function_and_call_method(function)
    is_routine = inspect.isroutine(function) or hasattr(function, "__wrapped__")
    inner = inspect.unwrap(function if is_routine else call)
    return inner if inner is function else unwrap_function(inner)


def describe_function(function: Function) -> str:
    """Return the name of a function and where it is defined: `mails.send (/srv/mails.py:3)`."""
    inner = unwrap_function(function)
    name = f"{getattr(inner, '__module__', '?')}.{getattr(inner, '__qualname__', repr(inner))}"
    code = getattr(inner, "__code__", None)
    return name if code is None else f"{name} ({code.co_filename}:{code.co_firstlineno})"
