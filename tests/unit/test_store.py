"""Stores: URL, clock, time-out, prefix, and what is opened and closed with them."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from hasten import Store
from hasten._store import to_store
from hasten._store_url import RedisAddress, SqliteFile
from hasten.errors import InvalidOption
from hasten.testing import ManualClock


class Recorded:
    """A part of a store that records its calls."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.closed = 0

    async def aclose(self) -> None:
        self.closed += 1

    def close_without_event_loop(self) -> None:
        self.closed += 100


class TestUrl:
    def test_a_store_in_memory(self) -> None:
        assert Store("memory://").location == SqliteFile(None)
        assert Store("sqlite://").location == SqliteFile(None)

    def test_a_file_is_relative_to_the_working_directory_or_absolute(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert Store("sqlite:///a%20b.db").location == SqliteFile(tmp_path / "a b.db")
        assert Store("sqlite:////var/a.db?synchronous=normal").location == SqliteFile(
            Path("/var/a.db"), "NORMAL"
        )

    @pytest.mark.parametrize("url", ["redis://host:1234/2", "rediss://host", "unix:///run/r.sock"])
    def test_a_store_on_a_server(self, url: str) -> None:
        assert isinstance(Store(url).location, RedisAddress)

    @pytest.mark.parametrize(
        "url",
        [
            "", "mysql://host", "hasten.db", "memory:///file", "sqlite://file.db", "memory://?x=1",
            "sqlite:///a.db?prefix=x", "sqlite:///a.db?timeout=soon", "sqlite:///a.db?timeout=-1",
            "sqlite:///a.db?synchronous=maybe", "redis://host?colour=red", None, 5, Path("a.db"),
        ],
    )  # fmt: skip
    def test_an_invalid_url_is_rejected(self, url: str) -> None:
        with pytest.raises(InvalidOption, match="must be"):
            Store(url)

    def test_no_password_is_shown(self) -> None:
        store = Store("redis://ada:secret@host")
        assert store.url == "redis://ada@host"
        assert repr(store) == "Store('redis://ada@host')"

    def test_the_url_comes_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("HASTEN_URL", raising=False)
        assert Store.from_env().url == "sqlite:///hasten.db"
        assert Store.from_env("memory://").url == "memory://"
        monkeypatch.setenv("HASTEN_URL", "redis://host")
        assert Store.from_env("memory://", timeout=2).timeout == 2
        assert Store.from_env().url == "redis://host"


class TestOptions:
    def test_all_stores_have_the_same_time_out_option(self) -> None:
        urls = ("memory://", "sqlite:///a.db", "redis://host")
        assert {Store(url).timeout for url in urls} == {5.0}
        assert {Store(f"{url}?timeout=2.5").timeout for url in urls} == {2.5}
        assert Store("memory://", timeout="2m").timeout == 120
        assert Store("memory://", timeout=timedelta(seconds=3)).timeout == 3

    def test_a_time_out_of_0_is_rejected(self) -> None:
        for url in ("memory://", "redis://host"):
            with pytest.raises(InvalidOption, match="timeout=0: must be more than 0 seconds"):
                Store(url, timeout=0)
        for url in ("memory://?timeout=0", "sqlite:///a.db?timeout=0", "redis://host?timeout=0"):
            with pytest.raises(InvalidOption, match="timeout"):
                Store(url)

    def test_an_option_cannot_be_both_in_the_url_and_an_argument(self) -> None:
        with pytest.raises(InvalidOption, match=r"cannot be combined with the \w+ in the URL"):
            Store("redis://host?timeout=2", timeout=3)
        with pytest.raises(InvalidOption, match=r"cannot be combined with the \w+ in the URL"):
            Store("redis://host?prefix=a", prefix="b")

    def test_only_redis_has_a_prefix(self) -> None:
        assert Store("redis://host").prefix is None
        assert Store("redis://host", prefix="shop").prefix == "shop"
        assert Store("redis://host?prefix=shop").prefix == "shop"
        for url in ("memory://", "sqlite:///a.db"):
            with pytest.raises(InvalidOption, match="only for keys on Redis"):
                Store(url, prefix="shop")
        with pytest.raises(InvalidOption, match="not empty"):
            Store("redis://host", prefix="")

    def test_the_clock_is_checked(self) -> None:
        clock = ManualClock()
        assert Store("memory://", clock=clock).clock is clock
        with pytest.raises(InvalidOption, match="clock"):
            Store("memory://", clock=object())  # type: ignore[arg-type]

    def test_to_store_accepts_a_url_or_a_store(self) -> None:
        store = Store("memory://")
        assert to_store(store) is store
        assert to_store("memory://").url == "memory://"


class TestParts:
    async def test_a_part_is_created_once_and_closed_with_the_store(self) -> None:
        async with Store("memory://") as store:
            part = store.get_or_make_part("jobs", Recorded)
            assert store.get_or_make_part("jobs", Recorded) is part
            assert store.get_or_make_part("limits", Recorded) is not part
            assert part.store is store
        assert part.closed == 1
        await store.aclose()
        assert part.closed == 1
        assert store.get_or_make_part("jobs", Recorded) is not part

    async def test_all_parts_are_closed_even_if_one_fails(self) -> None:
        class Broken(Recorded):
            async def aclose(self) -> None:
                raise RuntimeError("broken")

        store = Store("memory://")
        store.get_or_make_part("jobs", Broken)
        part = store.get_or_make_part("limits", Recorded)
        with pytest.raises(RuntimeError, match="broken"):
            await store.aclose()
        assert part.closed == 1

    @pytest.mark.parametrize("end", ["", "del store; import gc; gc.collect()"])
    def test_an_open_store_is_closed_at_the_end_of_the_process(self, end: str) -> None:
        """Also if nothing refers to the store any more."""
        program = (
            "from hasten import Store\n"
            "class Part:\n"
            "    def __init__(self, store): pass\n"
            "    async def aclose(self): pass\n"
            "    def close_without_event_loop(self): print('closed')\n"
            "store = Store('memory://'); store.get_or_make_part('jobs', Part)\n"
            f"{end}\n"
        )
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout == "closed\n"

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
    def test_a_store_can_be_used_after_a_fork_while_locked(self) -> None:
        program = (
            "import os\n"
            "from hasten import Store\n"
            "class Part:\n"
            "    def __init__(self, store): pass\n"
            "    def close_without_event_loop(self): pass\n"
            "store = Store('memory://')\n"
            "store._lock.acquire()\n"
            "child = os.fork()\n"
            "if child == 0:\n"
            "    store.get_or_make_part('jobs', Part); os._exit(7)\n"
            "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        )
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        assert done.stdout == "7\n"


def test_the_store_imports_no_capability() -> None:
    program = (
        "import sys, hasten; hasten.Store('sqlite:///a.db')\n"
        "print([m for m in sys.modules if m.startswith(('hasten.jobs', 'hasten.ratelimit'))])\n"
        "print('sqlite3' in sys.modules, 'redis' in sys.modules)"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\nFalse False\n"
