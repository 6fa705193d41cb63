"""The code of a child process for handlers: it runs one job after the other.

It imports the module of a task and finds the task there, so only JSON and names are sent to it.

It leads a session of its own. So the worker can kill it together with all processes that its
handlers have started, and Ctrl+C in the worker's terminal does not reach it. When the worker's end
of the pipe closes, the child kills its process group.
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

from hasten import _django
from hasten._logs import format_traceback
from hasten.errors import UsageError
from hasten.jobs import _failures as failures
from hasten.jobs._arguments import encode_result
from hasten.jobs._context import Context
from hasten.jobs._current import running_job
from hasten.jobs._failures import Failure
from hasten.jobs._middleware import Carry, Middleware
from hasten.jobs._options import decode_options
from hasten.jobs._record import JobRecord, LogLine, Progress, RunUpdate
from hasten.jobs._stop_signals import STOP_SIGNALS
from hasten.jobs._task_definition import TaskDefinition
from hasten.jobs._tasks import Task
from hasten.jobs._tracing import active_spans

CONNECTION_LOST: Final = 213  # exit code after a handler has closed the pipe to the worker


class Order(msgspec.Struct):
    """To the child: run this job."""

    number: int  # unique among the orders of one worker's process
    module: str
    function: str
    job: JobRecord
    max_bytes: int
    trace_context: str | None = None


class Started(msgspec.Struct, tag=True):
    """From the child: it has received an order and starts."""


class Reported(msgspec.Struct, tag=True):
    """From the child while it runs a job: progress or a log line."""

    order: int
    progress: str | None = None
    log: str | None = None
    keep: int = 0


class Returned(msgspec.Struct, tag=True):
    """From the child: the result, JSON."""

    result: str


class Raised(msgspec.Struct, tag=True):
    """From the child: the run failed."""

    failure: Failure


Message = Started | Reported | Returned | Raised

encode: Final = msgspec.json.Encoder().encode
decode_message: Final = msgspec.json.Decoder(Message).decode
_decode_order: Final = msgspec.json.Decoder(Order).decode


def serve(pipe: Connection) -> None:
    """Run jobs until the worker closes the pipe or has ended."""
    upstream = _Upstream(pipe)
    try:
        _lead_group()
        _ignore_stop_signals()
        if sys.platform != "win32":
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # blocked by the worker
        orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
        threading.Thread(target=_receive, args=(pipe, orders), daemon=True).start()
        while True:
            order = orders.get()
            _ignore_stop_signals()
            upstream.send(Started())
            _django.close_old_connections()
            message = _run(order, upstream)
            if upstream.is_forked:
                return  # this is a fork that the handler has made: it ends like a program
            _django.close_old_connections()
            upstream.send(message)
    except BaseException as error:
        if upstream.is_forked:
            raise
        with contextlib.suppress(Exception):  # a handler may have closed it
            print(format_traceback(error), file=sys.stderr)  # noqa: T201
        os._exit(1)  # at once: threads that handlers have left running would delay the exit


class _Upstream:
    """Sends messages to the worker, whole and in order, from any thread."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._identity = _identity(pipe)
        self._unsent: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._writing = threading.Lock()
        self.is_forked = False
        if sys.platform != "win32":
            os.set_inheritable(pipe.fileno(), False)
            self._masks = threading.local()
            os.register_at_fork(
                before=self._before_fork,
                after_in_parent=self._after_fork,
                after_in_child=self._after_being_forked,
            )

    def send(self, message: Message) -> None:
        if self.is_forked:
            raise UsageError(
                "a process that a handler has forked cannot report progress or log lines: report "
                "them in the process of the handler"
            )
        self._unsent.put(encode(message))
        # No thread waits for the lock: its holder checks for new messages after releasing it.
        # A signal handler may send while the code that it has interrupted is sending.
        while not self._unsent.empty() and self._writing.acquire(blocking=False):
            try:
                while not self._unsent.empty():
                    self._write(self._unsent.get())
            finally:
                self._writing.release()

    def _write(self, data: bytes) -> None:
        try:
            if _identity(self._pipe) != self._identity:
                os._exit(CONNECTION_LOST)  # the handler has opened another file under its number
            self._pipe.send_bytes(data)
        except (BrokenPipeError, ConnectionResetError):
            _end_group()
        except BaseException:  # noqa: BLE001  # half a message may be written: no other can follow
            os._exit(CONNECTION_LOST)

    # A fork closes the pipe, because its copy would hide that the child has ended, and restores the
    # default signal handlers. Until then signals are blocked in it: a pool sends SIGTERM to
    # processes that it has just started, and waits for their end.

    def _before_fork(self) -> None:
        self._masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)

    def _after_fork(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._masks.before)

    def _after_being_forked(self) -> None:
        self.is_forked = True
        self._pipe.close()
        if signal.getsignal(signal.SIGTERM) is _ignore:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if signal.getsignal(signal.SIGINT) is _ignore:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            self._after_fork()
        except KeyboardInterrupt:  # blocked until now; Python would drop it here
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)


