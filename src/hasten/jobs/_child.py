"""A process for handlers, as it is from inside: it carries out one order after the other.

It imports the module of a task and finds the task there, so nothing but JSON and names travels.

It is the first process of a session of its own. So the worker can kill it together with whatever
its handlers have started, and Ctrl+C in the worker's terminal does not reach it. When the worker's
end of the pipe closes, it kills that group itself.
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
from collections.abc import Awaitable
from multiprocessing.connection import Connection
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, NoReturn

import msgspec

from hasten import _django
from hasten._logs import format_traceback
from hasten.errors import UsageError
from hasten.jobs import _failures as failures
from hasten.jobs._arguments import encode_result
from hasten.jobs._context import Context
from hasten.jobs._failures import Failure
from hasten.jobs._record import JobRecord, LogLine, Progress, RunUpdate

if TYPE_CHECKING:
    from hasten.jobs._task_definition import TaskDefinition

# Ctrl+C and a service manager's SIGTERM may go to every process; the worker decides for this one.
STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

CONNECTION_LOST: Final = 213  # exit code: a handler has closed the pipe to the worker


class Order(msgspec.Struct):
    """To the child: run this."""

    number: int  # unique among the orders of one worker's process
    module: str
    function: str
    job: JobRecord
    max_bytes: int


class Begun(msgspec.Struct, tag=True):
    """From the child, before it does anything for an order."""


class Said(msgspec.Struct, tag=True):
    """From the child, while it runs: progress or a log line."""

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


Message = Begun | Said | Returned | Raised

encode: Final = msgspec.json.Encoder().encode
decode_message: Final = msgspec.json.Decoder(Message).decode
_decode_order: Final = msgspec.json.Decoder(Order).decode


def serve(pipe: Connection) -> None:
    """Carry out orders until the worker closes the pipe or is gone."""
    upstream = _Upstream(pipe)
    try:
        _lead_group()
        _ignore_stop_signals()
        if sys.platform != "win32":
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # the worker has blocked them
        orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
        threading.Thread(target=_receive, args=(pipe, orders), daemon=True).start()
        while True:
            order = orders.get()
            _ignore_stop_signals()
            upstream.send(Begun())
            _django.close_old_connections()
            answer = _carry_out(order, upstream)
            if upstream.is_forked:
                return  # the handler has forked, and this is the fork: it ends as a program does
            _django.close_old_connections()
            upstream.send(answer)
    except BaseException as error:
        if upstream.is_forked:
            raise
        with contextlib.suppress(Exception):  # a handler may have closed it
            print(format_traceback(error), file=sys.stderr)  # noqa: T201
        os._exit(1)  # at once: threads that handlers have left behind would delay an exit


class _Upstream:
    """The way to the worker. Messages arrive whole and in order, whichever thread sends them."""

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
                "progress and log lines of a job must come from the process that runs its "
                "handler, not from one that the handler has forked"
            )
        self._unsent.put(encode(message))
        # Nobody waits for the lock: whoever holds it looks again after releasing it. A handler
        # for a signal may send while the code that it has interrupted is sending.
        while not self._unsent.empty() and self._writing.acquire(blocking=False):
            try:
                while not self._unsent.empty():
                    self._write(self._unsent.get())
            finally:
                self._writing.release()

    def _write(self, data: bytes) -> None:
        try:
            if _identity(self._pipe) != self._identity:
                os._exit(CONNECTION_LOST)  # the handler has opened something else in its place
            self._pipe.send_bytes(data)
        except (BrokenPipeError, ConnectionResetError):
            _end_group()
        except BaseException:  # noqa: BLE001  # half of it may be written: nothing can follow that
            os._exit(CONNECTION_LOST)

    # A fork gives up the pipe, whose end would not be seen otherwise, and our handlers for signals.
    # Until it has done that, signals to it are kept back: a pool ends the processes that it has
    # just started by SIGTERM, and waits for them.

    def _before_fork(self) -> None:
        self._masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)

    def _after_fork(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._masks.before)

    def _after_being_forked(self) -> None:
        self.is_forked = True
        self._pipe.close()
        if signal.getsignal(signal.SIGTERM) is _take_no_notice:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if signal.getsignal(signal.SIGINT) is _take_no_notice:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            self._after_fork()
        except KeyboardInterrupt:  # kept back until now; Python would drop it here
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)


def _identity(pipe: Connection) -> tuple[int, int] | None:
    if sys.platform == "win32":
        return None  # not a file descriptor: a handler does not close it by accident
    status = os.fstat(pipe.fileno())
    return status.st_dev, status.st_ino


def _lead_group() -> None:
    """Begin a session and a process group, which ends with the worker."""
    if sys.platform == "win32":
        return
    os.setsid()
    parent = multiprocessing.parent_process()
    if sys.platform == "linux" and parent is not None:
        import fcntl  # noqa: PLC0415  # Windows has none

        # Our thread that watches the pipe cannot run while a handler keeps the interpreter's lock
        # in a long call in C. So the kernel kills the group, too, when the other end of this one
        # closes: nothing but that ever happens to it.
        with contextlib.suppress(OSError):
            fcntl.fcntl(parent.sentinel, fcntl.F_SETOWN, -os.getpid())
            fcntl.fcntl(parent.sentinel, fcntl.F_SETSIG, signal.SIGKILL)
            flags = fcntl.fcntl(parent.sentinel, fcntl.F_GETFL)
            fcntl.fcntl(parent.sentinel, fcntl.F_SETFL, flags | fcntl.FASYNC)


def _end_group() -> NoReturn:
    """End this process and all that its handlers have started."""
    if sys.platform != "win32":
        with contextlib.suppress(ProcessLookupError):
            os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


def _ignore_stop_signals() -> None:
    """Ignore SIGTERM and SIGINT. Called before each job: a handler may have changed that."""
    # By a handler, not by SIG_IGN: that one would be inherited by programs that a handler starts.
    for number in STOP_SIGNALS:
        if signal.getsignal(number) is not _take_no_notice:
            signal.signal(number, _take_no_notice)
            if sys.platform != "win32":
                # Not every library in C repeats a call that a signal has cut short.
                signal.siginterrupt(number, False)


def _take_no_notice(_number: int, _frame: FrameType | None) -> None:
    pass


def _receive(pipe: Connection, orders: queue.SimpleQueue[Order]) -> None:
    # In a thread of its own: it sees the worker's end even while a handler runs.
    try:
        while True:
            orders.put(_decode_order(pipe.recv_bytes()))
    finally:
        _end_group()


def _carry_out(order: Order, upstream: _Upstream) -> Returned | Raised:
    job = order.job
    core: TaskDefinition | None = None
    context = Context(
        job, lambda note: upstream.send(_said(order, note)), max_bytes=order.max_bytes
    )
    try:
        core = _find(order)
        try:
            args, kwargs = core.parameters.decode(job.data, context)
        except ValueError as exc:
            return Raised(Failure(str(exc), "", final=True))
        # What a handler sets in its context must not be there for the next one.
        value = contextvars.copy_context().run(core.function, *args, **kwargs)
        if inspect.isawaitable(value):
            value = asyncio.run(_wait_for(value))
        return Returned(encode_result(value, order.max_bytes))
    except BaseException as error:
        if upstream.is_forked:
            raise
        return Raised(_describe(error, job, core))
    finally:
        context.close()


def _describe(error: BaseException, job: JobRecord, core: TaskDefinition | None) -> Failure:
    try:
        return failures.describe(
            error,
            attempt=job.attempts_made + 1,
            give_up_on=core.give_up_on if core else (),
            backoff_function=core.backoff_function if core else None,
        )
    except BaseException as exc:  # noqa: BLE001  # from the error's own methods, say
        return Failure(
            f"{type(error).__name__} (and describing it failed: {type(exc).__name__})", ""
        )


async def _wait_for(value: Awaitable[Any]) -> Any:
    return await value


def _find(order: Order) -> TaskDefinition:
    """The task, in this process. Its module's name for it stands for the decorated function."""
    _django.set_up()  # before a module that imports models
    found: Any = importlib.import_module(order.module)
    for name in order.function.split("."):
        found = getattr(found, name)
    core: TaskDefinition = found.definition
    return core


def _said(order: Order, note: RunUpdate) -> Said:
    match note:
        case Progress(value=value):
            return Said(order.number, progress=value)
        case LogLine(line=line, keep=keep):
            return Said(order.number, log=line, keep=keep)
