"""Stop a handler after each `await` in its code, or a plain function after each statement.

An `await` of a coroutine that returns at once, such as one of a test double, is invisible to the
event loop. So the code of the function is compiled again with a checkpoint behind each `await`,
`async for` and `async with`. The code of a function without `async` gets one behind each statement.
The new function has the same globals, closure and defaults. A function whose source cannot be read,
or would mean something else when it is compiled alone, stays as it is.
"""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from collections.abc import Awaitable, Callable, Generator
from types import CellType, CodeType, FunctionType, MethodType
from typing import Any, Final, TypeVar

T = TypeVar("T")

_CHECKPOINT: Final = "__hasten_checkpoint__"
_HANDLER: Final = "__hasten_handler__"


class Checkpoint:
    """What a coroutine yields at a checkpoint. The one who drives it must not pass it on."""

    def __init__(self, line: int) -> None:
        self.line = line

    def __await__(self) -> Generator[Checkpoint, None, None]:
        yield self


async def _await_and_pause(awaitable: Awaitable[T] | None, line: int) -> T | None:
    result = None if awaitable is None else await awaitable
    await Checkpoint(line)  # yields itself, to `Killable`
    return result


def add_checkpoints(
    function: Callable[..., Any], reach: Callable[[CodeType, int], None]
) -> Callable[..., Any]:
    """Return a function with checkpoints, or the same function if that is impossible.

    An async function yields a `Checkpoint` at each. A function without `async` calls reach with its
    code and the number of the line, instead.
    """
    match function:
        case MethodType():
            return MethodType(add_checkpoints(function.__func__, reach), function.__self__)
        case functools.partial():
            inner = add_checkpoints(function.func, reach)
            return functools.partial(inner, *function.args, **function.keywords)
        case FunctionType():
            original = function.__code__
            is_async = inspect.iscoroutinefunction(function)
            try:
                code = _compile_with_checkpoints(original, is_async=is_async)
            except (OSError, SyntaxError, ValueError):  # no source, or not the source of this code
                return function
            pause = _await_and_pause if is_async else functools.partial(reach, original)
            return _replace_code(function, code, pause)
    return function


def _compile_with_checkpoints(code: CodeType, *, is_async: bool) -> CodeType:
    """Return the code of a function with checkpoints. Raises `ValueError` if that is impossible."""
    lines, first_line = inspect.getsourcelines(code)
    tree = ast.parse(textwrap.dedent("".join(lines)))
    ast.increment_lineno(tree, first_line - 1)
    match tree.body:
        case [ast.AsyncFunctionDef(name=code.co_name) as definition] if is_async:
            _insert_after_awaits(definition)
        case [ast.FunctionDef(name=code.co_name) as definition] if not is_async:
            definition.body = _insert_after_statements(definition.body)
        case _:
            raise ValueError("the source is not that of the function")
    if any(_is_mangled(node) for node in ast.walk(definition)):
        raise ValueError("names with two underscores mean others inside their class")
    definition.decorator_list = []
    definition.name = _HANDLER  # its own name would be a variable of the factory
    # The variables of the enclosing functions become parameters of one, so that they stay free.
    factory = ast.parse(f"def factory({', '.join([*code.co_freevars, _CHECKPOINT])}): pass")
    made = factory.body[0]
    assert isinstance(made, ast.FunctionDef)
    made.body = [definition]
    ast.fix_missing_locations(factory)
    flags = code.co_flags & _FUTURE_FLAGS
    module = compile(factory, code.co_filename, "exec", flags=flags, dont_inherit=True)
    found = _find_code(_find_code(module, "factory"), _HANDLER)
    return found.replace(co_name=code.co_name, co_qualname=code.co_qualname)


_FUTURE_FLAGS: Final = __import__("__future__").annotations.compiler_flag


def _find_code(inside: CodeType, name: str) -> CodeType:
    for constant in inside.co_consts:
        if isinstance(constant, CodeType) and constant.co_name == name:
            return constant
    raise ValueError(f"no code of {name}")