def _identity(pipe: Connection) -> tuple[int, int] | None:
    if sys.platform == "win32":
        return None  # not a file descriptor, which a handler could close by accident
    status = os.fstat(pipe.fileno())
    return status.st_dev, status.st_ino


def _lead_group() -> None:
    """Start a session and a process group, which ends with the worker."""
    if sys.platform == "win32":
        return
    os.setsid()
    parent = multiprocessing.parent_process()
    if sys.platform == "linux" and parent is not None:
        import fcntl  # noqa: PLC0415  # Windows has none

        # The thread that watches the pipe cannot run while a handler holds the interpreter's lock
        # in a long call in C. So the kernel also kills the group when the other end of this pipe
        # closes, which is the only event on it.
        with contextlib.suppress(OSError):
            fcntl.fcntl(parent.sentinel, fcntl.F_SETOWN, -os.getpid())
            fcntl.fcntl(parent.sentinel, fcntl.F_SETSIG, signal.SIGKILL)
            flags = fcntl.fcntl(parent.sentinel, fcntl.F_GETFL)
            fcntl.fcntl(parent.sentinel, fcntl.F_SETFL, flags | fcntl.FASYNC)


def _end_group() -> NoReturn:
    """End this process and all processes that its handlers have started."""
    if sys.platform != "win32":
        with contextlib.suppress(ProcessLookupError):
            os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


def _ignore_stop_signals() -> None:
    """Ignore SIGTERM and SIGINT. Called before each job: a handler may have changed that.

    They may be sent to every process of a program; the worker decides when this one stops.
    """
    # By a handler, not by SIG_IGN: programs that a job starts would inherit SIG_IGN.
    for number in STOP_SIGNALS:
        if signal.getsignal(number) is not _ignore:
            signal.signal(number, _ignore)
            if sys.platform != "win32":
                # Not every library in C repeats a call that a signal has interrupted.
                signal.siginterrupt(number, False)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    pass


def _receive(pipe: Connection, orders: queue.SimpleQueue[Order]) -> None:
    # In a thread of its own, it notices the end of the worker even while a handler runs.
    try:
        while True:
            orders.put(_decode_order(pipe.recv_bytes()))
    finally:
        _end_group()


def _run(order: Order, upstream: _Upstream) -> Returned | Raised:
    job = order.job
    task: TaskDefinition | None = None
    context = Context(
        job, lambda update: upstream.send(_report(order, update)), max_bytes=order.max_bytes
    )
    try:
        found = _find(order)
        task = found.definition
        try:
            args, kwargs = task.parameters.decode(job.data, context)
        except ValueError as exc:
            return Raised(Failure(str(exc), "", final=True))
        # Context variables that a handler sets must not be visible to the next one.
        call = partial(task.function, *args, **kwargs)
        value = contextvars.copy_context().run(
            _call, call, context, found.middlewares, order.trace_context
        )
        return Returned(encode_result(value, order.max_bytes))
    except BaseException as error:
        if upstream.is_forked:
            raise
        return Raised(_classify(error, job, task))
    finally:
        context.close()


def _classify(error: BaseException, job: JobRecord, task: TaskDefinition | None) -> Failure:
    try:
        return failures.classify(
            error,
            attempt=job.attempts_made + 1,
            give_up_on=task.give_up_on if task else (),
            backoff_function=task.backoff_function if task else None,
        )
    except BaseException as exc:  # noqa: BLE001  # the error's own methods may raise
        return Failure(
            f"{type(error).__name__} (its text is not available: {type(exc).__name__})", ""
        )


def _call(
    call: Callable[[], Any],
    context: Context,
    middlewares: Sequence[Middleware],
    trace_context: str | None,
) -> Any:
    """Call the handler, with the context variables that its job carries."""
    running_job.set(_Running(context))
    carriers = [each for each in middlewares if isinstance(each, Carry)]
    metadata = (decode_options(context.job.opts).metadata if carriers else None) or {}
    with contextlib.ExitStack() as stack:
        for carrier in carriers:
            stack.enter_context(carrier.restored(metadata))
        if trace_context is not None and (spans := active_spans()) is not None:
            stack.enter_context(spans.attached(trace_context))
        value = call()
        return asyncio.run(_wait_for(value)) if inspect.isawaitable(value) else value


@dataclass(frozen=True, slots=True)
class _Running:
    context: Context


async def _wait_for(value: Awaitable[Any]) -> Any:
    return await value


def _find(order: Order) -> Task[..., Any, Any]:
    """Find the task by the module and the name of its function."""
    _django.set_up()  # before importing a module that imports models
    found: Any = importlib.import_module(order.module)
    for name in order.function.split("."):
        found = getattr(found, name)
    task: Task[..., Any, Any] = found
    return task


def _report(order: Order, update: RunUpdate) -> Reported:
    match update:
        case Progress(value=value):
            return Reported(order.number, progress=value)
        case LogLine(line=line, keep=keep):
            return Reported(order.number, log=line, keep=keep)
