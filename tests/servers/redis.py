"""Private redis-server processes on free ports."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import redis

from tests.servers.programs import program

START_SECONDS: Final = 20.0

SERVER: Final = os.environ.get("HASTEN_TEST_SERVER", "redis-server")
"""The program that the tests run: another version of Redis, or `valkey-server`."""


def free_port() -> int:
    """A port that nobody listens on, and that no other test process gets while this one runs.

    A cluster's node wants the one 10,000 above it, too. Both are below those that the system gives
    to connections: a client of a server that is down could otherwise be given the server's port.
    """
    while True:
        port = _random.randrange(11_000, 21_000)
        mark = socket.socket(type=socket.SOCK_DGRAM)
        with contextlib.suppress(OSError), mark, socket.socket() as server, socket.socket() as bus:
            server.bind(("127.0.0.1", port))
            bus.bind(("127.0.0.1", port + 10_000))
            # The same number in UDP, which no server uses, is taken until this process ends.
            mark.bind(("127.0.0.1", port))
            os.dup(mark.fileno())
            return port


# A random generator that hypothesis does not seed.
_random: Final = random.SystemRandom()


class RedisServer:
    """A redis-server in its own folder. It has the same port after a restart."""

    def __init__(self, folder: Path, *settings: str, port: int | None = None) -> None:
        self.folder = folder
        self.port = port or free_port()
        self._settings = settings
        self._ports = ["--port", str(self.port)]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, *, wait: bool = True) -> RedisServer:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    program(SERVER), *self._command(),
                ],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )  # fmt: skip
        if wait:
            self.until_ready()
        return self

    def use_tls(self) -> None:
        """Use TLS on its port. The settings name the certificate and key."""
        self._ports = ["--port", "0", "--tls-port", str(self.port)]

    def _command(self) -> list[str]:
        return [
            *self._ports, "--bind", "127.0.0.1", "--dir", str(self.folder),
            "--save", "", "--appendonly", "no", "--daemonize", "no", "--protected-mode", "no",
            *self._settings,
        ]  # fmt: skip

    def until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with self.client() as client:
                    client.ping()
                    return
            except redis.RedisError:
                if time.monotonic() > deadline or not self.is_running:
                    raise AssertionError(f"no Redis:\n{self.log}") from None
                time.sleep(0.02)

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def client(self, **settings: Any) -> redis.Redis:
        return redis.Redis(port=self.port, protocol=2, **settings)

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill the process, and wait for its end."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        self.kill()
        self.start()

    def pause(self) -> None:
        """Stop the process: it accepts connections and does not respond."""
        self.send(signal.SIGSTOP)

    def go_on(self) -> None:
        self.send(signal.SIGCONT)


@functools.cache
def shared_redis() -> RedisServer:
    """Return the server of all tests of this process, which use prefixes of their own."""
    folder = Path(tempfile.mkdtemp(prefix="redis-"))
    return RedisServer(folder).start()
