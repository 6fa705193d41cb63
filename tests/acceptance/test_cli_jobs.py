"""`hasten jobs`: what it prints to a terminal and to programs, and what it does to jobs.

Most tests run the command in this process, which takes a hundredth of the time.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import pty
import re
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from hasten._cli import main
from hasten.jobs import Queue, State, Worker
from hasten.jobs._options import Options
from hasten.jobs._record import JobTemplate, NewJob
from tests.acceptance.commands import HASTEN, environment, run
from tests.patience import DEADLINE_SECONDS

APP: Final = """
from hasten.jobs import Queue

mail = Queue("mail")
other = Queue("other")

@mail.task(keep_failed=True)
async def fail() -> None:
    raise LookupError("[bold]no such address[/bold]")
"""

LONG_ID: Final = "0192f7c8-aaaa-7bbb-8ccc-012345678939"
HOSTILE: Final = "\x1b]52;c;ZXZpbA==\x07\x1b[2J\x9b31m\r\n\u202efake\tline"
ESCAPED: Final = r"\x1b]52;c;ZXZpbA==\x07\x1b[2J\x9b31m\r\n\u202efake\tline"
TIME: Final = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00"
WAITING: Final = ("list", "app:mail", "--state", "waiting")


class Done(NamedTuple):
    status: object
    out: str
    err: str


class Place:
    """A folder with `app.py` and its store, in which `hasten jobs` runs."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.folder = folder
        self.mail = Queue("mail", f"sqlite:///{folder}/hasten.db").sync
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def store(self, name: str, id: str, data: object = None) -> None:
        """Store a job as other programs do, which may choose any name and id."""

        async def add() -> None:
            mail = Queue("mail", f"sqlite:///{self.folder}/hasten.db")
            new = NewJob("mail", JobTemplate(name, "{}", Options()), json.dumps(data or {}), id)
            await mail.engine.add([new], now_ms=mail.clock.now_ms())
            await mail.aclose()

        asyncio.run(add())

    def jobs(self, *arguments: str, **variables: str) -> Done:
        for name, value in variables.items():
            self._monkeypatch.setenv(name, value)
        self._monkeypatch.setattr(sys, "argv", ["hasten", "jobs", *arguments])
        sys.modules.pop("app", None)
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = self._capsys.readouterr()
        match ended.value.code:
            case str(message):  # Python prints it and exits with status 1
                return Done(1, out, f"{err}{message}\n")
            case status:
                return Done(status, out, err)

    def on_terminal(self, *arguments: str, **variables: str) -> str:
        """Run it in a process with a terminal. Returns what the terminal shows."""
        ours, its = pty.openpty()
        process = subprocess.Popen(
            [*HASTEN, "jobs", *arguments],
            cwd=self.folder,
            env=environment(TERM="xterm", **variables),
            stdout=its,
            stderr=its,
        )
        os.close(its)
        shown = b""
        try:
            while part := os.read(ours, 65536):
                shown += part
        except OSError:
            pass  # Linux reports this when nothing holds the terminal any more
        os.close(ours)
        assert process.wait(DEADLINE_SECONDS) == 0
        return shown.decode()


