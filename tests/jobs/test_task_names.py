"""Two tasks of one name are refused, unless the second is a new version of the first."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hasten.errors import InvalidOption
from hasten.jobs import Queue
from tests.jobs.eventually import result_of
from tests.jobs.modules import Modules


@pytest.fixture
def queue() -> Queue:
    """A queue whose store is never opened."""
    return Queue("mail", "memory://")


SEND = """
@queue.task
def send(to: str) -> str:
    return "first"
"""


class TestTwoTasks:
    def test_are_named_with_places(self, queue: Queue, modules: Modules, tmp_path: Path) -> None:
        """Otherwise one would run the other's jobs."""
        mails = modules.load("names_mails", SEND)
        with pytest.raises(InvalidOption) as caught:
            modules.load("names_sms", "\n" + SEND)
        assert str(caught.value) == (
            "name='send': must be unique in queue 'mail', but "
            f"names_mails.send ({tmp_path / 'names_mails.py'}:3) already has this name: "
            f"give names_sms.send ({tmp_path / 'names_sms.py'}:4) another name with "
            "@queue.task(name=…)"
        )
        assert queue.tasks["send"] is mails.send.definition

    @pytest.mark.parametrize(
        "second",
        [
            SEND.replace("first", "second"),
            SEND.replace("(to: str)", "()"),
            "def other(): ...\nqueue.task(name='send')(other)",
            "queue.task(name='send')(lambda: None)",
        ],
    )
    def test_of_one_module_are_two(self, modules: Modules, second: str) -> None:
        """The second one is a copy whose name was not changed."""
        with pytest.raises(InvalidOption, match="already has this name"):
            modules.load("names_copy", SEND + second)

    @pytest.mark.parametrize(
        "maker",
        [
            "def job(): return number",
            "def job(number: int = number): return number",
            "def job(*, number: int = number): return number",
            "async def job(): return number",
            "job = lambda: number",
            "job = partial(double, number)",
            "job = partial(double, number=number)",
            "job = Double(number)",
            "job = Double(number).call",
            "job = twice(number)(double)",
        ],
    )
    def test_of_one_factory_are_two(self, modules: Modules, maker: str) -> None:
        """Their code is the same, but the captured variables differ."""
        with pytest.raises(InvalidOption, match=r"give .* another name"):
            modules.load("names_factory", FACTORY.format(maker=maker, numbers=(1, 2)))

    def test_of_one_decorator_without_wraps_are_two(self, modules: Modules) -> None:
        """Both are named `wrapper`, and the message says that the same code made them."""
        code = """
        def loud(function):
            def wrapper() -> None: return function()
            return wrapper

        @queue.task
        @loud
        def first() -> None: ...

        @queue.task
        @loud
        def second() -> None: ...
        """
        with pytest.raises(InvalidOption, match="the same code made two tasks"):
            modules.load("names_loud", code)

    def test_of_two_queue_objects_have_nothing_to_do_with_each_other(self, queue: Queue) -> None:
        other = Queue("mail", "memory://")

        @queue.task(name="send")
        def one() -> None: ...

        @other.task(name="send")
        def two() -> None: ...

        assert (queue.tasks["send"].function, other.tasks["send"].function) != (two, one)


FACTORY = """
from functools import partial, wraps

def double(number: int = 1) -> int: return 2 * number

class Double:
    def __init__(self, number): self.number = number
    def __call__(self) -> int: return 2 * self.number
    def call(self) -> int: return 2 * self.number

def twice(times):
    def decorate(function):
        @wraps(function)
        def wrapper(number: int = 1): return function(number) * times
        return wrapper
    return decorate

def make(number):
    {maker}
    return queue.task(name="job")(job)

tasks = [make(number) for number in {numbers}]
"""


