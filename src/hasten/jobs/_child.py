"""The code of a child process that runs handlers with run_in="process", one job at a time.

The worker sends only JSON and names: the child imports the module of a task and finds the task in
it by name.

The child starts a session of its own. So the worker can kill it together with all processes that
its handlers have started, and Ctrl+C in the worker's terminal does not reach it. When the worker
ends, which closes its end of the pipe, the child kills its process group.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import importlib
import inspect
import multiprocessing
import os
import queue
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any, Final, NoReturn

import msgspec

from hasten import _django, _portal
from hasten._logs import format_traceback
from hasten.errors import UsageError
from hasten.jobs import _failures as failures
from hasten.jobs._arguments import encode_result
from hasten.jobs._children import check_after_return
from hasten.jobs._context import Context
from hasten.jobs._current import running_job
from hasten.jobs._failures import Failure
from hasten.jobs._middleware import Carry, Middleware
from hasten.jobs._options import decode_options
from hasten.jobs._record import (
    JobRecord,
    JobTemplate,
    LogLine,
    NewJob,
    ParentLink,
    Progress,
    RunUpdate,
)
from hasten.jobs._stop_signals import STOP_SIGNALS
from hasten.jobs._task_definition import TaskDefinition
from hasten.jobs._tasks import Task
from hasten.jobs._tracing import get_or_make_spans

CONNECTION_LOST: Final = 213  # exit code of a child whose handler has closed the pipe to the worker


class RunRequest(msgspec.Struct):
    """A message to the child: run this job, by calling function of module."""

    number: int  # unique in the process of the worker
    module: str
    function: str
    job: JobRecord
    max_bytes: int
    trace_context: str | None = None


class RunStarted(msgspec.Struct, tag=True):
    """A message from the child: it has received a request, and begins to run the job."""


class RunReport(msgspec.Struct, tag=True):
    """A message from the child while it runs a job: progress (JSON) or a log line."""

    request_number: int  # the number of the `RunRequest`
    progress: str | None = None
    log: str | None = None
    keep: int = 0


class HandlerReturned(msgspec.Struct, tag=True):
    """A message from the child: the handler has returned this result, as JSON."""

    result: str


class HandlerRaised(msgspec.Struct, tag=True):
    """A message from the child: the handler has raised an exception."""

    failure: Failure


class ChildToAdd(msgspec.Struct):
    """A `NewJob` in a message. opts are the options as JSON."""

    queue: str
    name: str
    opts: str
    data: str
    id: str | None
    parent: ParentLink | None

    @classmethod
    def of(cls, job: NewJob) -> ChildToAdd:
        """Return a new job in the form for a message."""
        template = job.template
        return cls(job.queue, template.name, template.opts, job.data, job.id, job.parent)

    def to_new_job(self) -> NewJob:
        """Return the new job."""
        template = JobTemplate(self.name, self.opts, decode_options(self.opts))
        return NewJob(self.queue, template, self.data, self.id, self.parent)


class HandlerParked(msgspec.Struct, tag=True):
    """A message from the child: the handler has ended to wait for its children; see `Parked`."""

    children: list[ChildToAdd]
    add_calls: int


Message = RunStarted | RunReport | HandlerReturned | HandlerRaised | HandlerParked

encode: Final = msgspec.json.Encoder().encode
decode_message: Final = msgspec.json.Decoder(Message).decode
_decode_request: Final = msgspec.json.Decoder(RunRequest).decode


def run_child(pipe: Connection) -> None:
    """Run the jobs that the worker sends, until the worker closes the pipe or ends."""
    connection = _WorkerConnection(pipe)
    try:
        _start_session()
        _ignore_stop_signals()
        if sys.platform != "win32":
            # The worker has started it with these blocked.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        requests: queue.SimpleQueue[RunRequest] = queue.SimpleQueue()
        threading.Thread(target=_receive_requests, args=(pipe, requests), daemon=True).start()
        while True:
            request = requests.get()
            _ignore_stop_signals()
            connection.send(RunStarted())
            _django.close_old_connections()
            message = _run_requested_job(request, connection)
            if connection.is_forked:
                return  # a fork that the handler has made: returning ends its process
            _django.close_old_connections()
            connection.send(message)
    except BaseException as error:
        if connection.is_forked:
            raise
        with contextlib.suppress(Exception):  # a handler may have closed stderr
            print(format_traceback(error), file=sys.stderr)  # noqa: T201
        os._exit(1)  # not sys.exit: it would wait for threads that handlers have left running


class _WorkerConnection:
    """Sends messages to the worker, each in one piece and in order, from any thread."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._pipe_identity = _pipe_identity(pipe)
        self._unsent: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._write_lock = threading.Lock()
        self.is_forked = False
        if sys.platform != "win32":
            os.set_inheritable(pipe.fileno(), False)
            self._masks = threading.local()
            os.register_at_fork(
                before=self._block_signals_before_fork,
                after_in_parent=self._unblock_signals_after_fork,
                after_in_child=self._reset_forked_process,
            )

    def send(self, message: Message) -> None:
        """Send a message to the worker.

        If another thread is sending a message now, that thread sends this one, too.
        """
        if self.is_forked:
            raise UsageError(
                "a process that a handler has forked cannot report progress or log lines: report "
                "them in the process of the handler"
            )
        self._unsent.put(encode(message))
        # No thread waits for the lock: its holder checks for new messages after releasing it. So a
        # signal handler can send a message while the code that it has interrupted is sending one.
        while not self._unsent.empty() and self._write_lock.acquire(blocking=False):
            try:
                while not self._unsent.empty():
                    self._write(self._unsent.get())
            finally:
                self._write_lock.release()

    def _write(self, data: bytes) -> None:
        """Write a message to the pipe. Ends the process if that fails."""
        try:
            if _pipe_identity(self._pipe) != self._pipe_identity:
                # The handler has closed the pipe, and opened another file.
                os._exit(CONNECTION_LOST)
            self._pipe.send_bytes(data)
        except (BrokenPipeError, ConnectionResetError):
            _kill_process_group()
        except BaseException:  # noqa: BLE001  # a part may be written, after which nothing can be sent
            os._exit(CONNECTION_LOST)

    # A handler may fork this process. The fork closes its copy of the pipe, because an open copy
    # would hide from the worker that the child has ended. It also restores the default signal
    # handlers, and signals are blocked until then: a process pool may send SIGTERM to processes
    # that it has just started, and wait for their end.

    def _block_signals_before_fork(self) -> None:
        self._masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)

    def _unblock_signals_after_fork(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._masks.before)

    def _reset_forked_process(self) -> None:
        self.is_forked = True
        self._pipe.close()
        if signal.getsignal(signal.SIGTERM) is _ignore_signal:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if signal.getsignal(signal.SIGINT) is _ignore_signal:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            self._unblock_signals_after_fork()
        except KeyboardInterrupt:  # a signal that was blocked; Python ignores exceptions here
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)