@pytest.fixture
def place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Place]:
    (tmp_path / "app.py").write_text(APP, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delenv("HASTEN_URL", raising=False)
    place = Place(tmp_path, monkeypatch, capsys)
    yield place
    place.mail.close()
    sys.modules.pop("app", None)


def run_all(place: Place) -> None:
    """Run all waiting jobs in a worker of this process."""

    async def work() -> None:
        mail = importlib.import_module("app").mail
        async with Worker(mail, name="postman"):
            async with asyncio.timeout(DEADLINE_SECONDS):
                while (counts := await mail.counts())[State.WAITING] or counts[State.ACTIVE]:
                    await asyncio.sleep(0.01)  # another process gives no signal here, so poll
        await mail.aclose()

    asyncio.run(work())


def without_styles(shown: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", shown)


class TestForPrograms:
    """Output to a pipe, a file or a script."""

    def test_jobs_are_lines_of_fields_that_are_never_shortened(self, place: Place) -> None:
        """Without a terminal, its size in the environment is ignored."""
        long = "x" * 300
        place.mail.add("hold", {"to": long}, job_id=LONG_ID)
        place.mail.add("pid", {"to": "[bold]"})
        done = place.jobs(*WAITING, COLUMNS="30", FORCE_COLOR="1")
        newest, oldest = done.out.splitlines()
        assert re.fullmatch(rf'\d+\tpid\t0\t{TIME}\t{{"to":"\[bold\]"}}', newest)
        assert re.fullmatch(rf'{LONG_ID}\thold\t0\t{TIME}\t{{"to":"{long}"}}', oldest)

    def test_failed_jobs_show_their_reason(self, place: Place) -> None:
        job = place.mail.add("fail")
        run_all(place)
        (line,) = place.jobs("list", "app:mail").out.splitlines()
        id, task, attempts, _, reason = line.split("\t")
        assert (id, task, attempts) == (job.id, "fail", "1")
        assert reason == "LookupError: [bold]no such address[/bold]"

    def test_counts_are_a_line_for_each_queue_and_state(self, place: Place) -> None:
        place.mail.add_many([("pid", None)] * 1000)
        lines = place.jobs("counts", "app", COLUMNS="10").out.splitlines()
        assert len(lines) == 2 * len(State)
        assert lines[0] == "mail\twaiting\t1000"
        assert "other\twaiting-children\t0" in lines

    def test_why_is_a_line_with_a_code_and_a_sentence(self, place: Place) -> None:
        job = place.mail.add("fail")
        later = place.mail.add("fail", delay=600)
        done = place.jobs("why", "app:mail", job.id, later.id, "no such job", job.id)
        assert done.status == 1
        assert done.err == "no such job: no such job in queue mail\n"
        first, second = done.out.splitlines()
        assert first == (
            f"{job.id}\tno-worker\tJob {job.id} (fail) waits because no worker takes jobs of "
            "queue mail: start a worker."
        )
        assert second.startswith(f"{later.id}\tdelayed\tJob {later.id} (fail) is due at ")

    def test_json_of_why_has_the_facts(self, place: Place) -> None:
        job = place.mail.add("fail")
        run_all(place)
        done = place.jobs("why", "app:mail", job.id, "--json")
        assert done.status == 0
        (shown,) = json.loads(done.out)
        why = place.mail.why(job.id)
        assert shown == {
            "queue": "mail",
            "id": job.id,
            "task": "fail",
            "state": "failed",
            "code": "failed",
            "text": why.text,
            "until": None,
            "worker": None,
            "error": "LookupError: [bold]no such address[/bold]",
            "child": None,
            "child_queue": None,
            "ahead": None,
            "since": None,
        }
        later = place.mail.add("fail", delay=600)
        (shown,) = json.loads(place.jobs("why", "app:mail", later.id, "--json").out)
        assert later.due_at is not None
        assert shown["until"] == later.due_at.isoformat(timespec="milliseconds")

    def test_no_jobs_are_no_lines(self, place: Place) -> None:
        place.mail.add("pid")
        assert place.jobs("list", "app:mail") == (0, "", "")

    def test_json_has_the_attributes_of_a_job(self, place: Place) -> None:
        failed = place.mail.add("fail")
        delayed = place.mail.add("pid", {"seconds": 1.5}, delay=600, priority=7)
        run_all(place)
        failed.sync.refresh()
        (shown,) = json.loads(place.jobs("list", "app:mail", "--json").out)
        (later,) = json.loads(place.jobs("list", "app:mail", "--state=delayed", "--json").out)
        attributes = (
            "id name state data priority attempts_made progress value error tracebacks".split()
        )
        assert {name: shown[name] for name in attributes} == {
            name: getattr(failed, name) for name in attributes
        }
        assert (shown["queue"], shown["worker"], shown["due_at"]) == ("mail", "postman", None)
        assert failed.finished_at is not None
        assert shown["finished_at"] == failed.finished_at.isoformat(timespec="milliseconds")
        assert (later["id"], later["data"], later["priority"]) == (delayed.id, {"seconds": 1.5}, 7)
        assert later["due_at"] > later["created_at"]
        assert later["finished_at"] is None

    def test_json_of_counts(self, place: Place) -> None:
        place.mail.add("pid")
        shown = json.loads(place.jobs("counts", "app", "--json").out)
        assert [of_queue["queue"] for of_queue in shown] == ["mail", "other"]
        assert shown[0]["counts"] == {state: int(state == "waiting") for state in State}

    def test_json_of_no_jobs_is_an_empty_list(self, place: Place) -> None:
        place.mail.add("pid")
        assert place.jobs("list", "app:mail", "--json").out == "[]\n"

    def test_a_reader_that_leaves_early_is_no_error(self, place: Place) -> None:
        """`head -1` does that."""
        place.mail.add_many([("pid", {"to": "x" * 200})] * 2000)
        command = shlex.join([*HASTEN, "jobs", *WAITING, "--limit=2000"])
        done = run(place.folder, "-c", f"{command} | read line", program=["/bin/sh"])
        assert done.stderr == ""

    def test_what_the_encoding_lacks_is_escaped(self, place: Place) -> None:
        place.mail.add("pid", {"to": "→ 東京"})
        done = run(place.folder, "jobs", *WAITING, PYTHONIOENCODING="latin-1", PYTHONUTF8="0")
        assert done.returncode == 0
        assert r"\u2192 \u6771\u4eac" in done.stdout


class TestOnATerminal:
    @pytest.mark.parametrize("width", [30, 60])
    def test_ids_are_never_cut(self, place: Place, width: int) -> None:
        place.mail.add("pid", {"to": "x" * 50}, job_id=LONG_ID)
        assert f" {LONG_ID} " in place.on_terminal(*WAITING, COLUMNS=str(width))

    def test_counts_are_a_table_with_a_column_for_each_queue(self, place: Place) -> None:
        place.mail.add_many([("pid", None)] * 1000)
        lines = without_styles(place.on_terminal("counts", "app")).splitlines()
        assert re.search(r" state +┃ +mail ┃ +other ", lines[1])
        assert any(re.search(r" waiting +│ +1,000 │ +0 ", line) for line in lines)

    def test_why_is_a_sentence(self, place: Place) -> None:
        job = place.mail.add("pid")
        shown = place.on_terminal("why", "app:mail", job.id)
        assert shown.startswith(f"Job {job.id} (pid) waits because no worker takes jobs of ")

    def test_a_message_says_that_there_are_no_jobs(self, place: Place) -> None:
        place.mail.add("pid")
        assert place.on_terminal("list", "app:mail") == "queue mail has no failed jobs\r\n"


class TestHostileText:
    """Names, data and errors come from other programs, and must not control a terminal."""

    def test_is_escaped_in_lines(self, place: Place) -> None:
        place.store(HOSTILE, HOSTILE)
        (line,) = place.jobs(*WAITING).out.splitlines()
        assert line.split("\t")[:2] == [ESCAPED, ESCAPED]

    def test_is_escaped_in_tables(self, place: Place) -> None:
        place.store(HOSTILE, HOSTILE)
        table = without_styles(place.on_terminal(*WAITING, COLUMNS="200"))
        assert table.count(ESCAPED) == 2
        assert not re.search("[\x1b\x07\x9b\u202e]", table)

    def test_is_escaped_in_reasons(self, place: Place) -> None:
        place.store(HOSTILE, HOSTILE)
        done = place.jobs("why", "app:mail", HOSTILE)
        (line,) = done.out.splitlines()
        assert line.startswith(f"{ESCAPED}\tno-worker\tJob {ESCAPED} ({ESCAPED}) waits ")
        assert ESCAPED in place.jobs("why", "app:mail", HOSTILE, "other").out
        assert "\x07" not in place.jobs("why", "app:mail", f"{HOSTILE} missing").err

    def test_is_escaped_in_json_and_stays_what_it_is(self, place: Place) -> None:
        place.store("pid", HOSTILE, {"to": HOSTILE + "東京"})
        out = place.jobs(*WAITING, "--json").out
        assert all(line.isprintable() for line in out.split("\n"))
        assert "東京" in out
        (shown,) = json.loads(out)
        assert (shown["id"], shown["data"]) == (HOSTILE, {"to": HOSTILE + "東京"})

    def test_is_escaped_in_messages(self, place: Place) -> None:
        place.mail.add("pid")
        assert place.jobs("cancel", "app:mail", HOSTILE).out.startswith(f"{ESCAPED}: not cancelled")
        (place.folder / "bad.py").write_text("raise LookupError('\\x1b[2J')", encoding="utf-8")
        assert place.jobs("counts", "bad").err.endswith("LookupError: \\x1b[2J\n")

    def test_joined_emoji_and_letters_stay_joined(self, place: Place) -> None:
        place.mail.add("می\u200cخواهم 👩\u200d🚀")
        assert "\tمی\u200cخواهم 👩\u200d🚀\t" in place.jobs(*WAITING).out


class TestWithoutAStore:
    """The command creates no store, because the folder may be the wrong one."""

    @pytest.mark.parametrize(
        "command", ["counts app", "list app:mail", "retry app:mail --all", "cancel app:mail 1"]
    )
    def test_no_file(self, place: Place, command: str) -> None:
        done = place.jobs(*command.split())
        assert (done.status, done.out) == (1, "")
        assert done.err == (
            f"hasten: sqlite:///{place.folder}/hasten.db: no such file. Run hasten in the "
            "folder in which the application runs, or set HASTEN_URL or "
            "Queue(store=...)\n"
        )
        assert not list(place.folder.glob("hasten.db*"))

    def test_an_empty_file(self, place: Place) -> None:
        file = place.folder / "hasten.db"
        file.touch()
        done = place.jobs("counts", "app")
        assert done.status == 1
        assert done.err.startswith(f"hasten: sqlite:///{file}: the file is empty. ")
        assert file.stat().st_size == 0

    def test_a_database_of_another_program(self, place: Place) -> None:
        file = place.folder / "shop.db"
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("CREATE TABLE shop (name)")
        before = file.read_bytes()
        done = place.jobs("counts", "app", HASTEN_URL="sqlite:///shop.db")
        assert done.status == 1
        assert done.err.startswith(f"hasten: sqlite:///{file}: not a database of hasten. ")
        assert file.read_bytes() == before
        assert not list(place.folder.glob("shop.db-*"))

    def test_no_database(self, place: Place) -> None:
        file = place.folder / "hasten.db"
        file.write_text("To whom it may concern" * 100, encoding="utf-8")
        done = place.jobs("counts", "app")
        assert done.status == 1
        assert done.err.startswith(f"hasten: sqlite:///{file}: damaged, or not a SQLite database")
        assert done.err.count("\n") == 1

    def test_memory_of_another_process(self, place: Place) -> None:
        done = place.jobs("counts", "app", HASTEN_URL="memory://")
        assert done.status == 1
        assert done.err.startswith(
            "hasten: memory://: another process cannot open a store in memory: "
        )

    def test_a_server_that_does_not_answer(self, place: Place) -> None:
        """There is no file to check, and the error has no traceback."""
        done = place.jobs("counts", "app", HASTEN_URL="redis://127.0.0.1:1/0")
        assert done.status == 1
        assert done.err.startswith("hasten: redis://127.0.0.1:1/0: cannot connect: ")
        assert done.err.count("\n") == 1

    def test_an_existing_store_is_used_from_any_folder(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        place.mail.add("pid")
        (place.folder / "elsewhere").mkdir()
        monkeypatch.chdir(place.folder / "elsewhere")
        done = place.jobs(*WAITING, HASTEN_URL=f"sqlite:///{place.folder}/hasten.db")
        assert (done.status, done.out.count("\n")) == (0, 1)


class TestRetryAndCancel:
    def test_move_jobs_and_print_that(self, place: Place) -> None:
        first, second, third = (job.id for job in place.mail.add_many([("pid", None)] * 3))
        done = place.jobs("cancel", "app:mail", first, second)
        assert done == (0, f"{first}: cancelled\n{second}: cancelled\n", "")
        again = place.jobs("cancel", "app:mail", first)
        assert again == (1, f"{first}: not cancelled: already finished, or no such job\n", "")
        assert place.jobs("retry", "app:mail", first).out == "1 job queued again\n"
        assert place.jobs("retry", "app:mail", "--all").out == "1 job queued again\n"
        assert place.mail.counts()[State.WAITING] == 3
        refused = place.jobs("retry", "app:mail", third, "none")
        left = "".join(
            f"{id}: not queued again: not finished, or no such job\n" for id in (third, "none")
        )
        assert refused == (1, "0 jobs queued again\n", left)

    def test_retry_wants_ids_or_all(self, place: Place) -> None:
        assert place.jobs("retry", "app:mail").status == 2
        assert place.jobs("retry", "app:mail", "7", "--all").status == 2
