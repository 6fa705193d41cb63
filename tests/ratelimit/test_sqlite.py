"""The store in a SQLite file: what the contract of all stores does not cover."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

import pytest

from hasten import Store
from hasten.errors import InvalidOption, StoreTooNew, StoreUnavailable
from hasten.jobs import Queue
from hasten.ratelimit import Limiter
from hasten.ratelimit._counter_store import Check, hash_client
from hasten.ratelimit._rates import Rate
from hasten.ratelimit._rules import make_rule
from tests.ratelimit.stores import SECOND, Clock, counter_store, open_for_test


def rows(place: Path) -> int:
    with contextlib.closing(sqlite3.connect(place / "limits.db")) as connection:
        (count,) = connection.execute("SELECT count(*) FROM hasten_limits").fetchone()
        return int(count)


class TestSchema:
    async def test_a_file_without_a_version_is_opened_with_its_counts(self, tmp_path: Path) -> None:
        check = Check("api", hash_client("ada"), make_rule(Rate(2, 3600)))
        async with open_for_test("sqlite", tmp_path) as store:
            await store.hit([[check]])
        with contextlib.closing(sqlite3.connect(tmp_path / "limits.db")) as connection, connection:
            connection.execute("DROP TABLE hasten_limits_meta")
        async with open_for_test("sqlite", tmp_path) as store:
            assert (await store.hit([[check]]))[0][0].remaining == 0
        assert schema(tmp_path) == 1

    async def test_a_file_of_a_newer_version_is_refused(self, tmp_path: Path) -> None:
        check = Check("api", hash_client("ada"), make_rule(Rate(2, 3600)))
        async with open_for_test("sqlite", tmp_path) as store:
            await store.hit([[check]])
        with contextlib.closing(sqlite3.connect(tmp_path / "limits.db")) as connection, connection:
            connection.execute("UPDATE hasten_limits_meta SET value = 999")
        async with open_for_test("sqlite", tmp_path) as store:
            with pytest.raises(StoreTooNew, match="schema 999, this version supports 1"):
                await store.hit([[check]])

    @pytest.mark.parametrize("first", ["jobs", "limits"])
    async def test_jobs_and_limits_have_own_versions(self, tmp_path: Path, first: str) -> None:
        url = f"sqlite:///{tmp_path / 'limits.db'}"
        async with Store(url) as store, Queue("mail", store) as queue:
            limiter = Limiter("2/h", name="api", store=store)
            if first == "jobs":
                await queue.add("send")
            assert (await limiter.hit("ada")).remaining == 1
            await queue.add("send")
            assert sum((await queue.counts()).values()) == (2 if first == "jobs" else 1)
        assert schema(tmp_path) == 1


def schema(place: Path) -> int:
    with contextlib.closing(sqlite3.connect(place / "limits.db")) as connection:
        (version,) = connection.execute("SELECT value FROM hasten_limits_meta").fetchone()
        return int(version)


class TestFile:
    async def test_counts_survive_the_process(self, tmp_path: Path) -> None:
        check = Check("api", hash_client("ada"), make_rule(Rate(2, 3600)))
        for expected in (1, 0):
            async with open_for_test("sqlite", tmp_path) as store:
                assert (await store.hit([[check]]))[0][0].remaining == expected

    async def test_expired_rows_are_deleted(self, tmp_path: Path) -> None:
        clock = Clock()
        rule = make_rule(Rate(2, 60))
        async with open_for_test("sqlite", tmp_path, clock) as store:
            for number in range(500):
                await store.hit([[Check("api", hash_client(f"old {number}"), rule)]])
            clock.advance(60)
            for number in range(100):
                await store.hit([[Check("api", hash_client(f"new {number}"), rule)]])
        assert rows(tmp_path) == 100

    async def test_a_denial_writes_nothing(self, tmp_path: Path) -> None:
        check = Check("api", hash_client("ada"), make_rule(Rate(1, 60)))
        async with open_for_test("sqlite", tmp_path) as store:
            await store.hit([[check]])
            with contextlib.closing(sqlite3.connect(tmp_path / "limits.db")) as other:
                (before,) = other.execute("PRAGMA data_version").fetchone()
                assert not (await store.hit([[check]]))[0][0].ok
                (after,) = other.execute("PRAGMA data_version").fetchone()
        assert before == after

    async def test_a_block_does_not_shorten_the_life_of_counts(self, tmp_path: Path) -> None:
        clock = Clock()
        check = Check("api", hash_client("ada"), make_rule(Rate(2, 60)))
        async with open_for_test("sqlite", tmp_path, clock) as store:
            await store.hit([[check]])
            await store.block("api", hash_client("ada"), SECOND)
            clock.advance(1)
            await store.hit([[check._replace(key=hash_client("bob"))]])  # sweeps
            assert (await store.hit([[check]]))[0][0].remaining == 0

    async def test_it_may_share_a_file_with_jobs(self, tmp_path: Path) -> None:
        from hasten.jobs import Queue

        url = f"sqlite:///{tmp_path / 'app.db'}"
        queue = Queue("mail", url)
        await queue.add("send", {})
        store = counter_store(url)
        assert (await store.hit([[Check("api", hash_client("ada"), make_rule(Rate(2, 60)))]]))[0][
            0
        ].ok
        await queue.add("send", {})
        await store.aclose()
        await queue.aclose()

    async def test_a_folder_that_is_missing_is_named(self, tmp_path: Path) -> None:
        store = counter_store(f"sqlite:///{tmp_path / 'none' / 'limits.db'}")
        with pytest.raises(StoreUnavailable, match=r"folder .* does not exist"):
            await store.hit([[Check("api", hash_client("ada"), make_rule(Rate(2, 60)))]])
        await store.aclose()

    @pytest.mark.parametrize(
        "url", ["sqlite://host/x", "sqlite:///x?a=1", "redis:///x/y/z", "mysql://host"]
    )
    def test_other_urls_are_refused(self, url: str) -> None:
        with pytest.raises(InvalidOption, match=r"^url="):
            counter_store(url)

    async def test_a_path_is_relative_or_absolute(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        check = Check("api", hash_client("ada"), make_rule(Rate(2, 60)))
        for url in ("sqlite:///limits.db", f"sqlite:///{os.fspath(tmp_path)}/limits.db"):
            store = counter_store(url)
            await store.hit([[check]])
            await store.aclose()
        assert rows(tmp_path) == 1
