"""A private PostgreSQL server on a socket of its own."""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.servers.programs import program
from tests.servers.redis import free_port

START_SECONDS: Final = 30.0

# Nothing in it outlives the tests, so nothing has to reach the disk. With synchronous_commit=off,
# too, VACUUM would leave the rows of a fresh commit out of the visibility map.
SETTINGS: Final = (
    "fsync=off", "full_page_writes=off", "wal_level=minimal",
    "max_wal_senders=0", "max_wal_size=4GB", "shared_buffers=512MB", "jit=off",
    "max_parallel_workers_per_gather=0", "autovacuum=off",
)  # fmt: skip


def postgres_program(name: str) -> str:
    """Return the path of a program of PostgreSQL: the newest of Debian, or that in the PATH."""
    newest = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=_version)
    return str(newest[-1]) if newest else program(name, package="postgresql")


def _version(path: Path) -> int:
    with contextlib.suppress(ValueError):
        return int(path.parent.parent.name)
    return 0


class PostgresServer:
    """A server in its own folder. Its user is `postgres`, without a password."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, driver: str) -> str:
        """Return the URL for SQLAlchemy with a driver, such as `asyncpg`."""
        return f"postgresql+{driver}://postgres@/postgres?host={self.folder}&port={self.port}"

    def start(self) -> PostgresServer:
        initdb, postgres = postgres_program("initdb"), postgres_program("postgres")
        self.folder.mkdir(parents=True, exist_ok=True)
        user = _who_may_run_it()
        if user is not None:
            shutil.chown(self.folder, user)
        data = self.folder / "data"
        subprocess.run(
            [initdb, "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8",
             "--locale=C", "--no-sync"],
            check=True, stdout=subprocess.DEVNULL, cwd=self.folder,
            user=user, extra_groups=_none(user),
        )  # fmt: skip
        settings = [part for setting in SETTINGS for part in ("-c", setting)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [postgres, "-D", str(data), "-p", str(self.port), "-k", str(self.folder),
                 "-c", "listen_addresses=", *settings],
                cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, user=user, extra_groups=_none(user),
            )  # fmt: skip
        self.until_ready()
        return self

    def until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        ask = [program("pg_isready"), "-q", "-h", str(self.folder), "-p", str(self.port)]
        while subprocess.run(ask, check=False).returncode != 0:
            if time.monotonic() > deadline or not self.is_running:
                raise AssertionError(f"no PostgreSQL:\n{self.log}")
            time.sleep(0.02)

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def stop(self) -> None:
        """Stop the server at once, and wait for its end."""
        if self._process is not None:
            self._process.send_signal(_IMMEDIATE)
            self._process.wait()
            self._process = None


_IMMEDIATE: Final = 3  # SIGQUIT: PostgreSQL's immediate shutdown, which also ends its children


def _who_may_run_it() -> str | None:
    """Return the user to run as, because PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    return None


def _none(user: str | None) -> list[int] | None:
    return None if user is None else []


@functools.cache
def shared_postgres() -> PostgresServer:
    """Return the server of all tests of this process, which use tables of their own."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    return PostgresServer(folder).start()
