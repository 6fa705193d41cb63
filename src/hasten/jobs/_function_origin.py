"""Where a task was defined, and whether two definitions of one name are the same task."""

from __future__ import annotations

import functools
import types
from collections.abc import Mapping
from dataclasses import dataclass
from os.path import realpath
from typing import Any

from hasten.jobs._functions import Function, wrapped


@dataclass(frozen=True, slots=True, eq=False)
class Execution:
    """One execution of the code of a file. Importing it again, or reloading it, is another one."""

    code: object
    file: str
    namespace: Mapping[str, Any]
    spec: object  # a reload replaces it, and keeps the namespace

    @classmethod
    def of(cls, code: types.CodeType, namespace: Mapping[str, Any]) -> Execution:
        """Describe the execution that code belongs to."""
        return cls(code, code.co_filename, namespace, namespace.get("__spec__"))

    @property
    def is_of_module(self) -> bool:
        """Whether the namespace is that of a module, not of a notebook or a shell."""
        return _is_same_file(self.namespace.get("__file__"), self.file)

    def repeats(self, other: Execution) -> bool:
        """Return whether the same file was executed again, as a module."""
        return (
            (self.namespace is not other.namespace or self.spec is not other.spec)
            and _is_same_file(self.file, other.file)
            and self.is_of_module
        )

    def supersedes(self, other: Execution) -> bool:
        """Return whether this is other code in the same notebook or shell."""
        return (
            not self.is_of_module
            and self.namespace is other.namespace
            and self.code is not other.code
        )


def _is_same_file(one: str | None, other: str) -> bool:
    # `python /srv/current/app.py` keeps the link in its name, `import app` resolves it.
    return one == other or (one is not None and realpath(one) == realpath(other))


@dataclass(frozen=True, slots=True, eq=False)
class FunctionOrigin:
    """A function that became a task, and where that happened."""

    function: Function
    made_in: Execution
    defined_in: Execution | None  # None if it has no Python code

    @classmethod
    def of(cls, function: Function, made_in: Execution) -> FunctionOrigin:
        """Describe a function that becomes a task in an execution."""
        inner = wrapped(function)
        code = getattr(inner, "__code__", None)
        return cls(
            function,
            made_in,
            Execution.of(code, inner.__globals__) if code else None,
        )

    def may_replace(self, other: FunctionOrigin) -> bool:
        """Return whether this is the same function again, or a new version of it.

        A module may be imported twice (as `__main__`, by a reloader), and a notebook runs a cell
        again. Two different functions from one execution of a module are two tasks.
        """
        if _is_alike(self.function, other.function, frozenset()):
            return True
        mine, theirs = self.defined_in, other.defined_in
        if _qualname(self.function) != _qualname(other.function):
            return False
        if mine is None or theirs is None:
            return mine is theirs and self._is_made_anew(other)
        if mine.repeats(theirs) or mine.supersedes(theirs):
            return True
        return self._is_made_anew(other) and _is_same_file(mine.file, theirs.file)

    def _is_made_anew(self, other: FunctionOrigin) -> bool:
        return self.made_in.repeats(other.made_in) or self.made_in.supersedes(other.made_in)


def _qualname(function: Function) -> object:
    return getattr(wrapped(function), "__qualname__", None)


Pairs = frozenset[tuple[int, int]]


def _is_alike(one: Any, other: Any, compared: Pairs) -> bool:
    """Return whether two functions are equal: the same code with the same values."""
    pair = id(one), id(other)
    if one is other or pair in compared:  # a function may refer to itself
        return True
    if type(one) is not type(other):
        return False
    match one:
        case str() | bytes() | int() | float():
            return bool(one == other)
        case types.MethodType():
            return one.__self__ is other.__self__ and one.__func__ is other.__func__
    parts = _parts(one)
    others = _parts(other)
    return (
        parts is not None
        and others is not None
        and len(parts) == len(others)
        and all(_is_alike(a, b, compared | {pair}) for a, b in zip(parts, others, strict=True))
    )


def _parts(value: Any) -> tuple[object, ...] | None:
    """Return the parts of a function, a partial or a tuple; None for anything else."""
    match value:
        case types.FunctionType():
            by_keyword = tuple(sorted((value.__kwdefaults__ or {}).items()))
            captured = tuple(map(_content, value.__closure__ or ()))
            namespace = id(value.__globals__)
            return value.__code__, namespace, value.__defaults__, by_keyword, captured
        case functools.partial():
            return value.func, value.args, tuple(sorted(value.keywords.items()))
        case tuple():
            return value
    return None


def _content(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return cell
