"""A Node process with BullMQ (`peer.mjs`), which tests control."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
import tempfile
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final

from tests.servers.programs import leave_out, program

FOLDER: Final = Path(__file__).parent
ANSWER_SECONDS: Final = 20.0


class NodeError(Exception):
    """An exception of Node, or the end of its process."""


def node() -> str:
    """Return the path of Node. Without it or BullMQ, tests are skipped, but fail in CI."""
    path = program("node", package="nodejs npm")
    if not (FOLDER / "node_modules" / "bullmq").is_dir():
        leave_out("bullmq is not installed: run `make test`, which installs it")
    return path


class Peer:
    """The process. Tests of any event loop can use it."""

    def __init__(self, redis_port: int) -> None:
        path = node()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # it is the process's as well
        self._process = subprocess.Popen(
            [path, str(FOLDER / "peer.mjs"), str(redis_port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,
        )
        self._numbers = itertools.count(1)
        self._asked: dict[int, Future[Any]] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line)
            future = self._asked.pop(answer["id"])
            if not future.set_running_or_notify_cancel():
                continue  # the caller has stopped waiting
            if "error" in answer:
                future.set_exception(NodeError(answer["error"]))
            else:
                future.set_result(answer["value"])
        for future in self._asked.values():
            if future.set_running_or_notify_cancel():
                future.set_exception(NodeError(f"Node has ended:\n{self.log}"))

    @property
    def log(self) -> str:
        """Return its standard error."""
        return os.pread(self._log.fileno(), 100_000, 0).decode()

    async def ask(self, what: str, *, seconds: float = ANSWER_SECONDS, **rest: object) -> Any:
        """Execute a command: see `commands` in peer.mjs. Raises `NodeError`."""
        number = next(self._numbers)
        future = self._asked[number] = Future()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"id": number, "what": what, **rest}).encode() + b"\n")
        self._process.stdin.flush()
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            raise AssertionError(f"no answer to {what} {rest}\n{self.log}") from None

    async def make(self, kind: str, handle: str, queue: str = "", **options: object) -> NodeObject:
        """Create an object of a class of BullMQ."""
        await self.ask("make", kind=kind, handle=handle, queue=queue, options=options)
        return NodeObject(self, handle)

    def kill(self) -> None:
        """Kill the process, and wait for its end."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                stream.close()


class NodeObject:
    """An object of BullMQ."""

    def __init__(self, peer: Peer, handle: str) -> None:
        self._peer = peer
        self.handle = handle

    async def __call__(self, method: str, *args: object) -> Any:
        """Call a method, and return its result as JSON."""
        return await self._peer.ask("call", handle=self.handle, method=method, args=args)

    async def job(self, id: str, method: str, *args: object) -> Any:
        """Call a method of a job of a queue. Handles stand for objects."""
        return await self._peer.ask("callJob", handle=self.handle, job=id, method=method, args=args)

    async def runs(self) -> list[Any]:
        """Return the jobs that a worker has started, as they were then."""
        return list(await self._peer.ask("runs", handle=self.handle))

    async def heard(self) -> list[Any]:
        """Return the events that a QueueEvents has received."""
        return list(await self._peer.ask("heard", handle=self.handle))
