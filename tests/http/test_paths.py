"""The extension http.response.pathsend: the server reads the file, as granian does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import FileResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from hasten.compression import CompressionCache, CompressionMiddleware, no_compression
from hasten.compression import _response as response
from tests.http import expect
from tests.http.bodies import JSON, NDJSON, ORDERS, noise, orders
from tests.http.client import App, Client, Headers, Message, Response
from tests.http.codings import CODINGS
from tests.http.hosts import start_message
from tests.http.test_asgi import sends

OFFERED: dict[str, Any] = {"extensions": {"http.response.pathsend": {}}}

LARGE = orders(4_000)


@pytest.fixture
def sliced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower the limit above which bodies are compressed in slices."""
    monkeypatch.setattr(response, "SLICED_ABOVE_BYTES", 300_000)
    assert len(LARGE) > 300_000


def app_of(file: Path, headers: Headers = JSON) -> App:
    return sends(start_message(200, headers), {"type": "http.response.pathsend", "path": str(file)})


def is_by_the_server(response: Response) -> bool:
    return [message["type"] for message in response.messages[1:]] == ["http.response.pathsend"]


async def get(app: App, accept: str = "gzip", **options: Any) -> Response:
    return await Client(CompressionMiddleware(app, **options)).get(accept, **OFFERED)


@pytest.mark.parametrize("coding", CODINGS)
async def test_a_path_is_coded_as_a_body_would_be(tmp_path: Path, coding: str) -> None:
    file = tmp_path / "orders.json"
    file.write_bytes(ORDERS)
    length = (b"content-length", b"%d" % len(ORDERS))
    for headers in (JSON, [*JSON, length, (b"etag", b'"abc"')]):
        found = expect.coded(await get(app_of(file, headers), coding), coding, ORDERS)
        assert found.get("content-length") == str(len(found.body))
        assert found.get("etag") in {None, 'W/"abc"'}


@pytest.mark.usefixtures("sliced")
@pytest.mark.parametrize("coding", CODINGS)
async def test_a_large_file_is_coded_piece_by_piece(tmp_path: Path, coding: str) -> None:
    file = tmp_path / "orders.json"
    file.write_bytes(LARGE)
    found = await get(app_of(file, [*JSON, (b"content-length", b"%d" % len(LARGE))]), coding)
    expect.coded(found, coding, LARGE)
    assert found.get("content-length") is None


async def test_an_incompressible_file_is_sent_by_the_server(tmp_path: Path) -> None:
    file = tmp_path / "orders.json"
    file.write_bytes(ORDERS)
    image = [(b"content-type", b"image/png")]
    assert is_by_the_server(await get(app_of(file, image)))
    assert is_by_the_server(await get(app_of(file), "identity"))
    small = [*JSON, (b"content-length", b"9")]
    assert is_by_the_server(await get(app_of(file, small)))
    file.write_bytes(noise(5000))
    expect.plain(await get(app_of(file)), noise(5000))


async def test_an_unreadable_file_is_sent_by_the_server(tmp_path: Path) -> None:
    """The response is the same as without the middleware."""
    for path in (tmp_path / "missing.json", tmp_path, Path("/null\0byte")):
        found = await get(app_of(path))
        assert is_by_the_server(found)
        assert found.coding is None


@pytest.mark.usefixtures("sliced")
async def test_a_file_is_sent_by_the_server_if_too_many_streams_are_open(tmp_path: Path) -> None:
    file = tmp_path / "orders.json"
    file.write_bytes(LARGE)
    found = await get(app_of(file), max_streams=0)
    assert is_by_the_server(found)
    assert found.coding is None


async def test_a_compressed_file_is_cached_by_its_etag(tmp_path: Path) -> None:
    file = tmp_path / "orders.json"
    file.write_bytes(ORDERS)
    cache = CompressionCache()
    shared = [*JSON, (b"etag", b'"abc"'), (b"cache-control", b"public")]
    client = Client(CompressionMiddleware(app_of(file, shared), cache=cache))
    for _ in range(2):
        expect.coded(await client.get("gzip", **OFFERED), "gzip", ORDERS)
    assert len(cache) == 1


async def test_files_of_starlette_are_coded(tmp_path: Path) -> None:
    (tmp_path / "orders.json").write_bytes(ORDERS)

    @no_compression
    async def secret(request: Any) -> FileResponse:
        return FileResponse(tmp_path / "orders.json")

    app = Starlette(routes=[Route("/secret", secret), Mount("/", StaticFiles(directory=tmp_path))])
    client = Client(CompressionMiddleware(app))
    expect.coded(await client.get("gzip", path="/orders.json", **OFFERED), "gzip", ORDERS)
    head = await client.head("gzip", path="/orders.json", **OFFERED)
    assert [message["type"] for message in head.messages[1:]] == ["http.response.body"]
    assert is_by_the_server(await client.get("gzip", path="/secret", **OFFERED))
    part = await client.get(
        "gzip", path="/orders.json", headers=[(b"range", b"bytes=0-9")], **OFFERED
    )
    assert (part.status, part.coding) == (206, None)


async def test_a_path_of_a_live_type_is_coded(tmp_path: Path) -> None:
    file = tmp_path / "orders.ndjson"
    file.write_bytes(ORDERS)
    expect.coded(await get(app_of(file, NDJSON)), "gzip", ORDERS)


async def test_trailers_follow_a_coded_file(tmp_path: Path) -> None:
    file = tmp_path / "orders.json"
    file.write_bytes(ORDERS)
    trailers: Message = {"type": "http.response.trailers", "headers": [(b"x-one", b"1")]}
    start = {**start_message(200, JSON), "trailers": True}
    path: Message = {"type": "http.response.pathsend", "path": str(file)}
    found = expect.coded(await get(sends(start, path, trailers)), "gzip", ORDERS)
    assert found.messages[-1] == trailers
