"""Tasks that run in processes of their own: those import this module."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
import sys
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Final

from hasten.jobs import Context, Queue, RetryAfter, Unrecoverable

queue: Final = Queue("processes", "sqlite://")

leak: Final = contextvars.ContextVar("leak", default="nothing")


@dataclass
class Point:
    x: int
    y: int


class Refused(Exception):
    pass


@queue.task(run_in="process")
def double(number: int) -> int:
    return 2 * number


def logged(function: Callable[[int], Any]) -> Callable[[int], Any]:
    @functools.wraps(function)
    def wrapper(number: int) -> Any:
        return function(number)

    return wrapper


@queue.task(run_in="process")
@logged
async def wrapped(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


class Doubled:
    def __init__(self, number: int) -> None:
        self._number = number

    def __await__(self) -> Generator[Any, None, int]:
        yield from asyncio.sleep(0).__await__()
        return 2 * self._number


@queue.task(run_in="process")
def awaitable(number: int) -> Doubled:
    return Doubled(number)


@queue.task(run_in="process")
def sleep(seconds: float) -> None:
    time.sleep(seconds)


@queue.task(run_in="process")
async def swap(point: Point) -> Point:
    await asyncio.sleep(0)
    return Point(point.y, point.x)


@queue.task(run_in="process")
def report(ctx: Context) -> int:
    ctx.progress({"done": 0.5})
    ctx.log("half")
    return os.getpid()


@queue.task(run_in="process", attempts=2)
def fail(how: str) -> str:
    match how:
        case "error":
            raise ValueError("bad luck")
        case "unrecoverable":
            raise Unrecoverable("never")
        case "refused":
            raise Refused("no")
        case "exit":
            sys.exit(3)
        case "hard exit":
            os._exit(4)
    raise RetryAfter(3600)


@queue.task(run_in="process", attempts=2, give_up_on=Refused)
def refuse() -> None:
    raise Refused("no")


@queue.task(run_in="process")
def large(size: int) -> str:
    return "x" * size


@queue.task(run_in="process")
def set_and_get(value: str) -> str:
    before = leak.get()
    leak.set(value)
    return before


class Unreadable(Exception):
    def __str__(self) -> str:
        raise AttributeError("no such attribute")


@queue.task(run_in="process", attempts=2)
def throw(kind: str) -> None:
    kinds: dict[str, type[BaseException]] = {
        "unreadable": Unreadable,
        "generator exit": GeneratorExit,
        "interrupt": KeyboardInterrupt,
        "cancelled": asyncio.CancelledError,
    }
    raise kinds[kind]
