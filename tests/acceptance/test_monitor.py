"""`hasten worker --metrics-port`: what a worker in trouble says to Prometheus and to probes."""

from __future__ import annotations

import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from hasten.jobs import Queue
from tests.acceptance.commands import environment, run
from tests.acceptance.places import SERVING, Answer, MonitoredPlace
from tests.patience import DEADLINE_SECONDS
from tests.servers.redis import RedisServer

APP: Final = """
import asyncio, os, time
from pathlib import Path
from hasten.jobs import Queue
from prometheus_client import Counter

mail = Queue("mail")
letters = Counter("letters", "Letters sent.")

@mail.task
async def send() -> int:
    letters.inc()
    return os.getpid()

@mail.task
async def hold() -> None:
    Path(f"held by {os.getpid()}").touch()
    while not Path("gate").exists():
        await asyncio.sleep(0.02)

@mail.task
async def block() -> None:
    Path(f"held by {os.getpid()}").touch()
    while not Path("gate").exists():
        time.sleep(0.02)

@mail.task
async def kill() -> None:
    os.kill(os.getpid(), 9)
"""


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[MonitoredPlace]:
    place = MonitoredPlace(tmp_path, APP, f"sqlite:///{tmp_path}/hasten.db")
    yield place
    await place.close()


class TestOneProcess:
    async def test_serves_metrics_and_health(self, place: MonitoredPlace) -> None:
        worker = await place.worker("--concurrency", "7")
        assert f"metrics: http://127.0.0.1:{place.port}/metrics" in worker.log
        await (await place.mail.add("send")).result(timeout=DEADLINE_SECONDS)
        page = await place.until(
            "/metrics", lambda page: page.metric("bullmq_job_completed_total", queue="mail") == 1
        )
        assert page.metric("hasten_worker_slots", process="1") == 7
        assert page.metric("hasten_jobs", queue="mail", state="completed") == 1
        assert page.metric("letters_total") == 1  # the application's own
        assert "python_info" in page.text
        assert (await place.get("/livez")).body == {"status": "alive"}
        ready = await place.until("/readyz", lambda answer: answer.status == 200)
        assert ready.body == {"status": "ready"}
        scale = await place.get("/scale?queue=mail")
        assert scale.body["backlog"] == 0
        unknown = await place.get("/scale?queue=post")
        assert (unknown.status, unknown.body["detail"]) == (
            404,
            "queue='post': must be one of mail",
        )
        assert (await place.get("/")).body["pages"] == ["/metrics", "/livez", "/readyz", "/scale"]

    async def test_only_get_and_head_are_allowed(self, place: MonitoredPlace) -> None:
        await place.worker()
        assert place.request("/livez", "POST").status == 405
        head = place.request("/livez", "HEAD")
        assert (head.status, head.text) == (200, "")
        assert head.headers["content-length"] == "20"

    async def test_says_that_a_sqlite_file_is_locked(self, place: MonitoredPlace) -> None:
        place.use(f"sqlite:///{place.folder}/hasten.db?timeout=0.1")
        worker = await place.worker("--max-fetch-age", "1s")
        with closing(sqlite3.connect(place.folder / "hasten.db")) as other:
            other.execute("BEGIN EXCLUSIVE")
            pattern = "queue mail: store unavailable for .* locked"
            ready = await place.until("/readyz", lambda answer: re.search(pattern, answer.text))
            assert ready.status == 503
            assert (await place.get("/livez")).status == 200
            await worker.until_logged("store unavailable, retrying")
        await place.until("/readyz", lambda answer: answer.status == 200)

    async def test_says_that_it_is_stopping(self, place: MonitoredPlace) -> None:
        worker = await place.worker()
        await place.mail.add("hold")
        await worker.until(place.held_by)
        worker.process.send_signal(signal.SIGINT)
        ready = await place.until("/readyz", lambda answer: "stopping" in answer.text)
        assert ready.status == 503
        assert (await place.get("/livez")).status == 200
        place.open_gate()
        assert await worker.ended() == 0

    async def test_ends_although_a_request_is_in_progress(self, place: MonitoredPlace) -> None:
        """Clients that never finish their request hold neither the worker nor others up."""
        worker = await place.worker()
        connections = [socket.create_connection(("127.0.0.1", place.port)) for _ in range(20)]
        for connection in connections:
            connection.sendall(b"GET /metrics HTTP/1.1\r\n")
        worker.process.send_signal(signal.SIGINT)
        assert await worker.ended() == 0
        assert "Traceback" not in worker.log
        for connection in connections:
            connection.close()

    @pytest.mark.parametrize("processes", ["1", "2"])
    async def test_a_port_in_use_is_reported_at_the_start(
        self, place: MonitoredPlace, processes: str
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = str(other.getsockname()[1])
            done = run(
                place.folder,
                *("worker", "app:mail", "--metrics-port", port, "--processes", processes),
            )
        assert done.returncode == 1
        assert re.search(
            rf"hasten: --metrics-port {port} cannot be used on 127.0.0.1 \(.*in use\): "
            "choose a free port, or another --metrics-host",
            done.stderr,
        )
        assert "serves mail" not in done.stderr

    async def test_without_the_extra_the_error_names_it(self, place: MonitoredPlace) -> None:
        program = (
            "import sys; sys.modules['prometheus_client'] = None; import hasten._cli; "
            "hasten._cli.main(['worker', 'app:mail', '--metrics-port', '9100'])"
        )
        (place.folder / "app.py").write_text(
            "from hasten.jobs import Queue\nmail = Queue('mail')", encoding="utf-8"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=place.folder, env=environment(), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 1
        assert "prometheus_client is not installed: install hasten with its extra" in done.stderr


@pytest.mark.parametrize("store", ["sqlite", "redis"])
class TestTroubles:
    """The log, `/readyz` and the metrics of a worker each show what is wrong."""

    async def test_the_event_loop_is_blocked(self, place: MonitoredPlace, store: str) -> None:
        place.use_kind(store)
        worker = await place.worker("--max-blocked", "1s", "--max-fetch-age", "1s")
        await place.mail.add("block")
        dead = await place.until("/livez", lambda answer: answer.status == 503)
        blocked = (
            r"worker \S+: the event loop has been blocked for \d+ s by code that does not await"
        )
        assert re.fullmatch(blocked, dead.body["reasons"][0])
        ready = await place.until("/readyz", lambda answer: "blocked" in answer.text)
        assert ready.status == 503
        assert re.fullmatch(blocked, ready.body["reasons"][0])
        lag = (await place.get("/metrics")).metric("hasten_worker_loop_lag_seconds", process="1")
        assert lag is not None
        assert lag > 1
        await worker.until_logged(f"WARNING .*{blocked}")
        place.open_gate()
        await place.until("/livez", lambda answer: answer.status == 200)
        await worker.until_logged("the event loop is no longer blocked")
        assert len(re.findall(blocked, worker.log)) == 1

    async def test_the_queue_is_paused(self, place: MonitoredPlace, store: str) -> None:
        place.use_kind(store)
        worker = await place.worker()
        await place.mail.pause()
        ready = await place.until(
            "/readyz", lambda answer: answer.status == 200 and "paused" in answer.text
        )
        assert ready.body == {"status": "ready", "paused": ["mail"]}
        assert (await place.get("/metrics")).metric("hasten_queue_paused", queue="mail") == 1
        await place.mail.add("send")
        scale = (await place.get("/scale?queue=mail")).body
        assert (scale["wait_seconds"], scale["backlog"], scale["paused"]) == (0, 1, True)
        await worker.until_logged("INFO .*queue mail: paused, no jobs are started until")
        await place.mail.resume()
        await worker.until_logged("INFO .*queue mail: resumed")
        assert len(re.findall("queue mail: paused", worker.log)) == 1

    async def test_the_store_is_down(self, place: MonitoredPlace, store: str) -> None:
        """The folder of a file is no longer there, or the server does not run."""
        volume = place.folder / "volume"
        volume.mkdir()
        server = RedisServer(place.folder / "redis").start() if store == "redis" else None
        try:
            place.use(f"sqlite:///{volume}/jobs.db" if server is None else server.url)
            worker = await place.worker("--max-fetch-age", "1s")
            await place.until("/readyz", lambda answer: answer.status == 200)
            if server is None:
                volume.rename(place.folder / "elsewhere")
            else:
                server.kill()
            why = "queue mail: store unavailable for "
            ready = await place.until("/readyz", lambda answer: why in answer.text)
            assert ready.status == 503
            page = await place.get("/metrics")
            assert page.metric("hasten_store_up", queue="mail") == 0
            assert page.metric("hasten_jobs", queue="mail", state="waiting") is None
            assert page.metric("hasten_worker_slots", process="1") == 100
            fetched = page.metric("hasten_worker_last_fetch_seconds", queue="mail", process="1")
            assert fetched is not None
            assert fetched > 1
            assert (await place.get("/scale?queue=mail")).status == 503
            assert (await place.get("/livez")).status == 200
            await worker.until_logged("ERROR .*store unavailable, retrying")
            if server is None:
                (place.folder / "elsewhere").rename(volume)
                await place.until("/readyz", lambda answer: answer.status == 200)
                await worker.until_logged("WARNING .*store available again")
        finally:
            if server is not None:
                server.kill()


class TestSqliteFiles:
    async def test_a_file_that_is_removed_is_created_again(self, place: MonitoredPlace) -> None:
        """Its jobs are lost: the log and the metrics show it. The worker is ready for new ones."""
        worker = await place.worker("--max-fetch-age", "1m")
        done = await place.mail.add("send")
        await done.result(timeout=DEADLINE_SECONDS)
        await place.mail.add("hold")
        await worker.until(place.held_by)
        completed = {"queue": "mail", "state": "completed"}
        await place.until("/metrics", lambda page: page.metric("hasten_jobs", **completed) == 1)
        await place.mail.aclose()
        for file in place.folder.glob("hasten.db*"):
            file.unlink()
        await worker.until_logged(
            "WARNING .*hasten.db was moved, deleted or replaced: creating an empty one"
        )
        page = await place.until(
            "/metrics", lambda page: page.metric("hasten_jobs", **completed) == 0
        )
        assert page.metric("hasten_store_up", queue="mail") == 1
        place.open_gate()
        page = await place.until(
            "/metrics", lambda page: page.metric("hasten_leases_lost_total", queue="mail") == 1
        )
        await worker.until_logged("WARNING .*job 2: outcome discarded, because its lease was lost")
        ready = await place.get("/readyz")
        assert (ready.status, ready.body) == (200, {"status": "ready"})
        again = Queue("mail", f"sqlite:///{place.folder}/hasten.db")
        async with again:
            await (await again.add("send")).result(timeout=DEADLINE_SECONDS)

    async def test_a_worker_stops_while_another_process_locks_the_file(
        self, place: MonitoredPlace
    ) -> None:
        """It waits for the file for some seconds, and then leaves its job to its lease."""
        worker = await place.worker("--grace", "0")
        job = await place.mail.add("hold")
        await worker.until(place.held_by)
        with closing(sqlite3.connect(place.folder / "hasten.db")) as other:
            other.execute("BEGIN EXCLUSIVE")
            worker.process.send_signal(signal.SIGTERM)
            status = await worker.ended()
        assert "some outcomes could not be stored" in worker.log
        assert "Traceback" not in worker.log
        assert status == 0
        again = await place.worker("--grace", "0")
        place.open_gate()
        await job.result(timeout=DEADLINE_SECONDS)
        assert "took back 1 jobs of dead workers" in again.log


class TestSeveralProcesses:
    async def test_are_one_page(self, place: MonitoredPlace) -> None:
        worker = await place.worker("--concurrency", "3", processes=2)
        for _ in range(20):
            await place.mail.add("send")
        page = await place.until(
            "/metrics", lambda page: page.metric("bullmq_job_completed_total", queue="mail") == 20
        )
        for process in ("1", "2"):
            assert page.metric("hasten_worker_up", process=process) == 1
            assert page.metric("hasten_worker_slots", process=process) == 3
        letters = [page.metric("letters_total", process=process) or 0 for process in ("1", "2")]
        assert sum(letters) == 20
        ready = await place.until("/readyz", lambda answer: answer.status == 200)
        assert ready.body == {"status": "ready"}
        scale = await place.until("/scale?queue=mail", lambda scale: scale.body["slots"] == 6)
        assert scale.body["backlog"] == 0
        worker.process.terminate()
        assert await worker.ended() == 0

    async def test_counters_never_decrease_when_one_is_restarted(
        self, place: MonitoredPlace
    ) -> None:
        worker = await place.worker(processes=2)
        for _ in range(10):
            await place.mail.add("send")
        completed = "bullmq_job_completed_total"
        await place.until("/metrics", lambda page: page.metric(completed, queue="mail") == 10)
        first = worker.children()[0]
        os.kill(first, signal.SIGKILL)
        seen: list[float] = []

        def is_serving_again(page: Answer) -> bool:
            seen.append(page.metric(completed, queue="mail") or 0)
            return len(re.findall(SERVING, worker.log)) == 3

        await place.until("/metrics", is_serving_again)
        await place.until("/livez", lambda answer: answer.status == 200)
        await place.mail.add("send")
        await place.until("/metrics", lambda page: page.metric(completed, queue="mail") == 11)
        assert set(seen) == {10}

    async def test_the_one_that_is_down_is_named(self, place: MonitoredPlace) -> None:
        worker = await place.worker(processes=2)
        (place.folder / "app.py").write_text("raise LookupError", encoding="utf-8")
        os.kill(worker.children()[0], signal.SIGKILL)
        dead = await place.until("/livez", lambda answer: "is restarted" in answer.text)
        (reason,) = dead.body["reasons"]
        assert reason.startswith("process 1: ")
        page = await place.until(
            "/metrics", lambda page: page.metric("hasten_worker_up", process="1") == 0
        )
        assert page.metric("hasten_worker_up", process="2") == 1

    async def test_a_process_that_hangs_is_shown_as_down(self, place: MonitoredPlace) -> None:
        worker = await place.worker(processes=2)
        hanging = worker.children()[1]
        await place.until("/readyz", lambda answer: answer.status == 200)
        os.kill(hanging, signal.SIGSTOP)
        try:
            # The process may still answer a request while the signal is delivered.
            dead = await place.until("/livez", lambda answer: answer.status == 503)
            assert dead.body["reasons"] == ["process 2: does not answer within 1 s"]
            page = await place.until(
                "/metrics", lambda page: page.metric("hasten_worker_up", process="2") == 0
            )
            assert page.metric("hasten_worker_up", process="1") == 1
        finally:
            os.kill(hanging, signal.SIGCONT)
        await place.until("/livez", lambda answer: answer.status == 200)

    async def test_a_blocked_event_loop_is_reported_with_its_process(
        self, place: MonitoredPlace
    ) -> None:
        worker = await place.worker("--max-blocked", "1s", processes=2)
        await place.mail.add("block")
        dead = await place.until("/livez", lambda answer: answer.status == 503)
        (reason,) = dead.body["reasons"]
        number = worker.children().index(min(place.held_by())) + 1
        assert reason.startswith(f"process {number}: worker ")
        place.open_gate()
        await place.until("/livez", lambda answer: answer.status == 200)

    async def test_answer_until_they_have_stopped(self, place: MonitoredPlace) -> None:
        worker = await place.worker(processes=2)
        await place.mail.add("hold")
        await worker.until(place.held_by)
        worker.process.send_signal(signal.SIGINT)
        await place.until("/readyz", lambda answer: "stopping" in answer.text)
        assert (await place.get("/livez")).status == 200
        place.open_gate()
        assert await worker.ended() == 0

    async def test_end_when_their_supervisor_is_killed(self, place: MonitoredPlace) -> None:
        worker = await place.worker(processes=2)
        worker.process.kill()
        await worker.until_logged("has stopped", times=2)
