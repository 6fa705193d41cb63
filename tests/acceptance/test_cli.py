"""The command `hasten` in a folder with an application."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from hasten.jobs import Job, State
from tests.acceptance.commands import HASTEN, Command, environment
from tests.acceptance.places import SERVING, Place
from tests.jobs.eventually import until_state, until_true
from tests.patience import DEADLINE_SECONDS

APP: Final = """
import asyncio, logging, os, time
from pathlib import Path
from hasten.jobs import Queue

mail = Queue("mail")
other = Queue("other")

@mail.task
async def pid(seconds: float = 0) -> int:
    await asyncio.sleep(seconds)
    return os.getpid()

@mail.task
async def hold() -> None:
    Path(f"held by {os.getpid()}").touch()
    await asyncio.sleep(600)

@mail.task
def sleep_in_thread() -> None:
    Path(f"held by {os.getpid()}").touch()
    time.sleep(600)

@mail.task
def read_input() -> str:
    return input()

@mail.task
async def echo(text: str) -> None:
    raise ValueError(text)

@mail.task(keep_failed=True)
async def fail() -> None:
    logging.getLogger("shop").warning("looking")
    raise LookupError("[bold]no such address[/bold]")
"""

SCRIPTS: Final = Path(sysconfig.get_path("scripts"))


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    place = Place(tmp_path, APP)
    yield place
    await place.close()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def is_handed_back(job: Job[object]) -> bool:
    """Return whether a job was handed back without an attempt or a crash.

    That may happen more than once: a process that is asked to stop later may take the job
    meanwhile.
    """
    record = (await job.refresh()).record
    assert record.state is State.WAITING
    assert record.attempts_started >= 1
    return (record.attempts_made, record.crashes) == (0, 0)


class TestOneProcess:
    async def test_runs_jobs_and_logs_its_queues(self, place: Place) -> None:
        worker = await place.worker("--concurrency", "7", "--name", "postman")
        job = await place.mail.add("pid")
        assert await job.result(timeout=DEADLINE_SECONDS) == worker.process.pid
        assert (await job.refresh()).record.worker == "postman"
        store = place.folder / "hasten.db"
        assert (
            "serving queue mail (echo, fail, hold, pid, read_input, sleep_in_thread) "
            f"in sqlite:///{store}\n" in worker.log
        )
        assert "up to 7 jobs at once" in worker.log
        assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO ", worker.log)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    async def test_hands_jobs_back_and_exits_0(self, place: Place, number: signal.Signals) -> None:
        job = await place.mail.add("hold")
        worker = await place.worker("--grace", "0")
        await worker.until(place.held_by)
        worker.process.send_signal(number)
        assert await worker.ended() == 0
        assert await is_handed_back(job)

    async def test_ends_although_a_thread_does_not(self, place: Place) -> None:
        """Python waits for threads before it exits, here for ten minutes."""
        job = await place.mail.add("sleep_in_thread")
        worker = await place.worker("--grace", "0")
        await worker.until(place.held_by)
        worker.process.terminate()
        assert await worker.ended() == 0
        assert await is_handed_back(job)

    async def test_a_module_alone_serves_all_its_queues(self, place: Place) -> None:
        command = Command(place.folder, "worker", "app")
        place.commands.append(command)
        await command.until_logged("serves mail, other")
        assert "queue other (no tasks: all its jobs will fail)" in command.log

    async def test_logs_no_less_than_it_is_asked_to(self, place: Place) -> None:
        command = Command(place.folder, "worker", "app:mail", "--log-level", "error")
        place.commands.append(command)
        assert await (await place.mail.add("pid")).result(timeout=DEADLINE_SECONDS)
        assert command.log == ""

    async def test_warns_of_a_store_that_it_creates(self, place: Place) -> None:
        """The folder may be the wrong one."""
        worker = await place.worker()
        url = f"sqlite:///{place.folder}/hasten.db"
        assert (
            f"WARNING  hasten.cli: queue mail: no store found, creating a new one: {url}: "
            in worker.log
        )
        again = await place.worker()
        assert "new store" not in again.log

    async def test_writes_its_log_as_json_with_the_job_on_each_line(self, place: Place) -> None:
        worker = await place.worker("--log-format", "json", "--log-level", "debug")
        job = await place.mail.add("fail")
        await worker.until_logged("failed for good")
        lines = [json.loads(line) for line in worker.log.splitlines()]
        (said,) = (line for line in lines if line["logger"] == "shop")
        names = ("level", "message", "queue", "task", "job_id", "attempt")
        assert [said[name] for name in names] == ["warning", "looking", "mail", "fail", job.id, 1]
        (failed,) = (line for line in lines if line["level"] == "error")
        assert "LookupError" in failed["exception"]
        assert failed["job_id"] == job.id
        (started,) = (line for line in lines if "started, attempt 1" in line["message"])
        assert started["level"] == "debug"

    async def test_logs_failed_jobs_although_the_application_has_disabled_all_loggers(
        self, place: Place
    ) -> None:
        """That is what `logging.config.dictConfig` does by default."""
        configure = (
            "import hasten.jobs, logging.config\n"
            "logging.config.dictConfig({'version': 1,"
            " 'root': {'handlers': ['all'], 'level': 'INFO'},"
            " 'handlers': {'all': {'class': 'logging.StreamHandler', 'formatter': 'own'}},"
            " 'formatters': {'own': {'format': 'OWN %(levelname)s %(message)s'}}})\n"
        )
        (place.folder / "app.py").write_text(configure + APP, encoding="utf-8")
        worker = await place.worker()
        job = await place.mail.add("fail")
        await worker.until_logged(rf"OWN ERROR queue mail: job {job.id} \(fail\) failed for good")
        assert "LookupError" in worker.log

    async def test_the_release_is_shown_and_jobs_for_later_ones_are_handed_back(
        self, place: Place
    ) -> None:
        await place.worker("--release", "2026.11")

        async def is_reported() -> bool:
            return [info.release for info in await place.mail.workers()] == ["2026.11"]

        await until_true(is_reported)
        job = await place.mail.add("pid", since="2026.12")
        await until_state(job, State.DELAYED)
        assert (await job.refresh()).attempts_made == 0
        later = await place.worker("--release", "2026.12.1")
        await job.promote()
        pid = await job.result(timeout=DEADLINE_SECONDS)
        assert pid == later.process.pid

    async def test_control_characters_are_escaped_in_its_log(self, place: Place) -> None:
        """Also, the text of an error cannot look like a line of the log."""
        await place.mail.add("echo", {"text": "\x1b[2J\x9b31m\u202e\r\nERROR forged"})
        worker = await place.worker()
        await worker.until_logged("failed for good")
        await worker.until_logged("ValueError.*\n +ERROR forged")
        assert not re.search("[\x1b\x9b\u202e]|^ERROR forged", worker.log, re.MULTILINE)


class TestSeveralProcesses:
    async def test_share_the_work(self, place: Place) -> None:
        worker = await place.worker("--concurrency", "1", "--name", "postman", processes=2)
        jobs = await place.mail.add_many([("pid", {"seconds": 0.1})] * 20)
        pids = [await job.result(timeout=DEADLINE_SECONDS) for job in jobs]
        assert set(pids) == set(worker.children())
        names = {(await job.refresh()).record.worker for job in jobs}
        assert names == {"postman-1", "postman-2"}

    async def test_have_the_options_of_the_command(self, place: Place) -> None:
        options = "--concurrency=3", "--release=2026.12", "--bullmq-metrics-minutes=10"
        worker = await place.worker(*options, processes=2)

        async def both_report() -> bool:
            return len(await place.mail.workers()) == 2

        await until_true(both_report)
        found = await place.mail.workers()
        assert {info.pid for info in found} == set(worker.children())
        assert {(info.slots, info.release) for info in found} == {(3, "2026.12")}

    async def test_a_killed_process_is_replaced_and_that_is_logged(self, place: Place) -> None:
        worker = await place.worker(processes=2)
        first = worker.children()[0]
        os.kill(first, signal.SIGKILL)
        await worker.until_logged(
            rf"WARNING .*process 1 \(pid {first}\) was killed by signal 9 \(SIGKILL\); "
            r"another one starts in 0\.5 s"
        )
        await worker.until_logged(SERVING, times=3)
        assert len(worker.children()) == 3

    async def test_a_process_that_fails_to_start_is_retried_with_pauses(self, place: Place) -> None:
        """For example, a deployment replaces the code under a running supervisor."""
        worker = await place.worker(processes=2)
        (place.folder / "app.py").write_text("raise LookupError('half a file')", encoding="utf-8")
        os.kill(worker.children()[0], signal.SIGKILL)
        await worker.until_logged("LookupError: half a file")
        await worker.until_logged(r"process 1 \(pid \d+\) ended with status 1; .* in 1 s")
        (place.folder / "app.py").write_text(APP, encoding="utf-8")
        await worker.until_logged(SERVING, times=3)

    @pytest.mark.parametrize("whole_group", [False, True], ids=["parent", "group"])
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    async def test_hand_jobs_back_and_end_with_status_0(
        self, place: Place, number: signal.Signals, whole_group: bool
    ) -> None:
        """A service manager signals the parent, and Ctrl+C signals the whole process group."""
        jobs = await place.mail.add_many([("hold", None)] * 2)
        worker = await place.worker("--grace", "0", "--concurrency", "1", processes=2)
        await worker.until(lambda: len(place.held_by()) == 2)
        if whole_group:
            os.killpg(worker.process.pid, number)
        else:
            worker.process.send_signal(number)
        assert await worker.ended() == 0
        assert [await is_handed_back(job) for job in jobs] == [True, True]
        assert not any(map(is_alive, worker.children()))

    async def test_two_kinds_of_stop_requests_count_as_one(self, place: Place) -> None:
        """A service manager may send SIGTERM to each process beside the request of the parent."""
        jobs = await place.mail.add_many([("hold", None)] * 2)
        worker = await place.worker("--grace", "1", "--concurrency", "1", processes=2)
        await worker.until(lambda: len(place.held_by()) == 2)
        worker.process.terminate()
        await worker.until_logged(r"worker \S+ is stopping", times=2)
        for pid in worker.children():
            os.kill(pid, signal.SIGTERM)
        assert await worker.ended() == 0
        assert [await is_handed_back(job) for job in jobs] == [True, True]

    async def test_a_second_signal_kills_them(self, place: Place) -> None:
        await place.mail.add("hold")
        worker = await place.worker("--grace", "600", processes=2)
        await worker.until(place.held_by)
        worker.process.terminate()
        await worker.until_logged("a second signal ends all processes at once")
        worker.process.terminate()
        assert await worker.ended(seconds=5) == 128 + signal.SIGTERM
        assert not any(map(is_alive, worker.children()))

    async def test_a_process_that_ends_ungracefully_means_status_1(self, place: Place) -> None:
        job = await place.mail.add("hold")
        worker = await place.worker("--grace", "600", processes=2)
        await worker.until(place.held_by)
        worker.process.terminate()
        await worker.until_logged("stopping")
        (holder,) = place.held_by()
        os.kill(holder, signal.SIGKILL)
        assert await worker.ended() == 1
        assert (await job.refresh()).state is State.ACTIVE  # until its lease runs out

    async def test_end_gracefully_when_their_parent_is_killed(self, place: Place) -> None:
        job = await place.mail.add("hold")
        worker = await place.worker("--grace", "0", processes=2)
        await worker.until(place.held_by)
        worker.process.kill()
        await worker.until(lambda: not any(map(is_alive, worker.children())))
        assert await is_handed_back(job)

    async def test_handlers_find_nothing_on_standard_input(self, place: Place) -> None:
        """Handlers cannot read the pipe that shows a process the end of its parent."""
        worker = await place.worker(processes=2)
        job = await place.mail.add("read_input")
        await worker.until_logged("serves")
        failed = await place.mail.get(job.id)
        while failed is not None and failed.state is not State.FAILED:
            await asyncio.sleep(0.02)
            failed = await place.mail.get(job.id)
        assert failed is not None
        assert failed.error == "EOFError: EOF when reading a line"


class TestWrongUse:
    @pytest.mark.parametrize(
        ("target", "said"),
        [
            ("nope:mail", "hasten: no module named 'nope' in "),
            ("app:mial", "hasten: module 'app' has no 'mial'; its queues are app:mail, app:other"),
            ("app.py:mail", "hasten: app.py:mail is the name of a file: write app:mail"),
        ],
    )
    @pytest.mark.parametrize("processes", ["1", "2"])
    async def test_is_reported_once_and_ends_with_status_1(
        self, place: Place, target: str, said: str, processes: str
    ) -> None:
        done = place.hasten("worker", target, "--processes", processes)
        assert done.returncode == 1
        assert done.stderr.startswith(said)
        assert done.stderr.count("\n") == 1

    async def test_a_wrong_url_is_reported_before_anything_starts(self, place: Place) -> None:
        (place.folder / "wrong.py").write_text(
            "import os\nos.environ['HASTEN_URL'] = 'ftp://x'\n"
            "from hasten.jobs import Queue\nmail = Queue('mail')\n",
            encoding="utf-8",
        )
        done = place.hasten("worker", "wrong:mail")
        assert done.returncode == 1
        assert done.stderr.startswith("hasten: url='ftp://x': must be memory://, sqlite:///")

    @pytest.mark.parametrize(
        "program", [HASTEN, [sys.executable, "-m", "hasten"], [SCRIPTS / "hasten"]]
    )
    async def test_files_do_not_shadow_packages(self, place: Place, program: Sequence[str]) -> None:
        """Neither hasten's own packages nor those that the application imports."""
        for name in ("json", "logging", "msgspec", "redis", "rich", "typer"):
            (place.folder / f"{name}.py").write_text("raise SystemExit('taken')", encoding="utf-8")
        done = subprocess.run(
            [*program, "jobs", "counts", "app:mail"],
            cwd=place.folder,
            env=environment(HASTEN_URL="redis://127.0.0.1:1/0?timeout=5"),
            capture_output=True,
            text=True,
            check=False,
        )
        assert "taken" not in done.stderr
        assert done.stderr.startswith("hasten: redis://127.0.0.1:1/0?timeout=5: cannot connect")

    async def test_without_the_extra_the_error_names_it(self, place: Place) -> None:
        program = "import sys; sys.modules['typer'] = None; import hasten._cli; hasten._cli.main()"
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert done.stderr == (
            "hasten: typer is not installed: install hasten with its extra 'cli'; "
            "in a clone of its repository: pip install -e '.[cli]'\n"
        )
