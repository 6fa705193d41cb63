"""Resources open when an application starts, and close when it stops."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any, Self

import pytest
from fastapi import FastAPI, Request
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from hasten import Store
from hasten.errors import InvalidOption
from hasten.fastapi import lifespan
from hasten.jobs import Queue, Worker
from tests.http.client import Client

Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]
State = dict[str, Any]


class Resource:
    """Notes when it is opened and closed."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.log = log

    async def __aenter__(self) -> Self:
        self.log.append(f"open {self.name}")
        return self

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        self.log.append(f"close {self.name}")


class NotedWorker(Worker):
    log: list[str]

    async def __aenter__(self) -> Self:
        self.log.append("start worker")
        return await super().__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await super().__aexit__(kind, error, trace)
        self.log.append("stop worker")


class StartupFailed(Exception):
    pass


@asynccontextmanager
async def running(app: Any, *, has_state: bool = True) -> AsyncIterator[State]:
    """Start and stop an application by ASGI's lifespan protocol, as a server does."""
    to_app: asyncio.Queue[Any] = asyncio.Queue()
    from_app: asyncio.Queue[Any] = asyncio.Queue()
    state: State = {}
    scope = {
        "type": "lifespan",
        "asgi": {"version": "3.0"},
        **({"state": state} if has_state else {}),
    }
    serving = asyncio.ensure_future(app(scope, to_app.get, from_app.put))
    for event in ("startup", "shutdown"):
        to_app.put_nowait({"type": f"lifespan.{event}"})
        answer = await from_app.get()
        if answer["type"] != f"lifespan.{event}.complete":
            await asyncio.wait([serving])
            error = serving.exception()
            raise StartupFailed(answer["message"]) from error
        if event == "startup":
            yield state
    await serving


def fastapi_app(own: Lifespan) -> FastAPI:
    app = FastAPI(lifespan=own, openapi_url=None)

    @app.get("/")
    async def state(request: Request) -> State:
        return {"name": request.state.name}

    return app


def starlette_app(own: Lifespan) -> Starlette:
    async def state(request: Any) -> JSONResponse:
        return JSONResponse({"name": request.state.name})

    return Starlette(routes=[Route("/", state)], lifespan=own)


APPS = pytest.mark.parametrize("make_app", [fastapi_app, starlette_app])


def own_lifespan(name: str, log: list[str], state: Mapping[str, Any] | None = None) -> Lifespan:
    @asynccontextmanager
    async def own(app: Any) -> AsyncIterator[Mapping[str, Any] | None]:
        log.append(f"open {name} of {type(app).__name__}")
        yield state
        log.append(f"close {name}")

    return own


def noted_worker(log: list[str]) -> NotedWorker:
    worker = NotedWorker(Queue("mail", "sqlite://"))
    worker.log = log
    return worker


@APPS
async def test_workers_start_last_and_stop_first(make_app: Any) -> None:
    log: list[str] = []
    app = make_app(
        lifespan(
            noted_worker(log),
            Resource("store", log),
            own_lifespan("database", log),
            Resource("client", log),
        )
    )
    async with running(app):
        log.append("serve")
    assert log == [
        "open store",
        f"open database of {type(app).__name__}",
        "open client",
        "start worker",
        "serve",
        "stop worker",
        "close client",
        "close database",
        "close store",
    ]


@APPS
async def test_state_reaches_requests(make_app: Any) -> None:
    log: list[str] = []
    app = make_app(
        lifespan(
            own_lifespan("first", log, {"name": "a", "first": 1}),
            Resource("store", log),
            own_lifespan("second", log, {"name": "b"}),
        )
    )
    async with running(app) as state:
        assert state == {"name": "b", "first": 1}

        async def with_state(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "state": dict(state)}, receive, send)

        response = await Client(with_state).get()
        assert response.body == b'{"name":"b"}'


@APPS
async def test_without_state_the_server_need_not_support_it(make_app: Any) -> None:
    log: list[str] = []
    app = make_app(lifespan(Resource("store", log), own_lifespan("own", log, {})))
    async with running(app, has_state=False):
        assert log[0] == "open store"
    assert log[-1] == "close store"


