"""Which functions can be tasks, and which errors are found when a task is declared."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import msgspec
import pydantic
import pytest

from hasten.errors import InvalidOption, InvalidTask
from hasten.jobs import Context, Queue, State, Task, Worker
from tests.jobs import process_tasks
from tests.jobs.eventually import fails, result_of, until, until_state
from tests.jobs.modules import Modules


@dataclass
class Cat:
    lives: int


@dataclass
class Dog:
    bones: int


class Tagged(msgspec.Struct, tag=True):
    pass


class AlsoTagged(msgspec.Struct, tag=True):
    pass


class Model(pydantic.BaseModel):
    path: Path | None = None


@dataclass
class Owner:
    pet: Path


@dataclass
class Household:
    name: str
    log: Path | None = None


class Text(str):
    __slots__ = ()


def taking(annotation: Any, *default: object) -> Callable[..., Any]:
    async def take(value: Any) -> None: ...

    take.__annotations__ = {"value": annotation}
    take.__defaults__ = default or None
    return take


NESTED = """
from dataclasses import dataclass

@dataclass
class Early:
    later: "Later"

@queue.task
def send(early: Early) -> None: ...
"""


class TestAnnotations:
    @pytest.mark.parametrize(
        ("annotation", "why"),
        [
            (Cat | Dog, "Type unions may not contain more than one dataclass"),
            (list[Cat | Dog] | None, "Type unions may not contain more than one dataclass"),
            (str | Text, "Type unions containing a custom type"),
            (Iterable[int], "collections.abc.Iterable has no JSON form"),
            (Iterable, "collections.abc.Iterable has no JSON form"),
            (Callable[[], None], "collections.abc.Callable has no JSON form"),
            (Path, "Path has no JSON form"),
            (list[Path | None], "Path has no JSON form"),
            (dict[str, complex], "complex has no JSON form"),
            (type[Cat], "type has no JSON form"),
            (Owner, "Path has no JSON form"),
            (dict[tuple[int, int], str], "keys of this type cannot be stored"),
            (dict[bool, str], "keys of this type cannot be stored"),
            (Literal[1.5], "Literal may only contain"),
            (7, "Type '7' is not supported"),
        ],
    )
    @pytest.mark.parametrize("default", [(), (None,)])
    def test_that_json_cannot_be_decoded_to_are_refused_when_the_task_is_made(
        self, queue: Queue, annotation: Any, why: str, default: tuple[object, ...]
    ) -> None:
        """The error is raised once, not for each job in the worker."""
        with pytest.raises(InvalidTask) as caught:
            queue.task(taking(annotation, *default))
        assert str(caught.value).startswith(
            "task 'take': parameter 'value': data cannot be decoded to "
        )
        assert why in str(caught.value)
        assert "Use JSON's own types" in str(caught.value)
        assert queue.tasks == {}

    @pytest.mark.parametrize(
        "annotation",
        [
            Cat | None,
            Tagged | AlsoTagged,
            Model | None,
            list[Model],
            Household,
            object,
            Any,
            list,
            Annotated[int, []],
            dict[int | str, int],
        ],
    )
    def test_that_json_can_be_decoded_to_are_accepted(self, queue: Queue, annotation: Any) -> None:
        queue.task(taking(annotation)).definition.check_after_import()

    @pytest.mark.parametrize(
        "code",
        [
            "@queue.task\ndef send(later: 'Later') -> None: ...",
            "import sys\n@queue.task\ndef send(later: 'sys.modules[__name__].Later'): ...",
            NESTED,
        ],
        ids=["name", "attribute", "inside a record"],
    )
    def test_may_name_what_comes_below(self, queue: Queue, modules: Modules, code: str) -> None:
        """The annotations are checked on first use, or when a worker starts."""
        module: Any = modules.load("declaring_later", code)
        with pytest.raises(InvalidTask, match=r"^task 'send': .*cannot be resolved: .*Later"):
            queue.check_tasks()
        with pytest.raises(InvalidTask, match=r"^task 'send': .*cannot be resolved: .*Later"):
            module.send.sync.enqueue(1)
        module.Later = Cat
        queue.check_tasks()

    async def test_are_checked_when_a_worker_starts(self, queue: Queue, modules: Modules) -> None:
        """The worker starts only if all annotations are valid."""
        modules.load("declaring_never", "@queue.task\ndef send(x: 'Never') -> None: ...")
        job = await queue.add("other")
        with pytest.raises(InvalidTask, match=r"^task 'send': .*cannot be resolved: .*Never"):
            async with Worker(queue):
                pass
        assert (await job.refresh()).state is State.WAITING

    def test_that_are_resolved_later_are_checked_then(self, queue: Queue, modules: Modules) -> None:
        module: Any = modules.load("declaring_late", "@queue.task\ndef send(x: 'Late'): ...")
        module.Late = complex
        with pytest.raises(InvalidTask, match=r"^task 'send': .*complex has no JSON form"):
            queue.check_tasks()
        with pytest.raises(InvalidTask, match=r"^task 'send': .*complex has no JSON form"):
            module.send.sync.enqueue(1)


CONTEXTS: dict[str, Any] = {
    "plain": Context,
    "optional": Context | None,
    "typing.Optional": Optional[Context],  # noqa: UP045
    "Annotated": Annotated[Context, "of this run"],
    "Annotated optional": Annotated[Context | None, "of this run"],
    "optional Annotated": Annotated[Context, "of this run"] | None,
    "text": "Context | None",
}


class TestContext:
    @pytest.mark.parametrize("kind", CONTEXTS)
    @pytest.mark.parametrize(
        "place", ["ctx, to", "to, ctx=None", "to, *, ctx", "to, *, ctx=None", "ctx, /, to"]
    )
    async def test_is_given_however_annotated(self, memory: Queue, kind: str, place: str) -> None:
        """The context is not stored with the arguments, and callers do not pass it."""
        namespace: dict[str, Any] = {"Context": Context}
        exec(f"async def name({place}): return f'{{ctx.job.name}} {{to}}'", namespace)
        function = namespace["name"]
        function.__annotations__ = {"ctx": CONTEXTS[kind], "to": str}
        job = await memory.task(function).enqueue("ada")
        assert job.data == {"to": "ada"}
        assert await result_of(memory, job) == "name ada"

    def test_has_no_alternative_but_none(self, memory: Queue) -> None:
        with pytest.raises(InvalidTask, match=r"data cannot be decoded to .*Context \| int"):
            memory.task(taking(Context | int))


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that does not await what it returns, as in many libraries."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


class Greeter:
    def __init__(self, greeting: str) -> None:
        self.greeting = greeting
        self.definition = "an attribute that a task has, too"

    def __call__(self, name: str, ctx: Context | None = None) -> str:
        return "no context" if ctx is None else f"{self.greeting}, {name}"

    def greet(self, name: str) -> str:
        return f"{self.greeting}, {name}"


class AsyncGreeter(Greeter):
    async def __call__(self, name: str, ctx: Context | None = None) -> str:  # type: ignore[override]
        await asyncio.sleep(0)
        return super().__call__(name, ctx)

    async def greet(self, name: str) -> str:  # type: ignore[override]
        await asyncio.sleep(0)
        return super().greet(name)


async def greet(greeting: str, name: str) -> str:
    await asyncio.sleep(0)
    return f"{greeting}, {name}"


def greet_in_thread(greeting: str, name: str) -> str:
    return f"{greeting}, {name}"


def greet_with(client: Path, name: str, *, greeting: str = "Hi") -> str:
    return f"{greeting}, {name}" if client == Path() else "no client"


class Awaitable:
    def __init__(self, value: str) -> None:
        self._value = value

    def __await__(self) -> Generator[Any, None, str]:
        yield from asyncio.sleep(0).__await__()
        return self._value  # as awaitables do


def greet_later(name: str) -> Awaitable:
    return Awaitable(f"Hi, {name}")


FUNCTIONS: dict[str, tuple[Callable[..., Any], str]] = {
    "wrapper": (logged(functools.partial(greet, "Hi")), "thread"),
    "partial": (functools.partial(greet_in_thread, "Hi"), "thread"),
    "partial of a coroutine": (functools.partial(greet, "Hi"), "loop"),
    "partial of keywords": (functools.partial(greet, greeting="Hi"), "loop"),
    "partial of a client": (functools.partial(greet_with, client=Path()), "thread"),
    "partial of a partial": (functools.partial(functools.partial(greet), "Hi"), "loop"),
    "object": (Greeter("Hi"), "thread"),
    "async object": (AsyncGreeter("Hi"), "loop"),
    "partial of an object": (functools.partial(AsyncGreeter("Hi")), "loop"),
    "method": (Greeter("Hi").greet, "thread"),
    "async method": (AsyncGreeter("Hi").greet, "loop"),
    "awaitable": (greet_later, "thread"),
    "lambda": (lambda name: f"Hi, {name}", "thread"),
    "lambda of a coroutine": (lambda name: greet("Hi", name), "thread"),
}


class TestWhatCanBeATask:
    @pytest.mark.parametrize("kind", FUNCTIONS)
    async def test_is_all_that_can_be_called(self, memory: Queue, kind: str) -> None:
        """If it returns an awaitable, the worker awaits it."""
        function, where = FUNCTIONS[kind]
        task: Task[..., Any, Any] = memory.task(name="greet")(function)
        assert (task.name, task.definition.run_in) == ("greet", where)
        job = await task.enqueue(name="ada")
        assert job.data == {"name": "ada"}
        assert await result_of(memory, job) == "Hi, ada"

    async def test_is_a_task_of_another_queue_too(self, memory: Queue) -> None:
        other = Queue("other", "memory://")

        @other.task
        @memory.task
        async def both(number: int) -> int:
            return number

        assert await result_of(other, await both.enqueue(7)) == 7
        await other.aclose()

    async def test_a_coroutine_of_a_wrapper_ends_at_its_timeout(self, memory: Queue) -> None:
        """It is awaited in the event loop, where it can be cancelled."""
        ended: list[str] = []

        @memory.task(timeout=0.05)
        @logged
        async def hang() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("cancelled")

        await fails(result_of(memory, await hang.enqueue()), "JobTimeout")
        assert ended == ["cancelled"]

    async def test_a_coroutine_of_a_wrapper_is_not_begun_after_its_end(self, memory: Queue) -> None:
        """The job was cancelled while the wrapper ran."""
        began = threading.Event()
        go_on = threading.Event()
        ran: list[str] = []

        async def inner() -> None:
            ran.append("inner")

        @memory.task
        def wrapper() -> Coroutine[Any, Any, None]:
            began.set()
            with contextlib.suppress(BaseException):
                while not go_on.wait(0.01):
                    pass
            return inner()

        job = await wrapper.enqueue()
        async with Worker(memory):
            await until(began.is_set)
            await job.cancel()
            await until_state(job, State.FAILED)
            go_on.set()
        assert ran == []

    async def test_a_wrapper_runs_in_a_process(self) -> None:
        async with Worker(process_tasks.queue, handler_processes=1):
            for task in (process_tasks.wrapped, process_tasks.awaitable):
                assert await (await task.enqueue(21)).result(timeout=20) == 42
        await process_tasks.queue.aclose()

    @pytest.mark.parametrize(
        "function",
        [functools.partial(greet, "Hi"), Greeter("Hi"), functools.partial(Greeter("Hi"))],
    )
    def test_without_a_name_needs_one(self, queue: Queue, function: Callable[..., Any]) -> None:
        message = r"^name=None: must be given as @queue\.task\(name=…\), because "
        with pytest.raises(InvalidOption, match=message):
            queue.task(function)

    @pytest.mark.parametrize(
        ("given", "complaint"),
        [
            (staticmethod(greet), "a staticmethod object cannot be a task: write"),
            (classmethod(lambda cls: None), "a classmethod object cannot be a task"),
            (Greeter, "the class Greeter cannot be a task: use a function"),
            (functools.partialmethod(greet, "Hi"), "cannot be a task: it is not a function"),
            ("mails", "it is not a function. Write @queue.task(name=…) to set a name"),
            (7, "7 cannot be a task"),
            (None, "None cannot be a task"),
            (max, "task 'max': the parameters of <built-in function max> cannot be determined"),
            (map, "the class map cannot be a task"),
        ],
    )
    def test_is_nothing_else(self, queue: Queue, given: Any, complaint: str) -> None:
        with pytest.raises(InvalidTask) as caught:
            queue.task()(given)
        assert complaint in str(caught.value)

    async def test_the_parts_of_a_generator_are_none(self, queue: Queue) -> None:
        class Values:
            def __call__(self) -> Iterator[int]:
                yield 1

        async def values() -> AsyncIterator[int]:
            yield 1

        for given in (Values(), values):
            with pytest.raises(InvalidTask, match="task 'values': a generator cannot be a task"):
                queue.task(name="values")(given)

    @pytest.mark.parametrize(
        "function",
        [
            functools.partial(greet, "Hi"),
            Greeter("Hi"),
            Greeter("Hi").greet,
            lambda: None,
            taking(int),
        ],
    )
    def test_that_cannot_be_imported_cannot_run_in_a_process(
        self, queue: Queue, function: Callable[..., Any]
    ) -> None:
        with pytest.raises(
            InvalidOption,
            match="the child process imports the task 'f' by the name of its function",
        ):
            queue.task(name="f", run_in="process")(function)

    def test_that_has_another_name_in_its_module_runs_in_no_process(self, queue: Queue) -> None:
        """The check runs when a worker starts, because the module is complete then."""
        queue.task(run_in="process")(greet)
        with pytest.raises(InvalidOption, match=r"decorate .*test_declaring\.greet .* with"):
            queue.check_tasks()
        process_tasks.queue.check_tasks()


async def delay_later(attempt: int, error: BaseException) -> float:
    return 1.0


@pytest.mark.parametrize("backoff", [delay_later, lambda attempt: 1.0])
def test_a_back_off_function_of_another_kind_is_refused_when_it_is_given(backoff: Any) -> None:
    """Both options of a queue and options of a task are checked."""
    with pytest.raises(InvalidOption, match=r"^backoff=<function .*: must be a .*function"):
        Queue("mail", "memory://", backoff=backoff)
    with pytest.raises(InvalidOption, match=r"^backoff=<function .*: must be a .*function"):
        Queue("mail", "memory://").task(backoff=backoff)(greet_in_thread)