def _pipe_identity(pipe: Connection) -> tuple[int, int] | None:
    """Return the device and inode of a pipe, which show whether it is still the same file.

    Returns None on Windows.
    """
    if sys.platform == "win32":
        return None  # not a file descriptor that a handler could close by accident
    status = os.fstat(pipe.fileno())
    return status.st_dev, status.st_ino


def _start_session() -> None:
    """Start a session and a process group, which is killed when the worker ends."""
    if sys.platform == "win32":
        return
    os.setsid()
    parent = multiprocessing.parent_process()
    if sys.platform == "linux" and parent is not None:
        import fcntl  # noqa: PLC0415  # Windows has none

        # `_receive_requests` cannot run while a handler holds the interpreter's lock in a long call
        # to C code. So the kernel is asked to kill the group when the worker ends: the sentinel is
        # a pipe whose other end the worker holds, and its closing is the only event on this pipe.
        with contextlib.suppress(OSError):
            fcntl.fcntl(parent.sentinel, fcntl.F_SETOWN, -os.getpid())
            fcntl.fcntl(parent.sentinel, fcntl.F_SETSIG, signal.SIGKILL)
            flags = fcntl.fcntl(parent.sentinel, fcntl.F_GETFL)
            fcntl.fcntl(parent.sentinel, fcntl.F_SETFL, flags | fcntl.FASYNC)


def _kill_process_group() -> NoReturn:
    """Kill this process and all processes that its handlers have started."""
    if sys.platform != "win32":
        with contextlib.suppress(ProcessLookupError):
            os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


def _ignore_stop_signals() -> None:
    """Ignore SIGTERM and SIGINT. Called before each job, because a handler may change that.

    Service managers and terminals send these signals to every process of a program. The worker
    decides when this one stops.
    """
    # With a handler instead of SIG_IGN, which programs that a job starts would inherit.
    for number in STOP_SIGNALS:
        if signal.getsignal(number) is not _ignore_signal:
            signal.signal(number, _ignore_signal)
            if sys.platform != "win32":
                # Restart system calls, because not every C library repeats an interrupted one.
                signal.siginterrupt(number, False)


