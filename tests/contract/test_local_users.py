"""What other users of the machine can read, and which files they can make us write."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import stat
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from hasten.errors import StoreCorrupt, StoreError, StoreFull, StoreUnavailable
from hasten.jobs import Queue
from hasten.ratelimit import Rate
from hasten.ratelimit._counter_store import Check, hash_client
from hasten.ratelimit._rules import make_rule
from tests.ratelimit.stores import counter_store

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="has no such modes and links")

Use = Callable[[Path], Awaitable[None]]


async def add_a_job(path: Path) -> None:
    queue = Queue("mail", f"sqlite:///{path}")
    try:
        await queue.add("send")
        check_modes(path)
    finally:
        await queue.aclose()


async def count_a_request(path: Path) -> None:
    store = counter_store(f"sqlite:///{path}")
    try:
        await store.hit([[Check("api", hash_client("ada"), make_rule(Rate(2, 60)))]])
        check_modes(path)
    finally:
        await store.aclose()


def check_modes(path: Path) -> None:
    """Check that the files of the open database have its mode."""
    modes = {mode_of(file) for file in path.resolve().parent.glob(f"{path.resolve().name}*")}
    assert modes == {mode_of(path)}


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[add_a_job, count_a_request])
def use(request: pytest.FixtureRequest) -> Use:
    found: Use = request.param
    return found


@pytest.fixture(autouse=True)
def _usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


async def test_a_new_file_is_for_its_user_alone(use: Use, tmp_path: Path) -> None:
    await use(tmp_path / "hasten.db")
    assert mode_of(tmp_path / "hasten.db") == 0o600


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOSPC, StoreFull), (errno.EIO, StoreUnavailable)]
)
async def test_a_file_that_cannot_be_created_is_named(
    use: Use, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[StoreError]
) -> None:
    real = os.open

    def fail(path: str, *args: int) -> int:
        if str(path).endswith("hasten.db"):
            raise OSError(number, "so it is")
        return real(path, *args)

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(kind, match=r"hasten\.db: cannot create the file: so it is"):
        await use(tmp_path / "hasten.db")


async def test_a_file_keeps_the_mode_that_its_user_gave_it(use: Use, tmp_path: Path) -> None:
    """Users of a group share a store through an empty file with the right mode."""
    file = tmp_path / "hasten.db"
    file.touch()
    file.chmod(0o660)
    await use(file)
    await use(file)
    assert mode_of(file) == 0o660


async def test_a_link_to_a_store_is_followed(use: Use, tmp_path: Path) -> None:
    await use(tmp_path / "hasten.db")
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "hasten.db"
    link.symlink_to(tmp_path / "hasten.db")
    await use(link)


async def test_a_link_to_no_store_is_refused(use: Use, tmp_path: Path) -> None:
    """Otherwise a user with access to the folder could choose the file that we write."""
    target, link = tmp_path / "target", tmp_path / "hasten.db"
    link.symlink_to(target)
    with pytest.raises(StoreUnavailable, match="symbolic link that leads to no store"):
        await use(link)
    assert not target.exists()
    target.touch()
    with pytest.raises(StoreUnavailable, match="symbolic link that leads to no store"):
        await use(link)
    assert target.stat().st_size == 0


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
async def test_a_link_as_a_side_file_is_refused(use: Use, tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"hasten.db{suffix}").symlink_to(tmp_path / "target")
    with pytest.raises(StoreUnavailable, match=f"hasten.db{suffix} is a symbolic link"):
        await use(tmp_path / "hasten.db")
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("journal_mode", ["delete", "wal"])
@pytest.mark.parametrize("is_open", [False, True])
async def test_a_database_of_another_program_is_refused_untouched(
    use: Use, tmp_path: Path, journal_mode: str, is_open: bool
) -> None:
    file = tmp_path / "shop.db"
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute(f"PRAGMA journal_mode = {journal_mode}")
        connection.execute('CREATE TABLE shop ("odd\n" TEXT)')
        connection.execute("INSERT INTO shop VALUES ('sold')")
        connection.commit()
        if not is_open:
            connection.close()
        before = {path: path.read_bytes() for path in tmp_path.iterdir()}
        with pytest.raises(StoreCorrupt, match=r"of another program \(tables: shop\)"):
            await use(file)
        after = {path: path.read_bytes() for path in tmp_path.iterdir()}
    shared_memory = tmp_path / "shop.db-shm"  # readers write to it
    assert after | {shared_memory: b""} == before | {shared_memory: b""}


async def test_a_database_with_our_tables_among_others_is_used(use: Use, tmp_path: Path) -> None:
    """Earlier versions accepted such a file."""
    file = tmp_path / "shop.db"
    await use(file)
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE shop (name)")
    await use(file)
