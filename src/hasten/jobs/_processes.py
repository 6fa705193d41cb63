"""Run handlers in child processes, which can be killed.

A child (`_child.py`) is started when it is first needed, and runs many jobs, one at a time. A
thread for each child starts it, reads its messages and notices its end at once, also between two
jobs. When a child ends or is killed, all processes that its handlers have started are killed, too,
except those that have left the process group of the child.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import itertools
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnProcess
from typing import Final

from hasten.errors import ProcessDied, UsageError
from hasten.jobs._child import (
    CONNECTION_LOST,
    Message,
    Order,
    Raised,
    Reported,
    Returned,
    Started,
    decode_message,
    encode,
    serve,
)
from hasten.jobs._failures import Failure
from hasten.jobs._record import LogLine, Progress, RunUpdate
from hasten.jobs._run import Run
from hasten.jobs._stop_signals import STOP_SIGNALS
from hasten.jobs._task_definition import TaskDefinition
from hasten.jobs._tracing import active_spans

# An order of up to this size is written without a thread: the smallest buffer of a pipe holds it.
SMALL_ORDER_BYTES: Final = 4_096

# How long to wait for the end of a child that has closed its pipe, then of one that was killed, and
# for the exit code of one that has ended.
EXIT_SECONDS: Final = 0.5
KILL_SECONDS: Final = 5.0
EXIT_CODE_SECONDS: Final = 0.1
POLL_SECONDS: Final = 0.002

_spawning: Final = multiprocessing.get_context("spawn")
_numbers: Final = itertools.count()


class _NotStarted(Exception):
    """The child has run other jobs and has ended, and it has not started this job."""


class Processes:
    """A pool of child processes, started as needed."""

    def __init__(self, size: int) -> None:
        # Set by multiprocessing in a child that is still importing the program's main module.
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            raise UsageError(
                "a child process that imports the main module cannot start a worker: start the "
                'worker below `if __name__ == "__main__":`'
            )
        self._room = asyncio.Semaphore(size)
        self._children: set[_Child] = set()
        self._idle: list[_Child] = []

    async def run(
        self,
        task: TaskDefinition,
        run: Run,
        report: Callable[[RunUpdate], None],
        *,
        started: Callable[[], None],
    ) -> str | Failure:
        """Run a job in a child. Returns the result as JSON; raises `ProcessDied`.

        started is called when a child is free for the job.
        """
        function = task.function
        order = Order(
            next(_numbers),
            function.__module__,
            function.__qualname__,
            run.lease.job,
            task.max_size,
            spans.context_of(run) if (spans := active_spans()) is not None else None,
        )
        async with self._room:
            if run.should_stop():
                raise asyncio.CancelledError
            started()
            while True:
                child = self._next_child()
                run.interrupt = child.kill
                try:
                    result = await child.run(order, report)
                except _NotStarted:
                    self._children.discard(child)
                    if run.should_stop():
                        raise asyncio.CancelledError from None
                except BaseException:
                    self._drop(child)
                    raise
                else:
                    if run.should_stop():
                        self._drop(child)  # it may still run the job, and nobody waits for that
                    else:
                        self._idle.append(child)
                    return result

    def _next_child(self) -> _Child:
        while self._idle:
            child = self._idle.pop()
            if not child.has_ended:
                return child
            self._children.discard(child)
        child = _Child()
        self._children.add(child)
        return child

    def _drop(self, child: _Child) -> None:
        child.kill()
        self._children.discard(child)

    def close(self) -> None:
        """Kill all children, and all processes that their handlers have started."""
        for child in self._children:
            child.kill()
        self._children.clear()
        self._idle.clear()


class _Call:
    """A job that a child runs. Created in the event loop that waits for it."""

    def __init__(self, order: Order, report: Callable[[RunUpdate], None]) -> None:
        self.order = order
        self._report = report
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[str | Failure] = self._loop.create_future()
        self.has_started = False

    def report(self, message: Reported) -> None:
        if message.order != self.order.number:
            return  # of an earlier job, by a thread that still runs
        id = self.order.job.id
        if message.progress is not None:
            self._report(Progress(id, message.progress))
        else:
            self._report(LogLine(id, message.log or "", message.keep))

    def end(self, outcome: str | Failure | BaseException) -> None:
        """Pass the outcome to the event loop, from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._set, outcome)

    def _set(self, outcome: str | Failure | BaseException) -> None:
        if self.future.done():
            return
        if isinstance(outcome, BaseException):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