def _ignore_signal(_number: int, _frame: FrameType | None) -> None:
    """Do nothing. The handler for ignored signals."""


def _receive_requests(pipe: Connection, requests: queue.SimpleQueue[RunRequest]) -> None:
    """Put the requests from the worker into a queue, and kill the group when the pipe closes.

    Runs in a thread, so that it notices the end of the worker while a handler runs.
    """
    try:
        while True:
            requests.put(_decode_request(pipe.recv_bytes()))
    finally:
        _kill_process_group()


def _run_requested_job(
    request: RunRequest, connection: _WorkerConnection
) -> HandlerReturned | HandlerRaised | HandlerParked:
    """Run a job, and return the message about its end."""
    job = request.job
    task: TaskDefinition | None = None
    context: Context | None = None
    try:
        found = _import_task(request)
        task = found.definition
        context = Context(
            job,
            lambda update: connection.send(_to_run_report(request, update)),
            max_bytes=request.max_bytes,
            queue=found._producer.queue,
        )
        # A decorator may have copied the attributes of the task, but not its properties.
        middlewares = found._producer.middlewares
        try:
            args, kwargs = task.parameters.decode(job.data, context)
        except ValueError as exc:
            return HandlerRaised(Failure(str(exc), "", final=True))
        # Context variables that a handler sets must not be visible to the next one.
        call = partial(task.function, *args, **kwargs)
        value = contextvars.copy_context().run(
            _call_handler, call, context, middlewares, request.trace_context
        )
        if context.used_children is not None:
            _portal.run_without_loop_check(check_after_return(context.used_children))
        return HandlerReturned(encode_result(value, request.max_bytes))
    except BaseException as error:
        if connection.is_forked:
            raise
        failure = _to_failure(error, job, task)
        children = None if context is None else context.used_children
        if failure.parks and children is not None and children.parked is not None:
            new = children.parked
            return HandlerParked([ChildToAdd.of(child) for child in new.jobs], new.add_calls)
        return HandlerRaised(failure)
    finally:
        if context is not None:
            context.close()


def _to_failure(error: BaseException, job: JobRecord, task: TaskDefinition | None) -> Failure:
    """Describe an exception of a handler as a `Failure`, which can be sent to the worker.

    Never raises.
    """
    try:
        return failures.classify_exception(
            error,
            attempt=job.attempts_made + 1,
            give_up_on=task.give_up_on if task else (),
            backoff_function=task.backoff_function if task else None,
        )
    except BaseException as exc:  # noqa: BLE001  # the methods of the error may raise
        return Failure(
            f"{type(error).__name__} (its text is not available: {type(exc).__name__})", ""
        )


def _call_handler(
    call: Callable[[], Any],
    context: Context,
    middlewares: Sequence[Middleware],
    trace_context: str | None,
) -> Any:
    """Call the handler with `current_job` set, and return its value.

    The variables of `Carry` middlewares have the values that the job carries, and the trace context
    of the job is active.
    """
    running_job.set(_RunningJob(context))
    carriers = [each for each in middlewares if isinstance(each, Carry)]
    metadata = (decode_options(context.job.opts).metadata if carriers else None) or {}
    with contextlib.ExitStack() as stack:
        for carrier in carriers:
            stack.enter_context(carrier.restored(metadata))
        # The module of the task, or the handler itself, may set a tracer provider later.
        if trace_context is not None and (spans := get_or_make_spans()) is not None:
            stack.enter_context(spans.use_context(trace_context))
        value = call()
        return asyncio.run(_await_value(value)) if inspect.isawaitable(value) else value


@dataclass(frozen=True, slots=True)
class _RunningJob:
    """The job of this process, for `current_job`."""

    context: Context


async def _await_value(value: Awaitable[Any]) -> Any:
    """Await any awaitable object, in a coroutine, because asyncio.run accepts nothing else."""
    return await value


def _import_task(request: RunRequest) -> Task[..., Any, Any]:
    """Import the module of a request, and return the task with the name of its function."""
    _django.set_up()  # before the import, because the module may import models
    found: Any = importlib.import_module(request.module)
    for name in request.function.split("."):
        found = getattr(found, name)
    task: Task[..., Any, Any] = found
    return task


def _to_run_report(request: RunRequest, update: RunUpdate) -> RunReport:
    """Return the message to the worker for progress or a log line that a handler reports."""
    match update:
        case Progress(value=value):
            return RunReport(request.number, progress=value)
        case LogLine(line=line, keep=keep):
            return RunReport(request.number, log=line, keep=keep)
