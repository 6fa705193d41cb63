"""Handlers in processes of their own: each runs one job at a time, and can be killed.

A child is started when it is first needed and serves many jobs. It imports the module of a task and
finds the task there, so nothing but JSON and names travels. The parent talks to it from a thread;
when the parent dies, the child sees its pipe closed and dies, too, whatever it is doing.
"""

from __future__ import annotations

import asyncio
import contextvars
import importlib
import inspect
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import TYPE_CHECKING, Any, Final

import msgspec

from hasten import _django
from hasten.jobs import failures
from hasten.jobs.arguments import encode_result
from hasten.jobs.context import Context
from hasten.jobs.failures import Failure
from hasten.jobs.record import JobRecord, LogLine, Note, Progress
from hasten.jobs.run import Run

if TYPE_CHECKING:
    from hasten.jobs.tasks import TaskCore


class ProcessDied(Exception):
    """The process of a handler has ended in the middle of a job."""

    def __init__(self, exit_code: int | None) -> None:
        code = exit_code or 0
        how = (
            f"killed by signal {-code} ({_signal_name(-code)})" if code < 0 else f"exit code {code}"
        )
        super().__init__(f"the process that ran it has died: {how}")


class _Order(msgspec.Struct):
    """To a child: run this."""

    module: str
    function: str
    job: JobRecord
    max_bytes: int


class _Said(msgspec.Struct, tag=True):
    """From a child, while it runs: progress or a log line."""

    progress: str | None = None
    log: str | None = None
    keep: int = 0


class _Returned(msgspec.Struct, tag=True):
    """From a child: the result, JSON."""

    result: str


class _Raised(msgspec.Struct, tag=True):
    """From a child: it failed."""

    failure: Failure


_answers: Final = msgspec.json.Decoder(_Said | _Returned | _Raised)
_orders: Final = msgspec.json.Decoder(_Order)
_encode: Final = msgspec.json.Encoder().encode


class Processes:
    """A pool of child processes, started as needed."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._room = asyncio.Semaphore(size)
        self._idle: list[_Child] = []
        self._threads: ThreadPoolExecutor | None = None

    async def run(
        self,
        core: TaskCore,
        run: Run,
        note: Callable[[Note], None],
        *,
        started: Callable[[], None],
    ) -> str | Failure:
        """Run a job in a child. Returns the result as JSON; raises `ProcessDied`.

        started is called when a child is free and begins.
        """
        function = core.function
        order = _Order(
            function.__module__, function.__qualname__, run.lease.job, core.queue.max_bytes
        )
        async with self._room:
            if run.told_to_end():
                raise asyncio.CancelledError
            child = self._idle.pop() if self._idle else _Child()
            run.interrupt = child.kill
            started()
            if self._threads is None:
                self._threads = ThreadPoolExecutor(self._size, thread_name_prefix="hasten child")
            loop = asyncio.get_running_loop()
            try:
                answer = await loop.run_in_executor(self._threads, child.run, order, note)
            except BaseException:
                child.kill()
                raise
            if run.told_to_end():
                child.kill()  # whatever it is doing now, nobody waits for it
            else:
                self._idle.append(child)
            return answer

    def close(self) -> None:
        for child in self._idle:
            child.kill()
        self._idle.clear()
        if self._threads is not None:
            self._threads.shutdown(wait=False)


class _Child:
    """A child process, as the parent sees it. `run` is called in a thread, `kill` from anywhere."""

    def __init__(self) -> None:
        self._killed = False
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None

    def run(self, order: _Order, note: Callable[[Note], None]) -> str | Failure:
        if self._process is None:
            self._start()
        process, pipe = self._process, self._pipe
        assert process is not None
        assert pipe is not None
        try:
            pipe.send_bytes(_encode(order))
            while True:
                match _answers.decode(pipe.recv_bytes()):
                    case _Returned(result=result):
                        return result
                    case _Raised(failure=failure):
                        return failure
                    case _Said(progress=str() as value):
                        note(Progress(order.job.id, value))
                    case _Said(log=line, keep=keep):
                        note(LogLine(order.job.id, line or "", keep))
        except (EOFError, OSError):
            process.join(5)
            raise ProcessDied(process.exitcode) from None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs,), name="hasten job", daemon=True
        )
        self._process.start()
        theirs.close()
        if self._killed:  # while it started
            self._process.kill()

    def kill(self) -> None:
        self._killed = True
        if self._process is not None:
            self._process.kill()


# In the child -----------------------------------------------------------------------------------


def _serve(pipe: Connection) -> None:
    """Run orders until the parent closes the pipe or is gone."""
    # Ctrl+C and a service manager's SIGTERM go to the whole group; the parent decides for us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    orders: queue.SimpleQueue[_Order] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(pipe, orders), daemon=True).start()
    while True:
        order = orders.get()
        _django.close_old_connections()
        answer = _carry_out(order, pipe)
        _django.close_old_connections()
        pipe.send_bytes(_encode(answer))


def _receive(pipe: Connection, orders: queue.SimpleQueue[_Order]) -> None:
    # In a thread of its own: it sees the parent's end even while a handler runs.
    while True:
        try:
            orders.put(_orders.decode(pipe.recv_bytes()))
        except (EOFError, OSError):
            os._exit(1)


def _carry_out(order: _Order, pipe: Connection) -> _Returned | _Raised:
    job = order.job
    core: TaskCore | None = None
    try:
        core = _find(order)
        context = Context(job, lambda note: pipe.send_bytes(_encode(_said(note))))
        try:
            args, kwargs = core.parameters.decode(job.data, context)
        except ValueError as exc:
            return _Raised(Failure(str(exc), "", final=True))
        # What a handler sets in its context must not be there for the next one.
        value = contextvars.copy_context().run(core.function, *args, **kwargs)
        if inspect.isawaitable(value):
            value = asyncio.run(_wait_for(value))
        return _Returned(encode_result(value, order.max_bytes))
    except BaseException as error:  # noqa: BLE001  # the handler's, whatever it is
        return _Raised(
            failures.describe(
                error,
                attempt=job.attempts_made + 1,
                give_up_on=core.give_up_on if core else (),
                backoff_function=core.backoff_function if core else None,
            )
        )


async def _wait_for(value: Awaitable[Any]) -> Any:
    return await value


def _find(order: _Order) -> TaskCore:
    """The task, in this process. Its module's name for it stands for the decorated function."""
    _django.set_up()  # before a module that imports models
    found: Any = importlib.import_module(order.module)
    for name in order.function.split("."):
        found = getattr(found, name)
    core: TaskCore = found.core
    return core


def _said(note: Note) -> _Said:
    match note:
        case Progress(value=value):
            return _Said(progress=value)
        case LogLine(line=line, keep=keep):
            return _Said(log=line, keep=keep)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
