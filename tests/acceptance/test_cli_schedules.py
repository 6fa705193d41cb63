"""`hasten schedules`: what it prints to a terminal and to programs, and what it does to schedules.

Most tests run the command in this process, which takes a hundredth of the time.
"""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from hasten._cli import main
from hasten.jobs import Queue
from hasten.jobs._options import Options
from hasten.jobs._schedule_record import NewSchedule, SchedulePolicy, ScheduleRule
from tests.acceptance.commands import HASTEN, environment, run
from tests.patience import DEADLINE_SECONDS
from tests.servers.redis import shared_redis

APP: Final = """
from hasten.jobs import Queue

mail = Queue("mail")
other = Queue("other")

@mail.cron("0 7 * * mon-fri", id="report", tz="Europe/Madrid")
@mail.task
async def send_report() -> None: ...

@mail.task
async def clean(days: int = 30) -> None: ...
"""

TIME: Final = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00"
HOSTILE: Final = "\x1b]52;c;ZXZpbA==\x07\x1b[2J\r\n\u202efake\tline"


class Done(NamedTuple):
    status: object
    out: str
    err: str


class Place:
    """A folder with `app.py`, and the store of its queues."""

    def __init__(
        self,
        folder: Path,
        url: str,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        self.folder = folder
        self.url = url
        self.mail = Queue("mail", url).sync
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def declare(self, id: str = "old", task: str = "clean", data: str = "{}") -> None:
        """Store a schedule as a worker does whose code declares it."""

        async def store() -> None:
            mail = Queue("mail", self.url)
            rule, policy = ScheduleRule(every_ms=3_600_000), SchedulePolicy()
            new = NewSchedule(id, rule, policy, task, data, Options(), is_declared=True)
            await mail.engine.upsert_schedule("mail", new, now_ms=mail.clock.now_ms())
            await mail.aclose()

        asyncio.run(store())

    def schedules(self, *arguments: str, **variables: str) -> Done:
        for name, value in variables.items():
            self._monkeypatch.setenv(name, value)
        self._monkeypatch.setattr(sys, "argv", ["hasten", "schedules", *arguments])
        sys.modules.pop("app", None)
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = self._capsys.readouterr()
        match ended.value.code:
            case str(message):  # Python prints it and exits with status 1
                return Done(1, out, f"{err}{message}\n")
            case status:
                return Done(status or 0, out, err)

    def json(self, *arguments: str) -> list[dict[str, Any]]:
        done = self.schedules(*arguments, "--json")
        assert done.status == 0
        found: list[dict[str, Any]] = json.loads(done.out)
        return found

    def on_terminal(self, *arguments: str, **variables: str) -> str:
        """Run it in a process with a terminal. Returns what the terminal shows."""
        ours, its = pty.openpty()
        process = subprocess.Popen(
            [*HASTEN, "schedules", *arguments],
            cwd=self.folder,
            env=environment(TERM="xterm", **{"HASTEN_URL": self.url, "TZ": "UTC", **variables}),
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
        return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode())


@pytest.fixture(params=["sqlite", "redis"])
def place(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Place]:
    url = f"sqlite:///{tmp_path}/hasten.db"
    if request.param == "redis":
        url = f"{shared_redis().url}?prefix=test-{uuid.uuid4().hex[:12]}"
    (tmp_path / "app.py").write_text(APP, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setenv("HASTEN_URL", url)
    place = Place(tmp_path, url, monkeypatch, capsys)
    place.mail.schedules.list()  # creates the store
    yield place
    place.mail.close()
    sys.modules.pop("app", None)


class TestAdd:
    def test_stores_an_interval(self, place: Place) -> None:
        done = place.schedules(
            *("add", "app:mail", "clean", "clean", "--every", "10m", "--offset", "30s"),
            *("--arguments", '{"days": 7}', "--options", '{"attempts": 3}', "--limit", "5"),
            *("--missed", "skip", "--overlap", "queue", "--jitter", "1m"),
        )
        assert (done.status, done.err) == (0, "")
        assert re.fullmatch(rf"clean: added; next slot: {TIME}\n", done.out)
        (shown,) = place.json("show", "app:mail", "clean")
        expected = {
            "queue": "mail", "id": "clean", "task": "clean", "state": "active",
            "arguments": {"days": 7}, "every": 600, "cron": None, "tz": None, "offset": 30,
            "limit": 5, "missed": "skip", "overlap": "queue", "jitter": 60, "count": 1,
            "dropped": 0, "previous": None, "is_declared": False, "is_paused": False,
        }  # fmt: skip
        assert {name: shown[name] for name in expected} == expected

    def test_stores_a_cron_pattern_with_its_time_zone(self, place: Place) -> None:
        (shown,) = place.json(
            *("add", "app:mail", "x", "clean", "--cron", "30 8 24 12 *", "--tz", "Europe/Madrid"),
            *("--start", "2031-01-01T00:00:00+01:00", "--end", "2031-12-31T00:00:00Z"),
        )
        assert (shown["cron"], shown["tz"]) == ("30 8 24 12 *", "Europe/Madrid")
        assert shown["next"] == "2031-12-24T07:30:00.000+00:00"
        assert shown["start"] == "2030-12-31T23:00:00.000+00:00"

    def test_changes_a_schedule_only_if_that_is_wanted(self, place: Place) -> None:
        place.schedules("add", "app:mail", "x", "clean", "--every", "1h")
        again = ("add", "app:mail", "x", "clean", "--every", "2h")
        refused = place.schedules(*again)
        assert refused == (
            1,
            "",
            "hasten: queue 'mail' has a schedule 'x' already: pass --replace to change it\n",
        )
        assert place.schedules(*again, "--replace").out.startswith("x: changed; next slot: ")
        assert place.json("show", "app:mail", "x")[0]["every"] == 7200

    def test_says_that_the_code_declares_it(self, place: Place) -> None:
        done = place.schedules("add", "app:mail", "report", "send_report", "--every", "1h")
        assert done.status == 0
        assert done.err == (
            "report: declared by the code, too: a worker that starts stores the declared schedule "
            "again\n"
        )

    def test_a_task_of_another_program_must_be_meant(self, place: Place) -> None:
        add = ("add", "app:mail", "x", "cleen", "--every", "1h")
        refused = place.schedules(*add)
        assert refused.status == 1
        assert refused.err == (
            "hasten: app:mail defines no task 'cleen', but clean, send_report. If another program "
            "runs it, pass --any-task\n"
        )
        assert place.schedules(*add, "--any-task").status == 0

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ((), "pass either --every or --cron"),
            (("--every", "1h", "--cron", "* * * * *"), "pass either --every or --cron"),
            (("--every", "soon"), "must be a number of seconds or a duration"),
            (("--every", "1h", "--start", "2031-01-01"), "a time with its offset from UTC"),
            (("--every", "1h", "--end", "soon"), "a time with its offset from UTC"),
            (("--every", "1h", "--arguments", "[1]"), "must be a JSON object"),
            (("--every", "1h", "--options", "{"), "must be a JSON object"),
            (("--every", "1h", "--missed", "never"), "must be one of last, skip, all"),
            (("--every", "1h", "--overlap", "no"), "must be one of allow, skip, queue"),
            (("--every", "0.1"), "at least 1 second"),
            (("--cron", "0 7 * *"), "must be a cron pattern"),
            (("--cron", "0 7 * * *", "--tz", "Mars"), "the IANA name of a time zone"),
            (("--every", "1h", "--options", '{"delay": 3}'), "delay"),
            (("--every", "1h", "--options", '{"tries": 3}'), "tries"),
            (("--every", "1h", "--arguments", '{"weeks": 3}'), "weeks"),
        ],
    )
    def test_says_what_is_wrong(self, place: Place, options: tuple[str, ...], message: str) -> None:
        done = place.schedules("add", "app:mail", "x", "clean", *options)
        assert done.status in {1, 2}
        assert message in " ".join(done.err.split())
        assert place.mail.schedules.list() == []