class TestOneTask:
    @pytest.mark.parametrize("name", ["send", "sent"])
    def test_may_be_declared_twice(self, queue: Queue, name: str) -> None:
        def send() -> None: ...

        queue.task(name=name)(send)
        queue.task(name=name)(send)

    @pytest.mark.parametrize(
        "maker",
        [
            "def job(): return number",
            "def job(number: int = number): return number",
            "job = partial(double, number)",
            "job = double",
        ],
    )
    def test_may_come_from_a_factory_twice(self, modules: Modules, maker: str) -> None:
        """Each test may call an application factory, whose functions cannot be told apart."""
        modules.load("names_same", FACTORY.format(maker=maker, numbers=(1, 1)))

    @pytest.mark.parametrize("way", ["reload", "import"])
    @pytest.mark.parametrize(
        ("code", "changed"),
        [
            (SEND, SEND),
            (SEND, SEND.replace("first", "second")),
            (SEND, f"import os\n\n{SEND}"),
            (SEND, SEND.replace("@queue.task", "@queue.task(attempts=3)")),
            (FACTORY.format(maker="def job(): return number", numbers=(1,)), None),
            (FACTORY.format(maker="job = lambda: number", numbers=(1,)), None),
            (FACTORY.format(maker="job = partial(double, object())", numbers=(1,)), None),
            (FACTORY.format(maker="job = Double(number)", numbers=(1,)), None),
            (FACTORY.format(maker="job = Double(number).call", numbers=(1,)), None),
            (FACTORY.format(maker="job = twice(number)(double)", numbers=(1,)), None),
        ],
    )
    def test_is_replaced_by_its_next_version(
        self, queue: Queue, modules: Modules, code: str, changed: str | None, way: str
    ) -> None:
        """By importlib.reload, or by a reloader that imports the module again."""
        module = modules.load("names_again", code)
        ((name, before),) = queue.tasks.items()
        modules.write("names_again", f"from the_queue import queue\n{changed or code}")
        if way == "reload":
            importlib.reload(module)
        else:
            del sys.modules["names_again"]
            importlib.import_module("names_again")
        assert queue.tasks[name] is not before

    def test_of_a_library_is_replaced_by_a_reload(self, queue: Queue, modules: Modules) -> None:
        """The new object has the same class, which was not reloaded."""
        modules.write("names_library", "class Send:\n    def __call__(self) -> None: ...\n")
        code = "import names_library\nqueue.task(name='send')(names_library.Send())"
        module = modules.load("names_user", code)
        importlib.reload(module)
        with pytest.raises(InvalidOption):
            modules.load("names_other", code)

    def test_is_replaced_by_a_reloaded_helper(self, queue: Queue, modules: Modules) -> None:
        """The decorator is in a module that was not reloaded."""
        modules.load("names_helper", "def job(function): return queue.task(attempts=3)(function)")
        code = "from names_helper import job\n@job\ndef send() -> None: ..."
        module = modules.load("names_helped", code)
        importlib.reload(module)
        with pytest.raises(InvalidOption, match=r"names_helped\.send .* names_copied\.send"):
            modules.load("names_copied", code)

    def test_may_be_imported_as_main(self, queue: Queue, modules: Modules, tmp_path: Path) -> None:
        """`python app.py` is `__main__`, and its imports may import it again as `app`."""
        module = modules.load("names_app", SEND)
        code = compile((tmp_path / "names_app.py").read_text(), str(module.__file__), "exec")
        exec(code, {"__name__": "__main__", "__file__": module.__file__, "__spec__": None})
        assert queue.tasks["send"].function.__module__ == "__main__"

    def test_may_have_two_paths(self, queue: Queue, modules: Modules, tmp_path: Path) -> None:
        """`python /srv/current/app.py` names the link, and `import app` the file behind it."""
        modules.load("names_linked", SEND)
        link = tmp_path / "current"
        link.symlink_to(tmp_path)
        file = str(link / "names_linked.py")
        code = compile((link / "names_linked.py").read_text(), file, "exec")
        exec(code, {"__name__": "__main__", "__file__": file, "__spec__": None})
        assert queue.tasks["send"].function.__module__ == "__main__"

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            (SEND, SEND),
            (SEND, "\n\n" + SEND.replace("first", "second")),
            ("queue.task(name='f')(lambda: 1)", "queue.task(name='f')(lambda: 2)"),
            (
                "queue.task(name='f')(functools.partial(len, [1]))",
                "queue.task(name='f')(functools.partial(len, [2]))",
            ),
            ("queue.task(name='f')(Call())", "queue.task(name='f')(Call())"),
        ],
    )
    def test_may_be_redefined_in_a_notebook(self, queue: Queue, first: str, second: str) -> None:
        """A cell may be executed again or changed. Its code has another file name each time."""
        setup = "class Call:\n    def __call__(self) -> None: ..."
        namespace: dict[str, Any] = {"__name__": "__main__", "queue": queue, "functools": functools}
        for number, cell in enumerate((setup, first, second)):
            exec(compile(cell, f"/tmp/ipykernel_1/{number}.py", "exec"), namespace)
        assert len(queue.tasks) == 1

    def test_of_a_notebook_is_not_one_of_a_module(self, queue: Queue, modules: Modules) -> None:
        modules.load("names_module", SEND)
        namespace = {"__name__": "__main__", "queue": queue}
        with pytest.raises(InvalidOption, match=r"names_module\.send"):
            exec(compile(SEND, "<stdin>", "exec"), namespace)

    async def test_its_older_version_enqueues_jobs_for_the_newer_one(self) -> None:
        queue = Queue("versions", "memory://")
        namespace: dict[str, Any] = {"__name__": "__main__", "queue": queue}
        exec(compile(SEND, "<cell 1>", "exec"), namespace)
        older = namespace["send"]
        exec(compile(SEND.replace("first", "second"), "<cell 2>", "exec"), namespace)
        assert await result_of(queue, await older.enqueue("ada")) == "second"
        await queue.aclose()


def test_a_function_that_refers_to_itself_can_be_compared(queue: Queue) -> None:
    """Its closure contains the function itself."""

    def make() -> Callable[[int], int]:
        def count(number: int) -> int:
            return count(number - 1) if number else 0

        return count

    queue.task(name="count")(make())
    queue.task(name="count")(make())


def test_what_a_function_has_captured_may_be_anything(queue: Queue) -> None:
    """Equal values make equal functions, whatever their type."""

    def make(captured: object) -> Callable[[], str]:
        return lambda: str(captured)

    same = {1: "a", "b": 2}
    queue.task(name="show")(make(same))
    queue.task(name="show")(make(same))
    for other in ({1: "a", "b": 2}, [1], object()):
        with pytest.raises(InvalidOption, match="the same code made two tasks"):
            queue.task(name="show")(make(other))
