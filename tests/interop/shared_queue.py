"""A queue of both languages: its Python side, its Node side, and its keys."""

from __future__ import annotations

import asyncio
import itertools
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable
from typing import Any, Final

from hasten.jobs import Context, Job, Queue, Worker
from hasten.jobs._control_exceptions import Unrecoverable
from hasten.jobs._record import Event, JobRecord
from hasten.jobs._states import State
from tests.interop.peer import NodeObject, Peer
from tests.jobs.eventually import until, until_true
from tests.servers.redis import RedisServer

_numbers: Final = itertools.count(1)

# A Node worker without a marker checks after this time, which no test waits for.
DRAIN_DELAY_SECONDS: Final = 60


class SharedQueue:
    """One queue of its own for each test.

    Both sides have the tasks echo, fail, give_up, hold and report: see `_add_tasks`.
    """

    def __init__(self, server: RedisServer, peer: Peer, client: Any) -> None:
        self.name = f"shared-{next(_numbers)}"
        self.peer = peer
        self._server = server
        self._others: list[SharedQueue] = []
        self.redis = client  # its results have too many types to distinguish
        self.queue = Queue(self.name, server.url, keep_completed=True, keep_failed=True)
        self.python_runs: list[JobRecord] = []
        self._released: set[str] = set()
        self._workers: list[Worker] = []
        self._node_workers: list[NodeObject] = []
        self._listeners: list[asyncio.Task[None]] = []
        _add_tasks(self)

    async def open(self) -> None:
        self.node = await self.peer.make("Queue", f"{self.name} queue", self.name)

    def beside(self) -> SharedQueue:
        """Return another queue, which is closed with this one."""
        other = SharedQueue(self._server, self.peer, self.redis)
        self._others.append(other)
        return other

    async def close(self) -> None:
        for other in self._others:
            await other.close()
        for listener in self._listeners:
            listener.cancel()
        await asyncio.gather(*self._listeners, return_exceptions=True)
        await self.close_workers()
        await self.queue.aclose()

    async def close_workers(self) -> None:
        """Stop all workers. Python hands running jobs back, and Node leaves them."""
        for worker in self._workers:
            await worker.stop(grace=0)
        for node_worker in self._node_workers:
            await node_worker("close", True)
        self._workers.clear()
        self._node_workers.clear()

    # Workers ------------------------------------------------------------------------------------

    async def python_worker(self, *, idle: bool = True, **options: Any) -> Worker:
        """Start a Python worker that keeps all jobs. With idle, wait until it waits for work."""
        options = {"keep_completed": True, "keep_failed": True, **options}
        worker = Worker(self.queue, **options)
        await worker.start()
        self._workers.append(worker)
        if idle:
            await until(lambda: self.is_blocked(f":w:{worker.name.replace(' ', '-')}"))
        return worker

    async def node_worker(
        self, *, of: Peer | None = None, idle: bool = True, **options: object
    ) -> NodeObject:
        """Start a BullMQ worker. With idle, wait until it waits for work."""
        peer, handle = of or self.peer, f"{self.name} worker {next(_numbers)}"
        options = {"drainDelay": DRAIN_DELAY_SECONDS, "name": handle.replace(" ", "-"), **options}
        worker = await peer.make("Worker", handle, self.name, **options)
        if of is None:
            self._node_workers.append(worker)
        if idle:
            await until(lambda: self.is_blocked(f":w:{options['name']}"))
        return worker

    def is_blocked(self, connection: str) -> bool:
        """Return whether a worker with this end of its client name waits for a marker."""
        return any(
            client["cmd"] == "bzpopmin" and connection in client["name"]
            for client in self.redis.client_list()
            if client["name"].startswith(self._connection)
        )

    @property
    def _connection(self) -> str:
        return f"bull:{b64encode(self.name.encode()).decode()}:"

    def release(self, id: str) -> None:
        """Let a `hold` job of a Python worker end."""
        self._released.add(id)

    async def hold(self, ctx: Context) -> str:
        await until(lambda: ctx.job.id in self._released)
        return ctx.job.id

    # Events -------------------------------------------------------------------------------------

    async def node_events(self) -> NodeObject:
        """Return a QueueEvents that reads from the first event on."""
        return await self.peer.make("QueueEvents", f"{self.name} events", self.name)

    async def python_events(self) -> list[Event]:
        """Return a list that collects all events of `queue.events()` from the first one on."""
        heard: list[Event] = []

        async def listen() -> None:
            async for event in self.queue.events(after="0-0"):
                heard.append(event)  # noqa: PERF401  # a comprehension would end before it extends

        self._listeners.append(asyncio.create_task(listen()))
        return heard

    # Conditions ---------------------------------------------------------------------------------

    async def until_runs(self, worker: NodeObject, count: int) -> list[Any]:
        """Wait until a Node worker has started that many runs, and return them."""

        async def ran() -> bool:
            return len(await worker.runs()) >= count

        await until_true(ran)
        return await worker.runs()

    async def until_python_runs(self, count: int) -> list[JobRecord]:
        await until(lambda: len(self.python_runs) >= count)
        return self.python_runs

    async def until_state(self, id: str, state: State) -> Job[Any]:
        """Wait until a job is in this state, and return it."""
        found: list[Job[Any]] = []

        async def is_there() -> bool:
            job = await self.queue.get(id)
            if job is None or job.state is not state:
                return False
            found.append(job)
            return True

        await until_true(is_there)
        return found[-1]

    async def until_counts(self, **counts: int) -> None:
        """Wait until there are that many jobs in these states, as Node counts."""

        async def counted() -> bool:
            found = await self.node("getJobCounts")
            return all(found[state] == count for state, count in counts.items())

        await until_true(counted)

    async def until_heard(self, events: NodeObject, name: str, count: int = 1) -> list[Any]:
        """Wait until Node has received an event that often, and return all events."""

        async def heard() -> bool:
            return [event["event"] for event in await events.heard()].count(name) >= count

        await until_true(heard)
        return await events.heard()

    async def until_after(self, ms: int) -> None:
        """Wait until the clock has passed a time."""
        await until(lambda: time.time_ns() // 1_000_000 > ms)

    async def until(self, condition: Callable[[], object]) -> None:
        await until(condition)

    async def until_true(self, condition: Callable[[], Awaitable[bool]]) -> None:
        await until_true(condition)

    # Keys ---------------------------------------------------------------------------------------

    def key(self, suffix: str) -> str:
        return f"bull:{self.name}:{suffix}"

    def hash(self, id: str) -> dict[str, str]:
        """Return the fields of a job."""
        return dict(self.redis.hgetall(self.key(id)))

    def ids(self, state: str) -> list[str]:
        """Return the ids in the key of a state."""
        key = self.key(state)
        kind = self.redis.type(key)
        if kind == "list":
            return list(self.redis.lrange(key, 0, -1))
        # The key may have been created since the last check, as either type.
        return list(self.redis.zrange(key, 0, -1)) if kind == "zset" else []

    def stream(self) -> list[dict[str, str]]:
        """Return the stored events."""
        return [dict(fields) for _, fields in self.redis.xrange(self.key("events"))]

    def events_of(self, id: str) -> list[str]:
        """Return the names of the events of a job, in order."""
        return [entry["event"] for entry in self.stream() if entry.get("jobId") == id]


def _add_tasks(shared: SharedQueue) -> None:
    queue, runs = shared.queue, shared.python_runs

    @queue.task
    async def echo(ctx: Context, value: object = None, n: int = 0) -> object:
        runs.append(ctx.job)
        return value

    @queue.task
    async def fail(ctx: Context, message: str, times: int = 10**6) -> str:
        runs.append(ctx.job)
        if ctx.job.attempts_made < times:
            raise RuntimeError(message)
        return "at last"

    @queue.task
    async def give_up(ctx: Context, message: str, n: int = 0) -> None:
        runs.append(ctx.job)
        raise Unrecoverable(message)

    @queue.task
    async def hold(ctx: Context) -> str:
        runs.append(ctx.job)
        return await shared.hold(ctx)

    @queue.task
    async def report(ctx: Context, progress: object, lines: list[str]) -> str:
        runs.append(ctx.job)
        ctx.progress(progress)
        for line in lines:
            ctx.log(line)
        return "reported"