@APPS
@pytest.mark.parametrize("where", ["resource", "lifespan", "worker"])
async def test_open_resources_are_closed_if_the_next_cannot_open(make_app: Any, where: str) -> None:
    log: list[str] = []

    class Broken(Resource):
        async def __aenter__(self) -> Self:
            raise ConnectionError("no database")

    @asynccontextmanager
    async def broken(app: Any) -> AsyncIterator[None]:
        await Broken("y", log).__aenter__()
        yield

    class BrokenWorker(NotedWorker):
        async def start(self) -> None:
            raise ConnectionError("no database")

    worker = BrokenWorker(Queue("mail", "sqlite://"))
    worker.log = log
    last: Any = {"resource": Broken("x", log), "lifespan": broken, "worker": worker}[where]
    app = make_app(lifespan(Resource("a", log), own_lifespan("b", log), last))
    with pytest.raises(StartupFailed, match="no database") as caught:
        async with running(app):
            pytest.fail("it has started")
    assert isinstance(caught.value.__cause__, ConnectionError)
    opened = ["open a", f"open b of {type(app).__name__}"]
    assert [event for event in log if "worker" not in event] == [*opened, "close a"]


async def test_a_resource_that_cannot_be_closed_does_not_keep_others_open() -> None:
    log: list[str] = []

    class Broken(Resource):
        async def __aexit__(self, *error: object) -> None:
            raise ConnectionError("lost")

    app = fastapi_app(lifespan(Resource("a", log), Broken("b", log), Resource("c", log)))
    with pytest.raises(StartupFailed, match="lost"):
        async with running(app):
            pass
    assert log == ["open a", "open b", "open c", "close c", "close a"]


async def test_can_be_used_in_another_lifespan() -> None:
    log: list[str] = []
    ours = lifespan(Resource("store", log))

    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncIterator[State]:
        async with ours(app):
            log.append("own")
            yield {"name": "x"}

    async with running(fastapi_app(own)) as state:
        assert state == {"name": "x"}
    assert log == ["open store", "own", "close store"]


@APPS
async def test_jobs_run_while_the_application_does(make_app: Any) -> None:
    mail = Queue("mail", "sqlite://")

    @mail.task
    async def send(to: str) -> str:
        return f"to {to}"

    app = make_app(lifespan(Store("memory://"), Worker(mail)))
    async with running(app):
        job = await send.enqueue("ada")
        assert await job.result(timeout=10) == "to ada"
    late = await send.enqueue("bob")
    assert (await late.refresh()).state == "waiting"


async def test_a_worker_that_fails_ends_the_application_with_its_error() -> None:
    log: list[str] = []
    worker = Worker(Queue("mail", "sqlite://"))
    app = fastapi_app(lifespan(Resource("store", log), worker))
    with pytest.raises(StartupFailed, match="broken"):
        async with running(app):
            worker._stop_after_internal_error(RuntimeError("broken"))
    assert log == ["open store", "close store"]


async def test_a_function_creates_a_worker_for_each_start() -> None:
    """Tests start an application several times; a worker starts once."""
    log: list[str] = []
    app = fastapi_app(lifespan(lambda _: noted_worker(log), Resource("store", log)))
    for _ in range(2):
        async with running(app):
            pass
    assert log == ["open store", "start worker", "stop worker", "close store"] * 2


async def test_works_with_litestar() -> None:
    import litestar

    log: list[str] = []
    ours = lifespan(noted_worker(log), Resource("store", log))
    app = litestar.Litestar([], lifespan=[ours], openapi_config=None, logging_config=None)
    async with running(app):
        assert log == ["open store", "start worker"]
    assert log[2:] == ["stop worker", "close store"]


async def _coroutine(app: Any) -> None:
    """Is no lifespan."""


async def _undecorated(app: Any) -> AsyncIterator[None]:
    yield


@pytest.mark.parametrize(
    ("resource", "expected"),
    [
        ("sqlite:///hasten.db", "an async context manager such as"),
        (None, "an async context manager such as"),
        (_coroutine, "use @asynccontextmanager"),
        (_undecorated, "use @asynccontextmanager"),
    ],
)
def test_rejects_objects_that_cannot_be_opened(resource: Any, expected: str) -> None:
    with pytest.raises(InvalidOption, match=f"^resources=.*{expected}"):
        lifespan(Store("memory://"), resource)


async def test_rejects_functions_that_return_another_object() -> None:
    app = fastapi_app(lifespan(lambda app: None))  # type: ignore[arg-type, return-value]
    with pytest.raises(StartupFailed, match="an async context manager such as"):
        async with running(app):
            pass


def test_applications_without_jobs_do_not_load_them() -> None:
    program = (
        "import sys\nfrom hasten import Store\nfrom hasten.fastapi import lifespan\n"
        "import asyncio\n"
        "async def main():\n"
        "    async with lifespan(Store('memory://'))(None): pass\n"
        "asyncio.run(main())\n"
        "assert not any(name.startswith('hasten.jobs') for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
