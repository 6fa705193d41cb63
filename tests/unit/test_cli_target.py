"""Which queues `module:queue` on the command line names, and the errors if there is none."""

from __future__ import annotations

import queue
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hasten._cli.supervisor import LAST_PAUSE_SECONDS, describe_exit, next_restart_pause
from hasten._cli.target import load_queue, load_queues
from hasten.errors import TargetError

SHOP = """
from hasten.jobs import Queue

class inner:
    deep = Queue("deep")

mail = Queue("mail")
also_mail = mail
reports = Queue("reports")
number = 7

@mail.task
async def send() -> None: ...
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with modules in it."""
    files = {
        "shop.py": SHOP,
        "empty.py": "",
        "needs.py": "import nothing_like_this",
        "breaks.py": "def deep():\n    raise LookupError('no setting')\n\ndeep()",
        "exits.py": "import sys\nsys.exit('not configured')",
        "pack/__init__.py": "",
        "pack/tasks.py": "from hasten.jobs import Queue\nqueue = Queue('packed')",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        del sys.modules[name]


def names(*targets: str) -> list[str]:
    return [queue.name for queue in load_queues(targets)]


class TestLoad:
    @pytest.mark.parametrize(
        ("targets", "expected"),
        [
            (["shop:mail"], ["mail"]),
            (["shop:inner.deep"], ["deep"]),
            (["pack.tasks:queue"], ["packed"]),
            (["shop:reports", "pack.tasks:queue"], ["reports", "packed"]),
        ],
    )
    def test_finds_the_named_queues_in_order(self, targets: list[str], expected: list[str]) -> None:
        assert names(*targets) == expected

    def test_a_module_means_all_queues_at_its_top_level(self) -> None:
        assert names("shop") == ["mail", "reports"]

    def test_a_queue_comes_once_however_often_it_is_named(self) -> None:
        assert names("shop:mail", "shop:also_mail", "shop") == ["mail", "reports"]

    def test_installed_modules_come_before_those_of_the_folder(self, folder: Path) -> None:
        """Other users may be able to write to the folder."""
        load_queues(["shop:mail"])
        assert sys.path[-1] == str(folder)


class TestOneQueue:
    def test_is_the_named_queue(self) -> None:
        assert load_queue("pack.tasks").name == "packed"

    def test_several_queues_are_an_error(self) -> None:
        with pytest.raises(TargetError) as caught:
            load_queue("shop")
        assert str(caught.value) == "shop has 2 queues: name one of shop:mail, shop:reports"


class TestMessages:
    def said(self, target: str) -> str:
        with pytest.raises(TargetError) as caught:
            load_queues([target])
        return str(caught.value)

    @pytest.mark.parametrize(
        ("target", "missing"), [("nope:mail", "nope"), ("nope.a.b", "nope"), ("pack.x", "pack.x")]
    )
    def test_no_such_module(self, target: str, missing: str, folder: Path) -> None:
        """The error names the missing module and the search path, and shows no traceback."""
        assert self.said(target) == (
            f"no module named {missing!r} in {folder} or on Python's search path"
        )

    def test_a_module_that_lacks_another_shows_which_and_where(self) -> None:
        said = self.said("needs:mail")
        assert said.startswith("module 'needs' could not be imported:\n\nTraceback")
        assert 'needs.py", line 1, in <module>' in said
        assert said.endswith("ModuleNotFoundError: No module named 'nothing_like_this'")

    def test_a_module_that_fails_shows_only_its_own_traceback(self) -> None:
        said = self.said("breaks:mail")
        assert 'breaks.py", line 2, in deep' in said
        assert said.endswith("LookupError: no setting")
        assert "importlib" not in said
        assert "target.py" not in said

    def test_a_module_that_exits_is_reported_like_one_that_fails(self) -> None:
        assert self.said("exits:mail").endswith("SystemExit: not configured")

    def test_no_such_attribute_lists_the_queues_there_are(self) -> None:
        assert self.said("shop:mial") == (
            "module 'shop' has no 'mial'; its queues are shop:mail, shop:reports"
        )

    def test_no_such_attribute_where_there_are_no_queues(self) -> None:
        assert self.said("empty:mail") == (
            "module 'empty' has no 'mail'; it has no queues at module level"
        )

    @pytest.mark.parametrize(
        ("target", "kind"), [("shop:send", "a Task"), ("shop:number", "of type int")]
    )
    def test_the_error_for_another_object_names_its_type(self, target: str, kind: str) -> None:
        assert self.said(target) == (
            f"{target} is {kind}, not a Queue; its queues are shop:mail, shop:reports"
        )

    def test_a_module_without_queues(self) -> None:
        assert self.said("empty") == "module 'empty' has no Queue at module level"

    def test_a_module_of_the_same_name_elsewhere_shows_its_file(self, folder: Path) -> None:
        """Python's own module queue was imported before the file queue.py of the user."""
        (folder / "queue.py").write_text(SHOP, encoding="utf-8")
        assert self.said("queue:mail") == (
            f"module 'queue' ({queue.__file__}) has no 'mail'; it has no queues at module level"
        )

    @pytest.mark.parametrize(
        ("target", "instead"),
        [
            ("shop.py:mail", "shop:mail"),
            ("shop.py", "shop"),
            ("./pack/tasks.py:queue", "pack.tasks:queue"),
            ("pack/tasks", "pack.tasks"),
        ],
    )
    def test_the_error_for_a_file_names_the_module(self, target: str, instead: str) -> None:
        assert self.said(target) == f"{target} is the name of a file: write {instead}"

    @pytest.mark.parametrize("target", ["", ":mail", "shop mail", "a..b:mail", "1st:mail"])
    def test_a_name_that_cannot_be_a_module(self, target: str) -> None:
        assert self.said(target) == f"{target!r}: must have the form module:queue, such as app:mail"


class TestPausesBetweenProcesses:
    def test_grow_while_processes_end_soon(self) -> None:
        pauses = [0.0]
        for _ in range(9):
            pauses.append(next_restart_pause(0.1, pauses[-1]))
        assert pauses[1:4] == [0.5, 1.0, 2.0]
        assert pauses[-1] == LAST_PAUSE_SECONDS

    def test_start_small_after_a_long_run(self) -> None:
        assert next_restart_pause(3600, LAST_PAUSE_SECONDS) == 0.5


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (0, "ended with status 0"),
        (1, "ended with status 1"),
        (-9, "was killed by signal 9 (SIGKILL)"),
        (-250, "was killed by signal 250"),
    ],
)
def test_the_end_of_a_process_is_described(status: int, said: str) -> None:
    assert describe_exit(status) == said
