"""`Processes`: runs handlers in child processes, which can be killed.

A child process (`_child.py`) is started when it is first needed, and runs many jobs, one at a time.
For each child the worker has a thread, which starts the process, reads its messages and notices its
end at once. When a child ends or is killed, all processes that its handlers have started are
killed, too, except those that have left the process group of the child.
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
    HandlerParked,
    HandlerRaised,
    HandlerReturned,
    Message,
    RunReport,
    RunRequest,
    RunStarted,
    decode_message,
    encode,
    run_child,
)
from hasten.jobs._children import NewChildren
from hasten.jobs._failures import Failure
from hasten.jobs._record import LogLine, Progress, RunUpdate
from hasten.jobs._run import Run
from hasten.jobs._stop_signals import STOP_SIGNALS
from hasten.jobs._task_definition import TaskDefinition
from hasten.jobs._tracing import get_spans_if_tracing

# A request of up to this size fits into the smallest buffer of a pipe, so writing it does not
# block.
SMALL_REQUEST_BYTES: Final = 4_096

# How long to wait for the end of a child that has closed its pipe, then of one that was killed, and
# for the exit code of one that has ended.
EXIT_SECONDS: Final = 0.5
KILL_SECONDS: Final = 5.0
EXIT_CODE_SECONDS: Final = 0.1
POLL_SECONDS: Final = 0.002

RunResult = str | Failure | NewChildren
"""How a run has ended: its result as JSON, its failure, or the children that it waits for."""

_spawning: Final = multiprocessing.get_context("spawn")
_request_numbers: Final = itertools.count()


class _ChildEndedBeforeRequest(Exception):
    """The child ended after it had run other jobs, and before it received this one."""


class Processes:
    """A pool of at most size child processes, which are started as needed."""

    def __init__(self, size: int) -> None:
        # multiprocessing sets this attribute while a child imports the program's main module.
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            raise UsageError(
                "a child process that imports the main module cannot start a worker: start the "
                'worker only below `if __name__ == "__main__":` in that module'
            )
        self._free_places = asyncio.Semaphore(size)
        self._children: set[_Child] = set()
        self._idle: list[_Child] = []

    async def run(
        self,
        task: TaskDefinition,
        run: Run,
        report: Callable[[RunUpdate], None],
        *,
        started: Callable[[], None],
    ) -> RunResult:
        """Run a job in a child process. Returns the result as JSON, or why the run failed.

        started is called when the job is about to be sent to a child. Raises `ProcessDied` if the
        child ends while it runs the job.
        """
        function = task.function
        request = RunRequest(
            next(_request_numbers),
            function.__module__,
            function.__qualname__,
            run.lease.job,
            task.max_size,
            spans.carrier_of_run(run) if (spans := get_spans_if_tracing()) is not None else None,
        )
        async with self._free_places:
            if run.should_stop():
                raise asyncio.CancelledError
            started()
            while True:
                child = self._take_or_make_idle_child()
                run.interrupt = child.kill
                try:
                    result = await child.run(request, report)
                except _ChildEndedBeforeRequest:
                    self._children.discard(child)
                    if run.should_stop():
                        raise asyncio.CancelledError from None
                except BaseException:
                    self._kill_and_remove(child)
                    raise
                else:
                    if run.should_stop():
                        # It may still be running the job, for which nobody waits.
                        self._kill_and_remove(child)
                    else:
                        self._idle.append(child)
                    return result

    def _take_or_make_idle_child(self) -> _Child:
        """Return an idle child that is still alive, or a new one."""
        while self._idle:
            child = self._idle.pop()
            if not child.has_ended:
                return child
            self._children.discard(child)
        child = _Child()
        self._children.add(child)
        return child

    def _kill_and_remove(self, child: _Child) -> None:
        """Kill a child, and remove it from the pool."""
        child.kill()
        self._children.discard(child)

    def close(self) -> None:
        """Kill all children, and all processes that their handlers have started."""
        for child in self._children:
            child.kill()
        self._children.clear()
        self._idle.clear()


class _RunningRequest:
    """A job that was sent to a child, and the future of its result in the event loop."""

    def __init__(self, request: RunRequest, report: Callable[[RunUpdate], None]) -> None:
        self.request = request
        self._report = report
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[RunResult] = self._loop.create_future()
        self.has_started = False

    def forward_report(self, message: RunReport) -> None:
        """Pass on progress or a log line of the job. Called in the thread of the child."""
        if message.request_number != self.request.number:
            return  # from a thread of an earlier job that is still running
        id = self.request.job.id
        if message.progress is not None:
            self._report(Progress(id, message.progress))
        else:
            self._report(LogLine(id, message.log or "", message.keep))

    def end_with(self, outcome: RunResult | BaseException) -> None:
        """Set the result of the future, from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._set_future_outcome, outcome)

    def _set_future_outcome(self, outcome: RunResult | BaseException) -> None:
        """Set the result or exception of the future, unless it is done."""
        if self.future.done():
            return
        if isinstance(outcome, BaseException):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