class TestList:
    def test_is_a_line_of_fields_for_each_schedule(self, place: Place) -> None:
        place.mail.schedules.upsert("r", "clean", cron="0 7 * * *", tz="Europe/Madrid")
        place.mail.schedules.upsert("e", "clean", every=5400)
        place.mail.schedules.pause("e")
        place.declare("old")
        done = place.schedules("list", "app", COLUMNS="20")
        old, daily, interval = done.out.splitlines()
        assert re.fullmatch(rf"mail\told\tclean\t1h\t\t{TIME}\t\t1\t0\tactive,undeclared", old)
        assert re.fullmatch(
            rf"mail\tr\tclean\t0 7 \* \* \*\tEurope/Madrid\t{TIME}\t\t1\t0\tactive", daily
        )
        assert interval == "mail\te\tclean\t1h30m\t\t\t\t0\t0\tpaused"

    def test_limits_its_length(self, place: Place) -> None:
        for number in range(3):
            place.mail.schedules.upsert(f"s{number}", "clean", every="1h")
        assert len(place.json("list", "app:mail", "--limit", "2")) == 2
        done = place.schedules("list", "app:mail", "--limit", "2")
        assert done.err == "queue mail: only the first 2 schedules are shown: use --limit\n"
        assert place.schedules("list", "app:mail", "--limit", "3").err == ""

    def test_can_show_the_late_ones_only(self, place: Place) -> None:
        place.mail.schedules.upsert("x", "clean", every="1h")
        assert place.schedules("list", "app:mail", "--late") == (0, "", "")

    def test_json_has_all_attributes(self, place: Place) -> None:
        schedule = place.mail.schedules.upsert("x", "clean", every="1h")
        (shown,) = place.json("list", "app")
        attributes = {*type(schedule).__dataclass_fields__}
        assert shown.keys() == attributes | {"queue", "state", "late_by"}

    def test_what_other_programs_have_stored_cannot_control_the_terminal(
        self, place: Place
    ) -> None:
        place.declare("x", HOSTILE, json.dumps({"to": HOSTILE}))
        for arguments in (("list", "app"), ("show", "app:mail", "x")):
            done = place.schedules(*arguments)
            assert "\x1b" not in done.out
            assert "\u202e" not in done.out
        assert len(place.schedules("list", "app").out.splitlines()) == 1
        shown = place.on_terminal("list", "app")
        assert "\x1b]52" not in shown


