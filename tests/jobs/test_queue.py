"""Queues: names, stores, and how they are opened, shared and closed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from hasten import Store
from hasten._sqlite import Database
from hasten.errors import InvalidOption, StoreUnavailable, UsageError
from hasten.jobs import Queue, State, Worker
from hasten.jobs._engines.redis import RedisEngine
from hasten.jobs._engines.sqlite import SqliteEngine
from hasten.jobs._states import READY
from tests.patience import DEADLINE_SECONDS


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("", "a string of 1 to 255 characters"),
        ("x" * 256, "a string of 1 to 255 characters"),
        (None, "a string of 1 to 255 characters"),
        (7, "a string of 1 to 255 characters"),
        ("a:b", "a name without ':', because ':' separates the parts of a Redis key"),
        ("a\0b", "valid text without control characters"),
        ("\ud800", "valid text without control characters"),
        ("a\x1b[2J", "valid text without control characters"),
        ("a\u202eb", "or invisible characters, such as direction marks"),
    ],
)
def test_wrong_names_are_refused(name: Any, complaint: str) -> None:
    """The error is raised when the queue is created."""
    with pytest.raises(InvalidOption, match=complaint):
        Queue(name, "memory://")


@pytest.mark.parametrize("name", ["a\nb", "\x9b31m", "a\u2066b", "\ufeffa"])
async def test_names_and_ids_with_control_characters_are_refused(queue: Queue, name: str) -> None:
    """Every method that takes one refuses it. Jobs that other programs have stored are found."""

    @queue.task
    async def send() -> None: ...

    complaint = "valid text without control characters or invisible characters"
    with pytest.raises(InvalidOption, match=complaint):
        queue.task(name=name)(send)
    with pytest.raises(InvalidOption, match=complaint):
        await queue.add(name)
    with pytest.raises(InvalidOption, match=complaint):
        await queue.add_many([("send", {}), (name, {})])
    with pytest.raises(InvalidOption, match=complaint):
        await queue.add("send", job_id=name)
    with pytest.raises(InvalidOption, match=complaint):
        await queue.add_many([("send", {}, {"job_id": name})])
    with pytest.raises(InvalidOption, match=complaint):
        send.using(job_id=name)
    with pytest.raises(InvalidOption, match=complaint):
        Worker(queue, name=name)
    assert await queue.get(name) is None
    assert not await queue.cancel(name)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "jobs.db",
        "/tmp/jobs.db",
        "postgres://localhost/jobs",
        "sqlite:///jobs.db?colour=red",
        "sqlite://jobs.db",
        "sqlite:///jobs.db?timeout=-1",
        "sqlite:///jobs.db?timeout=soon",
        "sqlite:///jobs.db?synchronous=perhaps",
        "sqlite:///jobs.db#part",
        "redis://localhost:port",
        "redis+cluster://localhost/1",
        "redis+sentinel://localhost",
    ],
)
def test_wrong_urls_are_refused(url: str) -> None:
    """The error is raised when the queue is created, before anything is opened."""
    with pytest.raises(InvalidOption, match=r"^(url|timeout)="):
        Queue("mail", url)


def test_redis_without_its_extra_says_what_to_install() -> None:
    """The error is raised when the queue is created. SQLite does not need the extra."""
    program = """if True:
        import sys
        sys.modules["redis"] = None  # as if it were not there
        from hasten.errors import MissingExtra
        from hasten.jobs import Queue
        Queue("mail", "memory://")
        try:
            Queue("mail", "redis://localhost")
        except MissingExtra as error:
            print(error)
    """
    said = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout
    assert said.startswith("redis is not installed: install hasten with its extra 'redis'")


def test_wrong_defaults_are_refused() -> None:
    with pytest.raises(InvalidOption, match="attempts=0"):
        Queue("mail", "memory://", attempts=0)


class TestPlace:
    async def test_is_a_file_in_the_working_directory_unless_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing is opened before the first use."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("HASTEN_URL", raising=False)
        queue = Queue("mail")
        assert list(tmp_path.iterdir()) == []
        await queue.add("send")
        assert (tmp_path / "hasten.db").exists()
        await queue.aclose()

    async def test_from_environment(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The environment is read at first use, which may be after the import of the module."""
        queue = Queue("mail")
        monkeypatch.setenv("HASTEN_URL", f"sqlite:///{tmp_path / 'other.db'}")
        await queue.add("send")
        assert (tmp_path / "other.db").exists()
        await queue.aclose()

    async def test_is_the_url_s_before_that_of_the_environment(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HASTEN_URL", f"sqlite:///{tmp_path / 'other.db'}")
        queue = Queue("mail", f"sqlite:///{tmp_path / 'own name.db'}")
        await queue.add("send")
        assert not (tmp_path / "other.db").exists()
        assert (tmp_path / "own name.db").exists()
        await queue.aclose()

    @pytest.mark.parametrize(("given", "seconds"), [({}, 5), ({"timeout": "2m"}, 120)])
    def test_has_the_time_out_of_its_store(self, given: dict[str, Any], seconds: float) -> None:
        """For SQLite and Redis."""
        on_file = Queue("mail", Store("sqlite:///jobs.db", **given)).engine
        on_server = Queue("mail", Store("redis://localhost", **given)).engine
        assert isinstance(on_file, SqliteEngine)
        assert isinstance(on_server, RedisEngine)
        assert on_file._database._connector.busy_seconds == seconds
        assert on_server._server.address.timeout == seconds

    @pytest.mark.parametrize(
        ("store", "prefix"),
        [
            (Store("redis://localhost"), "bull"),
            (Store("redis://localhost?prefix=shop"), "shop"),
            (Store("redis://localhost", prefix="shop"), "shop"),
        ],
    )
    def test_has_the_prefix_of_its_store(self, store: Store, prefix: str) -> None:
        engine = Queue("mail", store).engine
        assert isinstance(engine, RedisEngine)
        assert engine._keys.prefix == prefix


class TestOpening:
    async def test_queues_with_one_store_share_what_is_open(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Their concurrent calls share a transaction. Whoever made the store closes it."""
        async with Store(f"sqlite:///{tmp_path / 'jobs.db'}") as store:
            first, second = Queue("a", store), Queue("b", store)
            assert first.engine is second.engine
            await first.counts()
            groups: list[int] = []
            commit = Database._commit_once

            def record(self: Database, begin: str, group: list[Any]) -> list[Any]:
                groups.append(len(group))
                return commit(self, begin, group)

            monkeypatch.setattr(Database, "_commit_once", record)
            assert isinstance(first.engine, SqliteEngine)
            may_go_on = threading.Event()
            busy = asyncio.create_task(
                first.engine._database.run(lambda connection: may_go_on.wait())
            )
            while not groups:
                await asyncio.sleep(0)
            adding = asyncio.gather(busy, first.add("send"), second.add("send"))
            for _ in range(10):  # both are added while the store is busy
                await asyncio.sleep(0)
            may_go_on.set()
            await adding
            assert groups == [1, 2]
            await first.aclose()
            await second.add("send")
            await second.aclose()
            assert (await first.counts())[State.WAITING] == 1

    async def test_queues_with_one_url_have_two_stores(self, url: str) -> None:
        """Each is opened and closed separately. In memory they have no data in common."""
        async with Queue("mail", url) as first, Queue("mail", url) as second:
            assert first.store is not second.store
            assert first.engine is not second.engine
            await first.add("send")
            found = (await second.counts())[State.WAITING]
            assert found == (0 if url == "memory://" else 1)
            await first.aclose()
            await second.add("send")

    async def test_queues_that_name_no_store_share_that_of_the_process(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The last queue closes it. A later queue reads the environment again."""
        monkeypatch.setenv("HASTEN_URL", f"sqlite:///{tmp_path / 'one.db'}")
        first, second = Queue("a"), Queue("b")
        assert repr(first) == "<Queue a>"
        await first.add("send")
        assert first.store is second.store
        assert first.engine is second.engine
        await first.aclose()
        monkeypatch.setenv("HASTEN_URL", f"sqlite:///{tmp_path / 'two.db'}")
        assert first.store is second.store
        await second.aclose()
        assert not (tmp_path / "one.db-wal").exists()
        await first.add("send")
        assert (tmp_path / "two.db").exists()
        await first.aclose()

    def test_threads_get_one_store_of_the_process(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Even if they all use it for the first time at once."""
        monkeypatch.setenv("HASTEN_URL", "memory://")
        queues = [Queue(f"q{number}") for number in range(8)]
        start = threading.Barrier(8)
        stores: set[Store] = set()

        def use(queue: Queue) -> None:
            start.wait()
            stores.add(queue.store)

        threads = [threading.Thread(target=use, args=[queue]) for queue in queues]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(stores) == 1
        queues[0].sync.close()

    async def test_a_worker_keeps_the_store_open(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HASTEN_URL", "memory://")
        async with Queue("mail") as queue:
            job = await queue.add("send")
            async with Worker(Queue("other")):
                await queue.aclose()
                assert (await job.refresh()).state is State.WAITING
                await queue.aclose()
            assert (await queue.counts())[State.WAITING] == 0

    async def test_a_block_closes_what_the_queue_has_opened(self, tmp_path: Path) -> None:
        async with Queue("mail", f"sqlite:///{tmp_path / 'jobs.db'}") as queue:
            await queue.add("send")
            assert (tmp_path / "jobs.db-wal").exists()
        assert not (tmp_path / "jobs.db-wal").exists()

    async def test_a_closed_queue_opens_again(self, tmp_path: Path) -> None:
        queue = Queue("mail", f"sqlite:///{tmp_path / 'jobs.db'}")
        job = await queue.add("send")
        for _ in range(3):
            await queue.aclose()
            await queue.aclose()
            assert (await job.refresh()).state is State.WAITING
        await queue.aclose()
        assert not (tmp_path / "jobs.db-wal").exists()

    async def test_closing_ends_those_who_wait_for_results(self, tmp_path: Path) -> None:
        """They get an error instead of waiting for ever."""
        queue = Queue("mail", f"sqlite:///{tmp_path / 'jobs.db'}")
        job = await queue.add("send")
        waiting = asyncio.create_task(job.result())
        await asyncio.sleep(0.05)  # no event shows that it waits
        await queue.aclose()
        async with asyncio.timeout(DEADLINE_SECONDS):
            with pytest.raises(StoreUnavailable, match="the store is closed"):
                await waiting

    async def test_a_queue_in_memory_is_gone_with_its_last_user(self) -> None:
        queue = Queue("mail", "memory://")
        await queue.add("send")
        await queue.aclose()
        assert (await queue.counts())[State.WAITING] == 0
        await queue.aclose()


class TestLoops:
    def test_a_queue_is_used_from_several_event_loops_at_once(self, url: str) -> None:
        """A server may have a loop in each thread, and a worker its own."""
        queue = Queue("mail", url)

        @queue.task
        async def double(number: int) -> int:
            return 2 * number

        results: list[int] = []

        async def produce(start: int) -> None:
            jobs = [await double.enqueue(start + n) for n in range(20)]
            results.extend(await asyncio.gather(*(job.result(timeout=20) for job in jobs)))

        async def work() -> None:
            async with Worker(queue):
                await asyncio.gather(
                    *(asyncio.to_thread(asyncio.run, produce(100 * n)) for n in range(3))
                )

        asyncio.run(work())
        assert sorted(results) == [2 * (100 * n + m) for n in range(3) for m in range(20)]
        asyncio.run(queue.aclose())

    def test_a_queue_is_used_from_one_event_loop_after_another(self, url: str) -> None:
        """As in tests, and in scripts that call asyncio.run several times."""
        queue = Queue("mail", url)

        async def add() -> int:
            await queue.add("send")
            counts = await queue.counts()
            return sum(counts[state] for state in READY)

        assert [asyncio.run(add()) for _ in range(3)] == [1, 2, 3]
        asyncio.run(queue.aclose())

    def test_a_caller_that_is_cancelled_harms_no_other(self, url: str) -> None:
        """Its job may or may not be stored. The jobs of the other callers are."""
        queue = Queue("mail", url)

        async def add() -> None:
            tasks = [asyncio.create_task(queue.add("send", {"n": n})) for n in range(10)]
            await asyncio.sleep(0)
            tasks[3].cancel()
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            assert isinstance(answers[3], asyncio.CancelledError)
            numbers = {job.data["n"] for job in await queue.jobs("waiting")}
            assert numbers >= set(range(10)) - {3}
            await queue.aclose()

        asyncio.run(add())

    def test_a_loop_that_is_closed_in_the_middle_is_no_trouble(self, url: str) -> None:
        """Nobody awaits the call any more, and the store works for others."""
        queue = Queue("mail", url)

        async def leave() -> None:
            waiting = asyncio.create_task(queue.add("send"))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            waiting.cancel()

        for _ in range(10):
            asyncio.run(leave())
        assert queue.sync.counts()[State.WAITING] <= 10
        queue.sync.close()

    def test_threads_may_open_it_at_the_same_time(self, url: str) -> None:
        queue = Queue("mail", url)
        start = threading.Barrier(8)

        def add() -> None:
            start.wait()
            queue.sync.add("send")

        threads = [threading.Thread(target=add) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert queue.sync.counts()[State.WAITING] == 8
        queue.sync.close()


FORGETFUL = """if True:
    import asyncio, sys
    from hasten.jobs import Queue, Worker

    queue = Queue("mail", sys.argv[1])

    @queue.task
    async def double(number: int) -> int:
        return 2 * number

    async def main() -> None:
        async with Worker(queue):
            print(await (await double.enqueue(21)).result(timeout=30))

    double.sync.enqueue(1)
    asyncio.run(main())
"""


def test_who_forgets_to_close_a_queue_leaves_nothing_open(url: str) -> None:
    """A script ends without a warning."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORGETFUL, url],
        check=False, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert (done.stdout, done.stderr, done.returncode) == ("42\n", "", 0)


def test_sync_events_iterate_from_when_they_were_made(tmp_path: Path) -> None:
    """Events of other threads arrive, too, and `close` ends the iteration."""
    queue = Queue("mail", f"sqlite:///{tmp_path / 'jobs.db'}")
    with queue.sync.events() as events:
        job = queue.sync.add("send")
        seen = [next(events).kind, next(events).kind]
        removing = threading.Timer(0, queue.sync.remove, [job.id])
        removing.start()
        seen.append(next(events).kind)
        removing.join()
    assert seen == ["added", "waiting", "removed"]
    assert list(events) == []
    queue.sync.close()


async def test_sync_events_block_no_running_loop(queue: Queue) -> None:
    with pytest.raises(UsageError):
        next(queue.sync.events())