class _Child:
    """A child process as seen by the worker: starts it, and sends it one job at a time."""

    def __init__(self) -> None:
        self._worker_end, self._child_end = _spawning.Pipe()
        self._lock = threading.Lock()
        self._write_lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._process: SpawnProcess | None = None
        self._call: _RunningRequest | None = None
        self._has_served = False
        self._killed = False
        self.has_ended = False

    async def run(self, request: RunRequest, report: Callable[[RunUpdate], None]) -> RunResult:
        """Send a job to the child, and wait for its result. Raises `_ChildEndedBeforeRequest`."""
        call = _RunningRequest(request, report)
        with self._lock:
            if self.has_ended:
                raise _ChildEndedBeforeRequest
            self._call = call
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run_process, name="hasten child", daemon=True
                )
                self._thread.start()
                _running_children.add(self)
        self._send_request(encode(request))
        return await call.future

    def _send_request(self, data: bytes) -> None:
        """Send data to the child without blocking the event loop."""
        if len(data) <= SMALL_REQUEST_BYTES:
            self._write_to_pipe(data)
        else:  # writing blocks until the child has read most of it: not in the event loop
            threading.Thread(
                target=self._write_to_pipe, args=(data,), name="hasten request", daemon=True
            ).start()

    def _write_to_pipe(self, data: bytes) -> None:
        """Write data to the pipe. Ignores that the child may have ended."""
        with (
            self._write_lock,
            contextlib.suppress(OSError),
        ):
            # The child has ended, which `_run_process` handles.
            self._worker_end.send_bytes(data)

    def kill(self) -> None:
        """Kill the process and its group, as soon as it has started. From any thread."""
        with self._lock:
            self._killed = True
            if self._process is not None and not self.has_ended:
                _kill_process_group(self._process)

    def close_pipe_in_fork(self) -> None:
        """Close this process's copies of the pipe, in a fork of the worker."""
        self._worker_end.close()
        self._child_end.close()

    # In its thread ------------------------------------------------------------------------------

    def _run_process(self) -> None:
        """Start the process, handle its messages, and clean up when it has ended. Blocks."""
        try:
            process = self._start_process()
        except Exception as error:  # noqa: BLE001  # such as too little memory, or too many processes
            self._mark_ended(error)
            self._close_pipe_and_process(None)
            return
        with contextlib.suppress(Exception):  # ended, or a handler has written to the pipe
            while True:
                self._handle_message(decode_message(self._worker_end.recv_bytes()))
        reason = _describe_exit(_wait_for_exit_code(process, EXIT_SECONDS))
        self.kill()  # also processes that an ended child has left running
        _wait_for_exit_code(process, KILL_SECONDS)  # so that it does not remain as a zombie process
        self._mark_ended(reason)
        self._close_pipe_and_process(process)

    def _start_process(self) -> SpawnProcess:
        # Not a daemon, because daemons may not start processes. `_kill_all_children` ends it.
        """Start the process. It is killed at once if `kill` was called before."""
        process = _spawning.Process(
            target=run_child, args=(self._child_end,), name="hasten job", daemon=False
        )
        if sys.platform != "win32":
            # Signals are blocked in this thread, and so in the child until it can handle them. The
            # resource tracker is started before, because starting it would unblock them here.
            resource_tracker.ensure_running()
            signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        process.start()
        self._child_end.close()
        with self._lock:
            self._process = process
            if self._killed:  # `kill` was called while the process was starting
                _kill_process_group(process)
        return process

    def _handle_message(self, message: Message) -> None:
        """Handle a message from the child."""
        call = self._call
        if isinstance(message, RunReport):
            if call is not None:
                call.forward_report(message)
            return
        assert call is not None
        match message:
            case RunStarted():
                call.has_started = True
            case HandlerReturned(result=result):
                self._finish_request(call, result)
            case HandlerRaised(failure=failure):
                self._finish_request(call, failure)
            case HandlerParked(children=children, add_calls=add_calls):
                jobs = [child.to_new_job() for child in children]
                self._finish_request(call, NewChildren(jobs, add_calls))

    def _finish_request(self, call: _RunningRequest, outcome: RunResult) -> None:
        """Record that the child has run the job, and pass on the outcome."""
        self._has_served = True
        self._call = None
        call.end_with(outcome)

    def _mark_ended(self, reason: str | Exception) -> None:
        """Record that the child has ended, and fail the job that it was running."""
        with self._lock:
            self.has_ended = True
            call, self._call = self._call, None
        _running_children.discard(self)
        if call is None:
            return
        if isinstance(reason, Exception):
            call.end_with(reason)
        elif call.has_started:
            call.end_with(ProcessDied(reason))
        elif self._has_served:
            call.end_with(_ChildEndedBeforeRequest())
        else:
            call.end_with(ProcessDied(reason, while_starting=True))

    def _close_pipe_and_process(self, process: SpawnProcess | None) -> None:
        """Close both ends of the pipe, and the process object if the process has started."""
        self._child_end.close()
        with self._write_lock:  # no thread may write to the file descriptor after it is closed
            self._worker_end.close()
        if process is not None:
            with contextlib.suppress(ValueError):  # the process is still running
                process.close()


