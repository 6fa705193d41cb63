"""The stores of contestants: folders for files, or a Redis server that is started for them."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sqlite3
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

START_SECONDS: Final = 20.0
FLUSHES: Final = 100


class Store:
    """Creates an empty location, a folder or a URL, for each run of a contestant.

    cpu_seconds and memory_bytes are those of the server, 0 if there is none.
    """

    def __init__(self, parent: Path | None) -> None:
        """parent is the folder for all files, None for the folder of temporary files."""
        self._parent = parent

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the server, if there is one."""

    def new_location(self) -> contextlib.AbstractContextManager[str]:
        raise NotImplementedError

    def facts(self) -> dict[str, str]:
        """Return facts about the store that the numbers depend on."""
        raise NotImplementedError

    def cpu_seconds(self) -> float:
        return 0.0

    def memory_bytes(self) -> int:
        return 0


class Folders(Store):
    """Creates a temporary folder for each run."""

    @contextlib.contextmanager
    def new_location(self) -> Iterator[str]:
        folder = tempfile.mkdtemp(prefix="hasten-bench-", dir=self._parent)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def facts(self) -> dict[str, str]:
        return {
            "sqlite": sqlite3.sqlite_version,
            "flush": f"{self._flush_ms():.2f} ms to write a page and flush it (fsync)",
        }

    def _flush_ms(self) -> float:
        """Return the median time to write and flush a page, as each commit has to, in ms.

        If it is almost 0, the folder is not on a real disk.
        """
        taken: list[float] = []
        with tempfile.NamedTemporaryFile(dir=self._parent) as file:
            for _ in range(FLUSHES):
                start = time.perf_counter()
                file.write(b"\0" * 4096)
                file.flush()
                os.fsync(file.fileno())
                taken.append((time.perf_counter() - start) * 1e3)
        return statistics.median(taken)


class RedisServer(Store):
    """A redis-server on a free port, without persistence. A context manager that stops it."""

    def __init__(self, parent: Path | None) -> None:
        import redis

        super().__init__(parent)

        self._folder = Path(tempfile.mkdtemp(prefix="hasten-bench-", dir=parent))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        self._url = f"redis://127.0.0.1:{port}/0"
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    "redis-server", "--port", str(port), "--bind", "127.0.0.1",
                    "--dir", str(self._folder), "--save", "", "--appendonly", "no",
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,  # Ctrl-C does not reach it: __exit__ stops it
            )  # fmt: skip
        self._client = redis.Redis(port=port)

    def __enter__(self) -> Self:
        import redis

        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self._client.ping()
                return self
            except redis.RedisError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    self.__exit__()
                    raise
                time.sleep(0.02)

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    @contextlib.contextmanager
    def new_location(self) -> Iterator[str]:
        self._client.flushall()
        yield self._url

    def cpu_seconds(self) -> float:
        """Return the processor time of all threads of the server, system calls included."""
        found = self._client.info("cpu")
        return float(found["used_cpu_user"]) + float(found["used_cpu_sys"])

    def memory_bytes(self) -> int:
        return int(self._client.info("memory")["used_memory"])

    def facts(self) -> dict[str, str]:
        version = self._client.info("server")["redis_version"]
        return {"redis": f"{version}, on this machine, without persistence"}