class TestChange:
    def test_pauses_and_resumes(self, place: Place) -> None:
        place.mail.schedules.upsert("x", "clean", every="1h")
        done = place.schedules("pause", "app:mail", "x", "no", "x")
        assert done == (
            1,
            "x: paused\n",
            "no: no such schedule in queue mail. To see all, use: hasten schedules list\n",
        )
        assert place.json("show", "app:mail", "x")[0]["state"] == "paused"
        assert place.schedules("resume", "app:mail", "x") == (0, "x: resumed\n", "")
        assert place.json("show", "app:mail", "x")[0]["state"] == "active"

    def test_runs_one_now(self, place: Place) -> None:
        place.mail.schedules.upsert("x", "clean", every="1h", offset=1)
        done = place.schedules("run", "app:mail", "x", "no")
        assert done.status == 1
        assert "no: no such schedule" in done.err
        id = done.out.removeprefix("x: added job ").rstrip()
        job = place.mail.get(id)
        assert job is not None
        assert (job.name, job.state) == ("clean", "waiting")
        (shown,) = place.json("run", "app:mail", "x")
        assert (shown["queue"], shown["schedule"]) == ("mail", "x")
        assert place.mail.get(shown["job"]) is not None

    def test_deletes(self, place: Place) -> None:
        for id in ("x", "report"):
            place.mail.schedules.upsert(id, "clean", every="1h")
        done = place.schedules("remove", "app:mail", "x", "report", "no")
        assert (done.status, done.out) == (1, "x: deleted\nreport: deleted\n")
        assert "report: declared by the code: a worker that starts stores it again." in done.err
        assert "no: no such schedule in queue mail" in done.err
        assert place.mail.schedules.list() == []

    def test_prunes_what_is_no_longer_declared(self, place: Place) -> None:
        place.declare("old")
        place.declare("report")  # still declared
        place.mail.schedules.upsert("mine", "clean", every="1h")
        assert place.schedules("prune", "app:mail", "--dry-run") == (
            0,
            "old: would be deleted\n",
            "",
        )
        assert place.json("prune", "app:mail") == [{"queue": "mail", "id": "old"}]
        assert place.schedules("prune", "app:mail") == (
            0,
            "",
            "queue mail has no schedule that is no longer declared\n",
        )
        assert {each["id"] for each in place.json("list", "app")} == {"mine", "report"}

    def test_a_queue_without_tasks_is_not_pruned(self, place: Place) -> None:
        done = place.schedules("prune", "app:other")
        assert done.status == 1
        assert "queue 'other' has no tasks in this process" in done.err