def _kill_process_group(process: SpawnProcess) -> None:
    """Kill a process, and all processes in its process group."""
    process.kill()
    # The process itself first, so that it starts no more processes, and because it has no group
    # until it has started completely.
    if sys.platform != "win32" and process.pid is not None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def _wait_for_exit_code(process: SpawnProcess, seconds: float) -> int | None:
    """Wait until a process has ended, and return its exit code.

    Returns None if it is still running after this time, or its exit code is lost. `Process.join`
    cannot be used, because it waits for a pipe that a process of a handler may keep open.
    """
    deadline = time.monotonic() + seconds
    while process.exitcode is None and time.monotonic() < deadline:
        if not _process_exists(process):  # another thread is reading the exit code, or it is lost
            deadline = min(deadline, time.monotonic() + EXIT_CODE_SECONDS)
        time.sleep(POLL_SECONDS)
    return process.exitcode


def _process_exists(process: SpawnProcess) -> bool:
    """Return whether a process exists, without relying on its exit code.

    The exit code is lost if the program ignores SIGCHLD.
    """
    if sys.platform != "win32" and process.pid is not None:
        try:
            os.kill(process.pid, 0)
        except ProcessLookupError:
            return False
    return True


def _describe_exit(exit_code: int | None) -> str:
    """Describe why a child has ended, for `ProcessDied`. exit_code is None if it is unknown."""
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


_running_children: Final[set[_Child]] = set()


def _kill_all_children() -> None:
    """Kill the children of all workers, when the interpreter exits."""
    for child in _running_children.copy():
        child.kill()


def _close_pipes_after_fork() -> None:
    """Close the copies of the pipes in a fork of the worker.

    Open copies would hide from the children that the worker has ended.
    """
    for child in _running_children:
        child.close_pipe_in_fork()
    _running_children.clear()


# Kill the children of workers that were not stopped: multiprocessing would wait for their end.
atexit.register(_kill_all_children)
if sys.platform != "win32":
    os.register_at_fork(after_in_child=_close_pipes_after_fork)