def _replace_code(
    function: FunctionType, code: CodeType, pause: Callable[..., Any]
) -> FunctionType:
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    cells[_CHECKPOINT] = CellType(pause)
    closure = tuple(cells[name] for name in code.co_freevars)
    made = FunctionType(
        code, function.__globals__, function.__name__, function.__defaults__, closure
    )
    made.__kwdefaults__ = function.__kwdefaults__
    return made


def _is_mangled(node: ast.AST) -> bool:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
            return name == "__class__" or (name.startswith("__") and not name.endswith("__"))
    return False


_INNER_SCOPES: Final = (
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.Lambda,
    ast.GeneratorExp,
)


def _insert_after_awaits(definition: ast.AsyncFunctionDef) -> None:
    statements: list[ast.stmt] = []
    for statement in definition.body:
        found: Any = _AwaitInserter().visit(statement)
        statements += found if isinstance(found, list) else [found]
    definition.body = statements


class _AwaitInserter(ast.NodeTransformer):
    """Inserts checkpoints into the statements of a function, but not of functions inside it."""

    def visit_Await(self, node: ast.Await) -> ast.AST:  # the name decides
        self.generic_visit(node)
        return _checkpoint(node.value, node)

    def visit_AsyncWith(self, node: ast.AsyncWith) -> list[ast.stmt]:
        return self._around(node)

    def visit_AsyncFor(self, node: ast.AsyncFor) -> list[ast.stmt]:
        return self._around(node)

    def _around(self, node: ast.AsyncWith | ast.AsyncFor) -> list[ast.stmt]:
        self.generic_visit(node)
        node.body.insert(0, _checkpoint_statement(node))
        return [node, _checkpoint_statement(node)]

    def visit(self, node: ast.AST) -> Any:
        """Visit a node, unless its code runs elsewhere or later."""
        return node if isinstance(node, _INNER_SCOPES) else super().visit(node)


def _checkpoint(value: ast.expr, at: ast.expr | ast.stmt) -> ast.Await:
    call = ast.Call(ast.Name(_CHECKPOINT, ast.Load()), [value, ast.Constant(at.lineno)], [])
    return ast.copy_location(ast.Await(ast.copy_location(call, at)), at)


def _checkpoint_statement(at: ast.stmt) -> ast.stmt:
    nothing = ast.copy_location(ast.Constant(None), at)
    return ast.copy_location(ast.Expr(_checkpoint(nothing, at)), at)


_WITHOUT_EFFECT: Final = (
    *(ast.Return, ast.Raise, ast.Break, ast.Continue, ast.Pass, ast.Global, ast.Nonlocal),
    *(ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom),
    *(ast.If, ast.For, ast.While, ast.Try, ast.TryStar, ast.Match),
)


def _insert_after_statements(body: list[ast.stmt]) -> list[ast.stmt]:
    """Return statements with a checkpoint behind each that may have an effect."""
    statements: list[ast.stmt] = []
    for statement in body:
        statements.append(statement)
        if isinstance(statement, _INNER_SCOPES):
            continue
        for inner in ast.iter_child_nodes(statement):  # `except` and `case` have bodies, too
            if isinstance(inner, ast.ExceptHandler | ast.match_case):
                inner.body = _insert_after_statements(inner.body)
        for name in ("body", "orelse", "finalbody"):
            if block := getattr(statement, name, None):
                setattr(statement, name, _insert_after_statements(block))
        is_text = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        if not is_text and not isinstance(statement, _WITHOUT_EFFECT):
            statements.append(_call_statement(statement))
    return statements


def _call_statement(at: ast.stmt) -> ast.stmt:
    call = ast.Call(ast.Name(_CHECKPOINT, ast.Load()), [ast.Constant(at.lineno)], [])
    return ast.copy_location(ast.Expr(ast.copy_location(call, at)), at)
