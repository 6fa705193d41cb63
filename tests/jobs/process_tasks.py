"""Tasks for child processes, which import this module."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hasten.jobs import Context, Queue, RetryAfter, Slot, Unrecoverable

queue: Final = Queue("processes", "memory://")

leak: Final = contextvars.ContextVar("leak", default="nothing")


@dataclass
class Point:
    x: int
    y: int


class Refused(Exception):
    pass


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError


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
def report(ctx: Context, size: int = 0) -> int:
    ctx.progress({"done": 0.5} if not size else "x" * size)
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
        case "success":
            os._exit(0)
        case "no text":
            raise Unspeakable
        case "recursion":
            return fail.definition.function(how)  # type: ignore[no-any-return]
        case "closed files":
            os.closerange(3, 256)
            return "closed"
        case "other files":
            os.closerange(3, 256)
            for _ in range(64):
                os.open(os.devnull, os.O_WRONLY)
            return "opened"
        case "another program":
            os.execvp("sleep", ["sleep", "600"])
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


@queue.task(run_in="process")
def pid() -> int:
    return os.getpid()


@queue.task(run_in="process")
def length(text: str) -> int:
    return len(text)


@queue.task(run_in="process")
def speak() -> None:
    print("to the terminal", flush=True)


# What threads say


@queue.task(run_in="process")
def log_from_threads(ctx: Context, threads: int, lines: int) -> None:
    def log(number: int) -> None:
        for _ in range(lines):
            ctx.log(str(number) * 40_000)
            ctx.progress(number)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(log, range(threads)))


@queue.task(run_in="process")
def log_from_a_signal_handler(ctx: Context) -> None:
    """Log from a signal handler that interrupts a log call of the same thread."""
    count = 0

    def on_alarm(*_: object) -> None:
        nonlocal count
        count += 1
        ctx.log("from the handler")
        if count == 100:  # here: a busy machine may send fewer lines than a timer adds
            signal.setitimer(signal.ITIMER_REAL, 0)

    signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)
    while count < 100:
        ctx.log("x" * 10_000)


@queue.task(run_in="process")
def leave_a_thread(ctx: Context, folder: str) -> None:
    def act() -> None:
        wait_for(Path(folder, "go on"))
        ctx.log("of the first")
        ctx.progress("of the first")
        Path(folder, "done").touch()

    threading.Thread(target=act).start()


@queue.task(run_in="process")
def let_it_go_on(ctx: Context, folder: str) -> None:
    ctx.log("of the second")
    Path(folder, "go on").touch()
    wait_for(Path(folder, "done"))


def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.002)


# What signals do, and to whom


@queue.task(run_in="process")
def survive_signals() -> str:
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)
    return "alive"


@queue.task(run_in="process")
def reset_signals() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@queue.task(run_in="process")
def signal_program(number: int) -> int:
    """Start a program, and return its exit status after a signal."""
    with subprocess.Popen(["sleep", "600"]) as program:
        program.send_signal(number)
        return program.wait()


@queue.task(run_in="process")
def signal_fork(number: int) -> int:
    """Fork this process, and return the exit status of the fork after a signal."""
    fork = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
    fork.start()
    assert fork.pid is not None
    os.kill(fork.pid, number)
    fork.join()
    assert fork.exitcode is not None
    return fork.exitcode


# What they start


@queue.task(run_in="process")
def use_multiprocessing(method: str) -> list[list[int]]:
    context: Any = multiprocessing.get_context(method)
    with context.Pool(1) as pool:
        first = pool.map(abs, [-1])
        pool.apply_async(time.sleep, (600,))  # ended with the pool
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        second = list(executor.map(abs, [-2]))
    process = context.Process(target=sys.exit, args=(3,))
    process.start()
    process.join()
    assert process.exitcode is not None
    return [first, second, [process.exitcode]]


@queue.task(run_in="process")
def start_programs(ctx: Context, then: str) -> None:
    """Start a program that starts another one, log both pids, and end as told."""
    shell = subprocess.Popen(
        ["sh", "-c", "sleep 600 & echo $!; wait"], stdout=subprocess.PIPE, text=True
    )
    assert shell.stdout is not None
    ctx.log(str(shell.pid))
    ctx.log(shell.stdout.readline().strip())
    match then:
        case "exit":
            os._exit(1)
        case "wait":
            time.sleep(600)


@queue.task(run_in="process")
def fork(how: str) -> int:
    """Fork, so that both processes return from the handler. Returns how the fork ended."""
    if other := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(other, 0)[1])
    if how == "error":
        raise ValueError("of the fork")
    if how == "exit":
        sys.exit(3)
    return -1


@queue.task(run_in="process")
def leave_a_fork(ctx: Context) -> None:
    """Log the pid of a fork that never ends, and never end."""
    if other := os.fork():
        ctx.log(str(other))
    time.sleep(600)


@queue.task(run_in="process")
def log_from_a_fork(ctx: Context) -> int:
    if other := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(other, 0)[1])
    try:
        ctx.log("of the fork")
    except RuntimeError:
        os._exit(7)
    os._exit(0)


@queue.task(run_in="process")
def tell_slot(slot: Slot | None = None) -> list[str]:
    assert slot is not None
    return [slot.planned.isoformat(), str(slot.previous), str(slot.missed)]
