"""The demo answers every request with an expected status.

Requests are generated from the demo's OpenAPI document, valid and invalid ones, and from raw bytes.
The application runs in this process: an exception fails the test, and responses are checked as a
strict server would check them.
"""

from __future__ import annotations

import functools
import json
from collections.abc import AsyncIterator, Iterator
from ipaddress import IPv4Network
from typing import Any, Final
from urllib.parse import quote_from_bytes, unquote, urlsplit

import pytest
import pytest_asyncio
import requests
from hypothesis import given
from hypothesis import strategies as st

from examples.send_email import mail
from examples.send_email.app import app
from examples.send_email.smtp import Mailbox, smtp_server
from tests.effort import effort
from tests.http.client import Exchange, Headers, Response

# All in one event loop: that of the application.
pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    # Not every order that a client can request has an index.
    pytest.mark.filterwarnings("ignore::hasten.errors.PaginationWarning"),
]

SECRET: Final = b"$scrypt$"
"""How every password hash begins."""

STATUSES: Final = {200, 202, 304, 400, 401, 404, 422}

CLIENTS: Final = IPv4Network("10.0.0.0/8").hosts()
"""Each request comes from another client, so that limits do not matter."""


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Provide a store for jobs, and an SMTP server that answers at once."""
    store = tmp_path_factory.mktemp("fuzz") / "jobs.db"
    with pytest.MonkeyPatch.context() as patch, smtp_server(Mailbox(0)) as port:
        patch.setenv("HASTEN_URL", f"sqlite:///{store}")
        patch.setattr(mail, "SMTP_PORT", port)
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def started(services: None) -> AsyncIterator[None]:
    async with app.router.lifespan_context(app):
        yield


async def answer_to(
    target: bytes, *, method: str = "GET", headers: Headers = (), body: bytes = b""
) -> Response:
    """Send a request to the application as a server would. Return the response."""
    path, _, query = target.partition(b"?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path.decode("latin-1")),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": [(b"host", b"example.org"), *headers],
        "client": (str(next(CLIENTS)), 4711),
        "server": ("example.org", 80),
        "state": {},
    }
    async with Exchange(app, scope, [body]) as exchange:
        response = await exchange.response()
    assert SECRET not in response.decoded()
    for _, value in response.headers:
        assert value.isascii()
        assert value.decode().isprintable()
    return response


# Requests from the OpenAPI document

REQUESTS: Final = [
    pytest.param(method.upper(), path, mode, id=f"{method.upper()} {path}, {mode}")
    for path, methods in app.openapi()["paths"].items()
    for method in methods
    for mode in ("positive", "negative")
    # These routes accept every request.
    if mode == "positive" or path not in {"/jobs", "/jobs/{job_id}", "/history"}
]


@functools.cache
def description() -> Any:
    # Imported here because it takes a second, and only one process of a run needs it.
    import schemathesis

    return schemathesis.openapi.from_dict(app.openapi())


@pytest.mark.parametrize(("method", "path", "mode"), REQUESTS)
@effort(15)
@given(data=st.data())
async def test_requests_by_openapi(method: str, path: str, mode: str, data: st.DataObject) -> None:
    """Both valid and invalid requests are generated."""
    from schemathesis import GenerationMode
    from schemathesis.core import transport

    operation = description()[path][method]
    case = data.draw(operation.as_strategy(generation_mode=GenerationMode(mode)))
    wanted = case.as_transport_kwargs(base_url="http://example.org")
    request = requests.Request(**wanted).prepare()
    url = urlsplit(str(request.url))
    response = await answer_to(
        f"{url.path}?{url.query}".encode(),
        method=str(request.method),
        headers=[
            (as_bytes(name.lower()), as_bytes(value)) for name, value in request.headers.items()
        ],
        body=as_bytes(request.body),
    )
    assert response.status in STATUSES, response.body
    if operation.path.startswith("/api/") and operation.method == "get":
        assert str(response.status) in operation.definition.raw["responses"]
    headers: dict[str, list[str]] = {}
    for name, value in response.headers:
        headers.setdefault(name.decode(), []).append(value.decode())
    operation.validate_response(
        transport.Response(
            response.status, headers, response.decoded(), request, elapsed=0, verify=False
        )
    )


def as_bytes(content: object) -> bytes:
    """Return the bytes that `requests` would send for a text, bytes or None."""
    match content:
        case None:
            return b""
        case str():
            return content.encode()
        case bytes():
            return content
    raise TypeError(f"{type(content)} is not content")


# Requests from raw bytes

CURSOR: Final = b"<cursor>"
"""Is replaced by a cursor from the application."""

NAMES: Final = (
    b"page limit sort cursor fields p%61ge PAGE page[] fields[] password_hash".split()
)  # fmt: skip
MEANT: Final = (
    b"1 20 100 2501 created_at -title -created_at,title id name id,title author author(name) "
    b"author.name * password_hash author(password_hash) __class__".split()
)
ODD: Final = [
    CURSOR, b"0", b"-1", b"1.5", b"1e3", b"1_0", b"+1", b" 1", b"0x10", b"NaN", b"true", b"null",
    *(str(2**bits).encode() for bits in (31, 32, 53, 63, 64, 200)),
    *("\u0661 \uff11 \u00b2 \u0967 \U0001d7d9".encode().split()),  # digits, of other scripts
    b"\0", b"1\0", b"id\0", b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"';--", b"id;drop table posts",
    *(unit * 3_000 for unit in (b"9", b"0", b"(", b")", b"id,", b"id.", b"author(", b"-", b"A")),
]  # fmt: skip

values = st.one_of(
    st.sampled_from(MEANT),
    st.sampled_from(ODD),
    st.integers().map(lambda number: str(number).encode()),
    st.text(max_size=20).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.binary(max_size=20),
    st.lists(st.sampled_from([*MEANT, b",", b"(", b")", b".", b"-", b" "]), max_size=8).map(
        b"".join
    ),
)


def every_byte(value: bytes) -> bytes:
    return b"".join(b"%%%02x" % byte for byte in value)


def broken(value: bytes) -> bytes:
    """Return a copy of the value with invalid escapes."""
    return b"%" + value + b"%zz%f"


written = st.one_of(
    values,
    values.map(lambda value: quote_from_bytes(value).encode()),
    values.map(every_byte),
    values.map(broken),
)
pairs = st.builds(
    lambda name, equals, value: name + equals + value,
    st.sampled_from(NAMES) | st.binary(max_size=6),
    st.sampled_from([b"=", b"=", b"=", b"", b"=="]),
    written,
)
queries = st.lists(pairs, max_size=5).map(b"&".join) | st.binary(max_size=60)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cursor(started: None) -> bytes:
    answer = json.loads((await answer_to(b"/api/posts?cursor=")).body)
    token: str = answer["pagination"]["next_cursor"]
    return token.encode()


@effort(60)
@given(query=queries)
async def test_any_query_of_posts(cursor: bytes, query: bytes) -> None:
    response = await answer_to(b"/api/posts?" + query.replace(CURSOR, cursor))
    answer = json.loads(response.body)
    match response.status:
        case 200:
            assert set(answer) == {"data", "pagination"}
            assert len(answer["data"]) <= answer["pagination"]["limit"] <= 100
            for post in answer["data"]:
                assert set(post) <= {"id", "title", "text", "created_at", "author"}
                assert set(post.get("author", ())) <= {"id", "name"}
        case status:
            assert status in {400, 422}
            assert set(answer["detail"][0]) >= {"type", "loc", "msg"}


@effort(60)
@given(query=queries)
async def test_any_query_of_a_user(query: bytes) -> None:
    response = await answer_to(b"/api/users/1?" + query)
    answer = json.loads(response.body)
    match response.status:
        case 200:
            assert set(answer) <= {"id", "name", "email", "about", "joined_at"}
        case status:
            assert status == 422


slashes = st.sampled_from([b"", b"/", b"1/", b"1%2f", b"1//", b"/1", b"..", b"%2e%2e%2fposts"])


@effort(40)
@given(id=slashes | written)
async def test_any_id_of_a_user(id: bytes) -> None:
    response = await answer_to(b"/api/users/" + id)
    assert json.loads(response.body)
    assert response.status in {200, 404, 422}
