"""Find out whether two functions with one task name are the same task, defined twice.

This happens when a module is imported again, or when a cell of a notebook is run again.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Mapping
from dataclasses import dataclass
from os.path import realpath
from typing import Any

from hasten.jobs._functions import Function, unwrap_function


@dataclass(frozen=True, slots=True, eq=False)
class CodeExecution:
    """One execution of a file, a notebook cell or a line of a shell.

    Importing or reloading a file again is another execution of it. code is the executed code,
    namespace its global variables.
    """

    code: object
    file: str
    namespace: Mapping[str, Any]
    spec: object  # the module's __spec__, which a reload replaces; it keeps the namespace

    @classmethod
    def defining(cls, code: types.CodeType, namespace: Mapping[str, Any]) -> CodeExecution:
        """Return the execution that has defined this code. namespace has its global variables."""
        return cls(code, code.co_filename, namespace, namespace.get("__spec__"))

    @property
    def is_module(self) -> bool:
        """Whether a module was executed, and not a cell of a notebook or a line of a shell."""
        return _is_same_file(self.namespace.get("__file__"), self.file)

    def is_module_rerun_of(self, other: CodeExecution) -> bool:
        """Return whether this is another execution of the same file as other, as a module."""
        return (
            (self.namespace is not other.namespace or self.spec is not other.spec)
            and _is_same_file(self.file, other.file)
            and self.is_module
        )

    def is_later_cell_than(self, other: CodeExecution) -> bool:
        """Return whether this is a later cell of the same notebook, or line of the same shell.

        It then executed other code with the same global variables, and may redefine functions.
        """
        return (
            not self.is_module and self.namespace is other.namespace and self.code is not other.code
        )


def _is_same_file(first: str | None, other: str) -> bool:
    # `python /srv/current/app.py` keeps a symbolic link in the file name, `import app` resolves it.
    """Return whether two paths lead to the same file."""
    return first == other or (first is not None and realpath(first) == realpath(other))


@dataclass(frozen=True, slots=True, eq=False)
class FunctionOrigin:
    """A task's function, and the executions of code that defined it and made it a task.

    made_in is the execution that called `queue.task`, defined_in the one that defined the function.
    """

    function: Function
    made_in: CodeExecution
    defined_in: CodeExecution | None  # None if the function has no Python code

    @classmethod
    def of(cls, function: Function, made_in: CodeExecution) -> FunctionOrigin:
        """Return the origin of a function that was made a task by the execution made_in."""
        inner = unwrap_function(function)
        code = getattr(inner, "__code__", None)
        return cls(
            function,
            made_in,
            CodeExecution.defining(code, inner.__globals__) if code else None,
        )

    def may_replace(self, other: FunctionOrigin) -> bool:
        """Return whether this is the same function as other, or a new version of it.

        A module may be executed twice (as `__main__`, or by a reloader), and a notebook cell may be
        run again. Two different functions from one execution of a module are two different tasks.
        """
        if _is_equal_function(self.function, other.function, frozenset()):
            return True
        mine, theirs = self.defined_in, other.defined_in
        if _get_qualname(self.function) != _get_qualname(other.function):
            return False
        if mine is None or theirs is None:
            return mine is theirs and self._is_made_again_after(other)
        if mine.is_module_rerun_of(theirs) or mine.is_later_cell_than(theirs):
            return True
        return self._is_made_again_after(other) and _is_same_file(mine.file, theirs.file)

    def _is_made_again_after(self, other: FunctionOrigin) -> bool:
        """Return whether code that made other a task was executed again, and has made this one."""
        return self.made_in.is_module_rerun_of(other.made_in) or self.made_in.is_later_cell_than(
            other.made_in
        )


def _get_qualname(function: Function) -> object:
    """Return the qualified name of the function inside wrappers and partials."""
    return getattr(unwrap_function(function), "__qualname__", None)


IdPairs = frozenset[tuple[int, int]]


def _is_equal_function(first: Any, other: Any, compared_ids: IdPairs) -> bool:
    """Return whether two functions have the same code, defaults and captured values.

    compared_ids has the pairs of ids that are being compared already, because functions may be
    recursive.
    """
    pair = id(first), id(other)
    if first is other or pair in compared_ids:  # a function may refer to itself
        return True
    if type(first) is not type(other):
        return False
    match first:
        case str() | bytes() | int() | float():
            return bool(first == other)
        case types.MethodType():
            return first.__self__ is other.__self__ and first.__func__ is other.__func__
    parts = _comparable_parts(first)
    others = _comparable_parts(other)
    return (
        parts is not None
        and others is not None
        and len(parts) == len(others)
        and all(
            _is_equal_function(a, b, compared_ids | {pair})
            for a, b in zip(parts, others, strict=True)
        )
    )


def _comparable_parts(value: Any) -> tuple[object, ...] | None:
    """Return the parts by which two functions, partials or tuples are compared.

    Returns None for a value of any other type.
    """
    match value:
        case types.FunctionType():
            by_keyword = tuple(sorted((value.__kwdefaults__ or {}).items()))
            captured = tuple(map(_cell_contents, value.__closure__ or ()))
            namespace = id(value.__globals__)
            return value.__code__, namespace, value.__defaults__, by_keyword, captured
        case functools.partial():
            return value.func, value.args, tuple(sorted(value.keywords.items()))
        case tuple():
            return value
    return None


def _cell_contents(cell: types.CellType) -> object:
    """Return the value of a captured variable; the cell itself if it has none."""
    try:
        return cell.cell_contents
    except ValueError:  # the variable is not assigned yet
        return cell
