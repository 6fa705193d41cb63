"""Handlers in processes of their own: each runs one job at a time, and can be killed.

A child (`child.py`) is started when it is first needed and serves many jobs. A thread for each
child starts it, reads what it says, and sees its end at once, also between two jobs. Whenever a
child ends or is killed, so is all that its handlers have started and left running, unless that has
left the child's process group.
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
from typing import TYPE_CHECKING, Final

from hasten.errors import ProcessDied, UsageError
from hasten.jobs._child import (
    CONNECTION_LOST,
    STOP_SIGNALS,
    Begun,
    Message,
    Order,
    Raised,
    Returned,
    Said,
    decode_message,
    encode,
    serve,
)
from hasten.jobs._failures import Failure
from hasten.jobs._record import LogLine, Progress, RunUpdate
from hasten.jobs._run import Run

if TYPE_CHECKING:
    from hasten.jobs._task_definition import TaskDefinition

# An order of up to this size is written at once: even a pipe's smallest buffer takes it.
SMALL_ORDER_BYTES: Final = 4_096

# How long a child that has closed its pipe gets to end by itself, and then to end of being killed.
LEAVE_SECONDS: Final = 0.5
DIE_SECONDS: Final = 5.0
COLLECT_SECONDS: Final = 0.1
LOOK_SECONDS: Final = 0.002

_spawning: Final = multiprocessing.get_context("spawn")
_numbers: Final = itertools.count()


class _NotBegun(Exception):
    """A child that has served before has ended, and has certainly not begun with the job."""


class Processes:
    """A pool of child processes, started as needed."""

    def __init__(self, size: int) -> None:
        # Set by multiprocessing in a child that is still importing the program's main module.
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            raise UsageError(
                "a worker cannot start while a child process imports the main module: put what "
                'starts it below `if __name__ == "__main__":`'
            )
        self._room = asyncio.Semaphore(size)
        self._children: set[_Child] = set()
        self._idle: list[_Child] = []

    async def run(
        self,
        core: TaskDefinition,
        run: Run,
        note: Callable[[RunUpdate], None],
        *,
        started: Callable[[], None],
    ) -> str | Failure:
        """Run a job in a child. Returns the result as JSON; raises `ProcessDied`.

        started is called when there is room for it.
        """
        function = core.function
        order = Order(
            next(_numbers),
            function.__module__,
            function.__qualname__,
            run.lease.job,
            core.max_size,
        )
        async with self._room:
            if run.told_to_end():
                raise asyncio.CancelledError
            started()
            while True:
                child = self._next_child()
                run.interrupt = child.kill
                try:
                    answer = await child.run(order, note)
                except _NotBegun:
                    self._children.discard(child)
                    if run.told_to_end():
                        raise asyncio.CancelledError from None
                except BaseException:
                    self._drop(child)
                    raise
                else:
                    if run.told_to_end():
                        self._drop(child)  # whatever it is doing now, nobody waits for it
                    else:
                        self._idle.append(child)
                    return answer

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
        """Kill all children, and all that their handlers have started."""
        for child in self._children:
            child.kill()
        self._children.clear()
        self._idle.clear()


class _Call:
    """A job that a child has been ordered to run. Made in the event loop that waits for it."""

    def __init__(self, order: Order, note: Callable[[RunUpdate], None]) -> None:
        self.order = order
        self._note = note
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[str | Failure] = self._loop.create_future()
        self.has_begun = False

    def report(self, said: Said) -> None:
        if said.order != self.order.number:
            return  # an earlier job's, from a thread that it has left behind
        id = self.order.job.id
        if said.progress is not None:
            self._note(Progress(id, said.progress))
        else:
            self._note(LogLine(id, said.log or "", said.keep))

    def end(self, outcome: str | Failure | BaseException) -> None:
        """Tell the event loop, from any thread."""
        with contextlib.suppress(RuntimeError):  # it is closed: nobody waits
            self._loop.call_soon_threadsafe(self._set, outcome)

    def _set(self, outcome: str | Failure | BaseException) -> None:
        if self.future.done():
            return
        if isinstance(outcome, BaseException):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


class _Child:
    """A child process, as the worker sees it."""

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

    async def run(self, order: Order, note: Callable[[RunUpdate], None]) -> str | Failure:
        call = _Call(order, note)
        with self._lock:
            if self.has_ended:
                raise _NotBegun
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
        else:  # until the child has read most of it, which must not hold up the event loop
            threading.Thread(
                target=self._write, args=(data,), name="hasten order", daemon=True
            ).start()

    def _write(self, data: bytes) -> None:
        with self._writing, contextlib.suppress(OSError):  # it has ended, which our thread sees
            self._ours.send_bytes(data)

    def kill(self) -> None:
        """Kill the process and its group, now or once it has started. From any thread."""
        with self._lock:
            self._killed = True
            if self._process is not None and not self.has_ended:
                _kill(self._process)

    def abandon(self) -> None:
        """Give it up in a fork of the worker: with a copy of the pipe, no end of it is seen."""
        self._ours.close()
        self._theirs.close()

    # In its thread ------------------------------------------------------------------------------

    def _live(self) -> None:
        """Start the process, take what it says, see to its end."""
        try:
            process = self._start()
        except Exception as error:  # noqa: BLE001  # no memory, too many processes: the job's error
            self._end(error)
            self._close()
            return
        with contextlib.suppress(Exception):  # it has ended, or a handler wrote into the pipe
            while True:
                self._receive(decode_message(self._ours.recv_bytes()))
        how = _how(_exit_code(process, LEAVE_SECONDS))
        self.kill()  # if it has ended: what it has left behind
        _exit_code(process, DIE_SECONDS)  # not to leave a zombie
        self._end(how)
        self._close(process)

    def _start(self) -> SpawnProcess:
        # Not a daemon: those may not have children themselves. `_kill_all` sees to its end.
        process = _spawning.Process(
            target=serve, args=(self._theirs,), name="hasten job", daemon=False
        )
        if sys.platform != "win32":
            # Blocked in this thread, and so in the child until it is ready for them. The tracker
            # is started first since that would unblock them here.
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
        if isinstance(message, Said):
            if call is not None:
                call.report(message)
            return
        assert call is not None
        match message:
            case Begun():
                call.has_begun = True
            case Returned(result=result):
                self._answer(call, result)
            case Raised(failure=failure):
                self._answer(call, failure)

    def _answer(self, call: _Call, answer: str | Failure) -> None:
        self._has_served = True
        self._call = None
        call.end(answer)

    def _end(self, how: str | Exception) -> None:
        with self._lock:
            self.has_ended = True
            call, self._call = self._call, None
        _living.discard(self)
        if call is None:
            return
        if isinstance(how, Exception):
            call.end(how)
        elif call.has_begun:
            call.end(ProcessDied(how))
        elif self._has_served:
            call.end(_NotBegun())
        else:
            call.end(ProcessDied(how, while_starting=True))

    def _close(self, process: SpawnProcess | None = None) -> None:
        self._theirs.close()
        with self._writing:  # another thread must not write into what is opened in its place
            self._ours.close()
        if process is not None:
            with contextlib.suppress(ValueError):  # it does not end
                process.close()


def _kill(process: SpawnProcess) -> None:
    process.kill()
    # The process itself first: it can start nothing more then. It has no group before it is ready.
    if sys.platform != "win32" and process.pid is not None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def _exit_code(process: SpawnProcess, seconds: float) -> int | None:
    """Wait for the end of a process. None if it goes on, or if its exit code is lost.

    Not by `join`: what a handler has started may hold the pipe that this would wait for.
    """
    deadline = time.monotonic() + seconds
    while process.exitcode is None and time.monotonic() < deadline:
        if not _exists(process):  # another thread has just got its exit code, or nobody has
            deadline = min(deadline, time.monotonic() + COLLECT_SECONDS)
        time.sleep(LOOK_SECONDS)
    return process.exitcode


def _exists(process: SpawnProcess) -> bool:
    """Where SIGCHLD is ignored, a process that has ended is gone with its exit code."""
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


# Children of a worker that was not stopped: multiprocessing would wait for them.
atexit.register(_kill_all)
if sys.platform != "win32":
    os.register_at_fork(after_in_child=_abandon_all)
