"""A handler with checkpoints does the same as the original one."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import CodeType
from typing import Any

import pytest

from hasten.testing._checkpoints import Checkpoint, add_checkpoints

GLOBAL = "global"


def run(function: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[Any, list[int]]:
    """Run a function with checkpoints, and return its result and the lines, from its first one."""
    lines: list[int] = []
    first = 0

    def reach(code: CodeType, line: int) -> None:
        nonlocal first
        first = code.co_firstlineno
        lines.append(line - first)

    made = add_checkpoints(function, reach)
    result = made(*args, **kwargs)
    if not asyncio.iscoroutine(result):
        return result, lines
    running: Any = result
    first = running.cr_code.co_firstlineno
    try:
        while True:
            step = result.send(None)
            assert isinstance(step, Checkpoint)
            lines.append(step.line - first)
    except StopIteration as end:
        return end.value, lines


async def give(value: Any) -> Any:
    return value


@asynccontextmanager
async def opened() -> AsyncIterator[str]:
    yield "opened"


async def numbers() -> AsyncIterator[int]:
    for number in range(2):
        yield number


class TestAsync:
    def test_awaits_in_statements_and_expressions(self) -> None:
        async def handler(a: int, b: int = 2, *, c: int = 3) -> list[Any]:
            found = [await give(a), await give(b)]
            if await give(True):
                found += [x + 0 for x in [await give(c)]]
            return found

        assert run(handler, 1) == ([1, 2, 3], [1, 1, 2, 3])

    def test_async_with_and_async_for(self) -> None:
        async def handler() -> list[Any]:
            found: list[Any] = []
            async with opened() as text:
                found.append(text)
            async for number in numbers():
                found += [number]
            return found

        assert run(handler) == (["opened", 0, 1], [2, 2, 4, 4, 4])

    def test_closures_globals_and_functions_inside(self) -> None:
        outer = ["outer"]

        async def handler() -> list[Any]:
            async def inner() -> str:
                return str(await give("inner"))

            later = [await each for each in (inner(), give(GLOBAL))]
            return [*outer, *later]

        assert run(handler) == (["outer", "inner", "global"], [4, 4])

    def test_errors_pass(self) -> None:
        async def fail() -> None:
            raise KeyError("missing")

        async def handler() -> str:
            try:
                await fail()
            except KeyError as error:
                return str(await give(str(error)))
            return "no error"

        assert run(handler) == ("'missing'", [4])

    def test_methods_and_partials(self) -> None:
        class Sender:
            name = "sender"

            async def send(self, to: str, text: str) -> str:
                return str(await give(f"{self.name} {to} {text}"))

        method = Sender().send
        assert run(method, "ada", "hi") == ("sender ada hi", [1])
        assert run(functools.partial(method, text="hi"), "ada") == ("sender ada hi", [1])


class TestPlain:
    def test_each_statement_that_may_have_an_effect(self) -> None:
        def handler(log: list[str]) -> list[str]:
            """Describe what it does."""
            log.append("a")
            for number in range(2):
                if number:
                    log.append("b")
                else:
                    pass
            try:
                raise KeyError
            except KeyError:
                log.append("c")
            finally:
                log.append("d")
            with open_now() as text:
                log.append(text)
            match log:
                case [*_]:
                    log.append("e")
            return log

        expected = ["a", "b", "c", "d", "now", "e"]
        assert run(handler, []) == (expected, [2, 5, 11, 13, 15, 14, 18])

    def test_functions_inside_have_none(self) -> None:
        def handler() -> int:
            def inner() -> int:
                x = 1
                x += 1
                return x

            y = inner()
            y += 1
            return y

        assert run(handler) == (3, [6, 7])


def open_now() -> Any:
    from contextlib import nullcontext

    return nullcontext("now")


class TestUnchanged:
    @pytest.mark.parametrize("function", [print, functools.partial(print), len])
    def test_functions_without_source(self, function: Callable[..., Any]) -> None:
        assert run(function, "") in [(None, []), (0, [])]

    def test_names_that_belong_to_their_class(self) -> None:
        class Secret:
            def __init__(self) -> None:
                self.__value = 7

            async def read(self) -> int:
                return await give(self.__value)  # type: ignore[no-any-return]

        assert run(Secret().read) == (7, [])

    def test_code_that_was_executed_from_a_text(self) -> None:
        names: dict[str, Any] = {}
        exec("async def handler(): return 7", names)
        assert run(names["handler"]) == (7, [])
