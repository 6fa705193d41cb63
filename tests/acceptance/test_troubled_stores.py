"""Stores that cannot be used: which error the producer gets, and how workers recover."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from hasten.errors import StoreFull
from hasten.jobs import Queue
from hasten.jobs._states import State
from tests.acceptance import app
from tests.acceptance.site import Program, Site


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """A site on a file. Problems of servers are in `test_troubled_servers`."""
    site = Site(tmp_path)
    yield site
    await site.close()


async def refused(site: Site, error: str, *options: str, url: str | None = None) -> None:
    """Check that a producer ends with this error."""
    producer = site.start("enqueue", *options, url=url)
    await site.until_ended(producer)
    assert producer.status == 1
    assert producer.said == []
    assert producer.log.splitlines()[-1] == error


async def until_it_reports(site: Site, worker: Program, why: str) -> None:
    await site.until(
        lambda: "store unavailable" in worker.log and f": {site.url}: {why}" in worker.log
    )


async def prove_it_works(site: Site, worker: Program) -> None:
    """Check that the same process runs a job."""
    job = await site.add(app.step)
    assert await job.result(timeout=20) == worker.pid


async def create(site: Site, *, jobs: int = 0) -> None:
    """Create the store with jobs in it, and empty its write-ahead log."""
    await site.queue.add_many([(app.step.name, {})] * jobs)
    await site.queue.counts()
    await site.queue.aclose()


def query(site: Site, sql: str) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(site.store, isolation_level=None)) as connection:
        return connection.execute(sql).fetchall()


async def test_a_missing_folder_is_named_and_retried(site: Site) -> None:
    """The volume may be mounted late."""
    folder = site.folder / "volume"
    site.move_store(folder / "jobs.db")
    why = f"folder {folder} does not exist: create it"
    await refused(site, f"StoreUnavailable: {site.url}: {why}")
    worker = await site.start_worker()
    await until_it_reports(site, worker, why)
    assert not folder.exists()
    folder.mkdir()
    await prove_it_works(site, worker)


class TestReadOnly:
    async def test_a_read_only_folder(self, open_site: Site, plain_user: tuple[str, ...]) -> None:
        """For example, a read-only file system of a container."""
        site = open_site
        folder = site.folder / "volume"
        folder.mkdir(mode=0o555)
        site.move_store(folder / "jobs.db")
        why = f"cannot create the file: make the folder {folder} writable"
        await refused(site, f"StoreReadOnly: {site.url}: {why}", *plain_user)
        worker = await site.start_worker(*plain_user)
        await until_it_reports(site, worker, why)
        assert list(folder.iterdir()) == []
        folder.chmod(0o777)
        job = site.start("enqueue", *plain_user)
        await site.until_ended(job)
        await site.until_settled(1)

    async def test_a_read_only_file(self, open_site: Site, plain_user: tuple[str, ...]) -> None:
        """Another user has created it."""
        site = open_site
        await create(site, jobs=1)
        site.store.chmod(0o444)
        before = site.store.read_bytes()
        why = "not writable: make the file writable"
        await refused(site, f"StoreReadOnly: {site.url}: {why}", *plain_user)
        worker = await site.start_worker(*plain_user)
        await until_it_reports(site, worker, why)
        assert site.store.read_bytes() == before
        site.store.chmod(0o666)
        await site.until_settled(1)


@pytest.fixture
async def small_site(tmp_path: Path) -> AsyncIterator[Site]:
    """A site whose store has a disk of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    command = [str(mount), "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if mount is None or os.geteuid() != 0 or subprocess.run(command, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    site = Site(tmp_path)
    site.move_store(disk / "jobs.db")
    yield site
    await site.close()
    subprocess.run(["umount", str(disk)], check=True)


class TestFullDisk:
    async def test_rejects_jobs_and_pauses_the_worker_until_freed(self, small_site: Site) -> None:
        """Nothing is stored in part. The worker continues when there is space."""
        site = small_site
        job = await site.add(app.hold, gate=str(site.gate))
        worker = await site.start_worker()
        await site.until_started(job)
        await create(site)
        filler = site.store.with_name("filler")
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        why = "no space left (database or disk is full): free space on its disk"
        await refused(site, f"StoreFull: {site.url}: {why}", "--count=1000000")
        site.open_gate()
        await until_it_reports(site, worker, why)
        filler.unlink()
        assert await job.result(timeout=20) == worker.pid
        await prove_it_works(site, worker)
        assert query(site, "PRAGMA integrity_check") == [("ok",)]

    async def test_a_batch_that_does_not_fit_is_rejected_as_a_whole(self, tmp_path: Path) -> None:
        """Smaller batches still fit."""
        queue = Queue("full", f"sqlite:///{tmp_path / 'jobs.db'}")
        await queue.add("first")
        await limit_pages(queue, 60)
        with pytest.raises(StoreFull, match="no space left"):
            await queue.add_many([("large", {"text": "x" * 1000})] * 1000)
        assert (await queue.counts())[State.WAITING] == 1
        await queue.add("another")
        assert [job.name for job in await queue.jobs(State.WAITING)] == ["first", "another"]
        await queue.aclose()


async def limit_pages(queue: Queue, count: int) -> None:
    """Limit the size of the file, like a disk with little space."""
    database = getattr(queue.engine, "_database")  # noqa: B009  # private, of one engine
    database.run_blocking(
        lambda connection: connection.execute(f"PRAGMA max_page_count = {count}").fetchall()
    )


DAMAGED = (
    "damaged, or not a SQLite database (file is not a database): "
    "restore it from a backup, or use another file"
)


def stopped_between_steps(site: Site, worker: Program) -> bool:
    """Stop a worker while it holds no lock, and empty the write-ahead log."""
    worker.send(signal.SIGSTOP)
    ((busy, _, _),) = query(site, "PRAGMA wal_checkpoint(TRUNCATE)")
    if busy:
        worker.send(signal.SIGCONT)
    return not busy


class TestCorrupt:
    async def test_a_file_that_is_no_database_is_not_changed(self, site: Site) -> None:
        """The path has a typing error, and the file is a photograph."""
        site.store.write_bytes(b"not a database, and longer than a header" * 1000)
        before = site.store.read_bytes()
        await refused(site, f"StoreCorrupt: {site.url}: {DAMAGED}")
        assert site.store.read_bytes() == before

    async def test_damage_under_a_worker_is_reported_and_the_backup_used(self, site: Site) -> None:
        """The worker continues when the store can be read again."""
        await create(site, jobs=3)
        backup = site.folder / "backup.db"
        shutil.copy(site.store, backup)
        worker = await site.start_worker()
        await site.until_settled(3)
        await site.queue.aclose()
        # While the worker is stopped, so that its cache has no intact pages afterwards.
        await site.until(lambda: stopped_between_steps(site, worker))
        with site.store.open("r+b") as file:
            file.write(os.urandom(site.store.stat().st_size))
        worker.send(signal.SIGCONT)
        await refused(site, f"StoreCorrupt: {site.url}: {DAMAGED}")
        await until_it_reports(site, worker, "damaged, or not a SQLite database")
        for name in ("jobs.db-wal", "jobs.db-shm"):
            (site.folder / name).unlink(missing_ok=True)
        backup.replace(site.store)
        await site.until(lambda: len(site.entries()) == 2 * (3 + 3))
        await site.until_settled(3)
        assert worker.is_running


class TestReplaced:
    async def test_a_deleted_store_is_created_again(self, site: Site) -> None:
        """The jobs of the deleted file are lost, and later ones are not."""
        job = await site.add(app.step)
        worker = await site.start_worker()
        await job.result(timeout=20)
        for file in site.folder.glob("jobs.db*"):
            file.unlink()
        await prove_it_works(site, worker)
        assert "was moved, deleted or replaced: " in worker.log
        assert (await site.queue.counts())[State.COMPLETED] == 1

    async def test_the_jobs_of_a_replaced_store_are_run(self, site: Site) -> None:
        """A backup is restored under a running worker. Nothing is written to the old file."""
        await create(site, jobs=3)
        backup = site.folder / "backup.db"
        shutil.copy(site.store, backup)
        worker = await site.start_worker()
        await site.until_settled(3)
        await site.queue.aclose()
        query(site, "PRAGMA wal_checkpoint(TRUNCATE)")
        for name in ("jobs.db-wal", "jobs.db-shm"):
            (site.folder / name).unlink(missing_ok=True)
        backup.replace(site.store)
        await site.until(lambda: len(site.entries()) == 2 * (3 + 3))
        await site.until_settled(3)
        assert worker.is_running


class TestOthers:
    async def test_a_store_of_a_newer_version_is_not_changed(self, site: Site) -> None:
        """After a rollback of the application: its newer jobs must not be misread."""
        await create(site, jobs=1)
        query(site, "UPDATE hasten_meta SET value = 999 WHERE name = 'schema'")
        before = site.store.read_bytes()
        producer = site.start("enqueue")
        await site.until_ended(producer)
        last = producer.log.splitlines()[-1]
        assert last.startswith(
            f"StoreTooNew: {site.url}: written by a newer version of hasten (schema 999"
        )
        assert last.endswith("upgrade hasten, or use another file")
        assert site.store.read_bytes() == before

    async def test_a_store_can_hold_the_tables_of_an_application_too(self, site: Site) -> None:
        """The application and the queue share one file."""
        worker = await site.start_worker()
        await prove_it_works(site, worker)
        query(site, "CREATE TABLE users (name TEXT)")
        query(site, "INSERT INTO users VALUES ('Ada')")
        with transaction(site) as connection:
            connection.execute("INSERT INTO users VALUES ('Grace')")
        await prove_it_works(site, worker)
        assert query(site, "SELECT name FROM users") == [("Ada",), ("Grace",)]
        tables = [str(name) for (name,) in query(site, "SELECT name FROM sqlite_schema")]
        assert all(name == "users" or "hasten_" in name for name in tables)


@contextlib.contextmanager
def transaction(site: Site) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(site.store, timeout=20)) as connection, connection:
        yield connection
