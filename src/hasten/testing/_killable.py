"""Let the worker of a job die at a point of the handler, without executing any more of it.

A coroutine is driven step by step. To die means not to take the next step: the coroutine stays
where it is, and none of its `except` and `finally` blocks are executed. The asyncio tasks that a
handler has started are driven in the same way. A thread is stopped at a checkpoint.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import linecache
import threading
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from types import CodeType
from typing import Any, Final

from hasten.testing._checkpoints import Checkpoint, add_checkpoints

plan_of_handler: Final[ContextVar[CrashPlan | None]] = ContextVar("hasten_crash_plan", default=None)
"""The plan of the handler that runs here, None outside of handlers."""

_NOT_APPLICATION: Final = (str(Path(__file__).parents[1]), str(Path(asyncio.__file__).parent))


class Dropped(BaseException):
    """Raised in the thread of a handler whose worker has died, after the last try."""


class CrashPlan:
    """Counts the points of one run of a handler, and lets its worker die at one of them.

    crash_at is the number of the point, from 0; None for a run without a crash. Points may be
    reached in several threads.
    """

    def __init__(self, crash_at: int | None) -> None:
        self.points: list[str] = []
        self.dead: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_dead = False
        self._crash_at = crash_at
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._stopped: list[Coroutine[Any, Any, Any]] = []
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._dropped = threading.Event()
        self._threads: list[threading.Thread] = []

    def reach(self, point: str) -> bool:
        """Record a point. Returns whether the worker is dead now, so that nothing may continue."""
        with self._lock:
            if self.is_dead:
                return True
            self.points.append(point)
            if len(self.points) - 1 != self._crash_at:
                return False
            self.is_dead = True
        self._loop.call_soon_threadsafe(self._report_death)
        return True

    def _report_death(self) -> None:
        if not self.dead.done():
            self.dead.set_result(None)

    async def wait_forever(self) -> None:
        """Wait until `drop` is called, which cancels the caller."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        with self._lock:
            self._waiting.append((loop, future))
        await future

    def reach_in_thread(self, code: CodeType, line: int) -> None:
        """Record a point of a handler without `async`.

        If the worker dies there, wait until `drop` is called, then raise `Dropped`.
        """
        if self.reach(f"after {describe_line(code, line)}"):
            self._dropped.wait()
            raise Dropped

    def keep(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Keep a coroutine that is not continued. If it were deleted, its code would continue."""
        self._stopped.append(coroutine)

    def add_thread(self, thread: threading.Thread) -> None:
        """Remember a thread, which `drop` waits for."""
        self._threads.append(thread)

    def make_task(
        self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Task[Any]:
        """Create an asyncio task of the handler."""
        task = asyncio.Task(_drive(coroutine, self), loop=loop, **options)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def drop(self) -> None:
        """End what has stopped. The handlers execute their `finally` blocks now."""
        self.is_dead = True
        self._dropped.set()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1)
        for loop, future in self._waiting:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(future.cancel)
        for coroutine in self._stopped:
            with contextlib.suppress(BaseException):
                coroutine.close()
        for thread in self._threads:
            await asyncio.to_thread(thread.join, 1)


class Killable:
    """Drives a coroutine until its end, or until the worker dies according to the plan."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], plan: CrashPlan) -> None:
        self._coroutine = coroutine
        self._plan = plan
        self._code: CodeType | None = getattr(coroutine, "cr_code", None)

    def __await__(self) -> Generator[Any, Any, Any]:
        value: Any = None
        error: BaseException | None = None
        while True:
            if self._plan.is_dead:
                yield from self._die()
            try:
                if error is None:
                    step = self._coroutine.send(value)
                else:
                    step = self._coroutine.throw(error)
            except StopIteration as end:
                return end.value
            value, error = None, None
            if isinstance(step, Checkpoint):
                if self._plan.reach(f"after {self._describe_line(step.line)}"):
                    yield from self._die()
                continue
            line = self._current_line()
            try:
                value = yield step
            except BaseException as exc:  # noqa: BLE001  # passed on to the coroutine
                error = exc
            if line is not None and self._plan.reach(
                f"while waiting in {self._describe_line(line)}"
            ):
                yield from self._die()

    def _die(self) -> Generator[Any, Any, None]:
        self._plan.keep(self._coroutine)
        yield from self._plan.wait_forever().__await__()

    def _current_line(self) -> int | None:
        """Return the line at which the coroutine waits, None if its code is hasten's."""
        frame = getattr(self._coroutine, "cr_frame", None)
        if self._code is None or frame is None:
            return None
        return None if self._code.co_filename.startswith(_NOT_APPLICATION) else frame.f_lineno

    def _describe_line(self, line: int) -> str:
        return describe_line(self._code, line)


def describe_line(code: CodeType | None, line: int) -> str:
    """Return a line with its text: "`await charge(order)` (tasks.py:41)"."""
    if code is None:
        return f"line {line}"
    text = linecache.getline(code.co_filename, line).strip() or code.co_name
    return f"`{text}` ({Path(code.co_filename).name}:{line})"


async def _drive(coroutine: Coroutine[Any, Any, Any], plan: CrashPlan) -> Any:
    return await Killable(coroutine, plan)


def make_killable(function: Callable[..., Any], plan: CrashPlan, *, is_async: bool) -> Any:
    """Return an async function that runs a handler according to a plan."""
    inner = add_checkpoints(function, plan.reach_in_thread)

    async def run(*args: Any, **kwargs: Any) -> Any:
        token = plan_of_handler.set(plan)
        try:
            if is_async:
                result = await Killable(inner(*args, **kwargs), plan)
            else:
                result = await _run_in_own_thread(partial(inner, *args, **kwargs), plan)
                if inspect.iscoroutine(result):
                    result = await Killable(result, plan)
        except Exception:
            if plan.reach("after the handler has raised, before that is stored"):
                await plan.wait_forever()
            raise
        finally:
            plan_of_handler.reset(token)
        if plan.reach("after the handler has returned, before its result is stored"):
            await plan.wait_forever()
        return result

    return run


async def _run_in_own_thread(call: partial[Any], plan: CrashPlan) -> Any:
    """Run a handler in a thread that can stop for ever."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()

    def run() -> None:
        result: Any = None
        error: BaseException | None = None
        try:
            result = call()
        except BaseException as exc:  # noqa: BLE001  # delivered
            error = exc
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(_deliver, done, (result, error))

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(run,), daemon=True, name="hasten crash")
    plan.add_thread(thread)
    thread.start()
    result, error = await done
    if error is not None:
        raise error
    return result


def _deliver(
    done: asyncio.Future[tuple[Any, BaseException | None]],
    outcome: tuple[Any, BaseException | None],
) -> None:
    if not done.done():
        done.set_result(outcome)


@contextlib.contextmanager
def tasks_die_with_handler() -> Iterator[None]:
    """Let the asyncio tasks that a handler starts die with its worker."""
    loop = asyncio.get_running_loop()
    previous = loop.get_task_factory()

    def make_task(
        loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any
    ) -> asyncio.Future[Any]:
        context = options.get("context")
        plan = plan_of_handler.get() if context is None else context.get(plan_of_handler)
        if plan is not None and inspect.iscoroutine(coroutine):
            return plan.make_task(loop, coroutine, **options)
        if previous is None:
            return asyncio.Task(coroutine, loop=loop, **options)
        return previous(loop, coroutine, **options)

    loop.set_task_factory(make_task)
    try:
        yield
    finally:
        loop.set_task_factory(previous)