class _Child:
    """Starts a child process and sends it one call at a time. Used in the worker."""

    def __init__(self) -> None:
        self._ours, self._theirs = _spawning.Pipe()
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._thread: threading.Thread | None = None
        self._process: SpawnProcess | None = None
        self._call: _Call | None = None
        self._has_served = False
        self._killed = False
        self.has_ended = False

    async def run(self, order: Order, report: Callable[[RunUpdate], None]) -> str | Failure:
        call = _Call(order, report)
        with self._lock:
            if self.has_ended:
                raise _NotStarted
            self._call = call
            if self._thread is None:
                self._thread = threading.Thread(target=self._live, name="hasten child", daemon=True)
                self._thread.start()
                _living.add(self)
        self._send(encode(order))
        return await call.future

    def _send(self, data: bytes) -> None:
        if len(data) <= SMALL_ORDER_BYTES:
            self._write(data)
        else:  # writing waits until the child has read most of it: it must not block the event loop
            threading.Thread(
                target=self._write, args=(data,), name="hasten order", daemon=True
            ).start()

    def _write(self, data: bytes) -> None:
        with self._writing, contextlib.suppress(OSError):  # it has ended, and `_live` notices
            self._ours.send_bytes(data)

    def kill(self) -> None:
        """Kill the process and its group, now or once it has started. From any thread."""
        with self._lock:
            self._killed = True
            if self._process is not None and not self.has_ended:
                _kill(self._process)

    def abandon(self) -> None:
        """Close the pipe in a fork of the worker: its copy would hide that the worker has ended."""
        self._ours.close()
        self._theirs.close()

    # In its thread ------------------------------------------------------------------------------

    def _live(self) -> None:
        """Start the process, handle its messages, and clean up at its end."""
        try:
            process = self._start()
        except Exception as error:  # noqa: BLE001  # no memory, too many processes: an error of the job
            self._end(error)
            self._close()
            return
        with contextlib.suppress(Exception):  # it has ended, or a handler has written to the pipe
            while True:
                self._receive(decode_message(self._ours.recv_bytes()))
        how = _how(_exit_code(process, EXIT_SECONDS))
        self.kill()  # also what an ended child has left running
        _exit_code(process, KILL_SECONDS)  # leaves no zombie
        self._end(how)
        self._close(process)

    def _start(self) -> SpawnProcess:
        # Not a daemon: those may not have children. `_kill_all` ends it when the worker ends.
        process = _spawning.Process(
            target=serve, args=(self._theirs,), name="hasten job", daemon=False
        )
        if sys.platform != "win32":
            # Blocked in this thread, and so in the child until it can handle them. The tracker is
            # started first, because starting it would unblock them here.
            resource_tracker.ensure_running()
            signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        process.start()
        self._theirs.close()
        with self._lock:
            self._process = process
            if self._killed:  # while it started
                _kill(process)
        return process

    def _receive(self, message: Message) -> None:
        call = self._call
        if isinstance(message, Reported):
            if call is not None:
                call.report(message)
            return
        assert call is not None
        match message:
            case Started():
                call.has_started = True
            case Returned(result=result):
                self._finish(call, result)
            case Raised(failure=failure):
                self._finish(call, failure)

    def _finish(self, call: _Call, outcome: str | Failure) -> None:
        self._has_served = True
        self._call = None
        call.end(outcome)

    def _end(self, how: str | Exception) -> None:
        with self._lock:
            self.has_ended = True
            call, self._call = self._call, None
        _living.discard(self)
        if call is None:
            return
        if isinstance(how, Exception):
            call.end(how)
        elif call.has_started:
            call.end(ProcessDied(how))
        elif self._has_served:
            call.end(_NotStarted())
        else:
            call.end(ProcessDied(how, while_starting=True))

    def _close(self, process: SpawnProcess | None = None) -> None:
        self._theirs.close()
        with self._writing:  # no thread must write to a file that is opened under its number
            self._ours.close()
        if process is not None:
            with contextlib.suppress(ValueError):  # it still runs
                process.close()


def _kill(process: SpawnProcess) -> None:
    process.kill()
    # The process first, so that it starts no more processes. It has no group until it is ready.
    if sys.platform != "win32" and process.pid is not None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def _exit_code(process: SpawnProcess, seconds: float) -> int | None:
    """Wait for the end of a process. None if it still runs, or if its exit code is lost.

    `join` cannot be used: it waits for a pipe that a process of a handler may keep open.
    """
    deadline = time.monotonic() + seconds
    while process.exitcode is None and time.monotonic() < deadline:
        if not _exists(process):  # another thread is reading its exit code, or it is lost
            deadline = min(deadline, time.monotonic() + EXIT_CODE_SECONDS)
        time.sleep(POLL_SECONDS)
    return process.exitcode


def _exists(process: SpawnProcess) -> bool:
    """Return whether a process exists. If SIGCHLD is ignored, an ended one has no exit code."""
    if sys.platform != "win32" and process.pid is not None:
        try:
            os.kill(process.pid, 0)
        except ProcessLookupError:
            return False
    return True


def _how(exit_code: int | None) -> str:
    if exit_code is None:
        return "its connection to the worker broke"
    if exit_code == CONNECTION_LOST:
        return "its handler has closed its connection to the worker"
    if exit_code < 0:
        return f"killed by signal {-exit_code} ({_signal_name(-exit_code)})"
    return f"exit code {exit_code}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


_living: Final[set[_Child]] = set()


def _kill_all() -> None:
    for child in _living.copy():
        child.kill()


def _abandon_all() -> None:
    for child in _living:
        child.abandon()
    _living.clear()


# For workers that were not stopped: multiprocessing would wait for their children.
atexit.register(_kill_all)
if sys.platform != "win32":
    os.register_at_fork(after_in_child=_abandon_all)