class TestPreview:
    def test_shows_the_slots_in_the_time_zone_of_the_schedule(self, place: Place) -> None:
        """The clocks in Madrid are set forward on 2031-03-30."""
        place.schedules(
            *("add", "app:mail", "x", "clean", "--cron", "0 7 * * *", "--tz", "Europe/Madrid"),
            *("--start", "2031-03-29T00:00:00Z"),
        )
        done = place.schedules("preview", "app:mail", "x", "--count", "2")
        assert done == (0, "2031-03-29T07:00:00+01:00\n2031-03-30T07:00:00+02:00\n", "")
        assert place.json("preview", "app:mail", "x", "--count", "1") == [
            {"slot": "2031-03-29T07:00:00+01:00"}
        ]
        shown = place.on_terminal("preview", "app:mail", "x", "--count", "1")
        assert re.fullmatch(r"Sat 2031-03-29 07:00:00 \+0100 CET  in \d+d(\d+h)?\r\n", shown)

    def test_an_unknown_schedule_is_an_error(self, place: Place) -> None:
        done = place.schedules("preview", "app:mail", "no")
        assert (done.status, done.out) == (1, "")
        assert done.err.startswith("no: no such schedule in queue mail. ")


class TestTerminal:
    def test_gets_a_table(self, place: Place) -> None:
        place.mail.schedules.upsert("r", "clean", cron="0 7 * * *", tz="Europe/Madrid")
        place.declare("old")
        shown = place.on_terminal("list", "app:mail", COLUMNS="150")
        slots = r"0 7 \* \* \* Europe/Madrid +│ [-\d]+ 0[56]:00:00"
        assert re.search(rf"│ r +│ mail +│ clean +│ {slots} +│ 1 +│ 0 +│ active ", shown)
        assert re.search(r"│ old +│ mail +│ clean +│ every 1h .* no longer declared", shown)

    def test_shows_a_line_for_each_attribute(self, place: Place) -> None:
        place.mail.schedules.upsert("x", "clean", every=90, arguments={"days": 3})
        shown = place.on_terminal("show", "app:mail", "x").splitlines()
        assert 'arguments           {"days": 3}' in shown
        assert "every               90.0" in shown

    def test_is_told_that_there_are_none(self, place: Place) -> None:
        assert place.on_terminal("list", "app") == "no schedules in mail, other\r\n"
        assert place.on_terminal("list", "app", "--late") == "no late schedules in mail, other\r\n"


def test_a_missing_store_is_reported(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP, encoding="utf-8")
    done = run(tmp_path, "schedules", "list", "app", HASTEN_URL=f"sqlite:///{tmp_path}/hasten.db")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no such file" in done.stderr
    assert not (tmp_path / "hasten.db").exists()
