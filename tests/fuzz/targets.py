"""The parsers, and what has to hold of whatever they are given.

Each target is a function that sets up, and returns one that takes the bytes of an input.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, get_args

import msgspec
from pydantic import BaseModel

from hasten.compression import DecompressionMiddleware
from hasten.compression._breach import BreachGuard
from hasten.compression._decoders import find_decoder_factories
from hasten.compression._dictionaries import _get_offered_dictionary_hash
from hasten.compression._head import ETagPolicy, ResponseHead
from hasten.compression._negotiation import Coding, choose_codings
from hasten.errors import InvalidOption, InvalidParameter
from hasten.fields import FieldSelector
from hasten.jobs._encoding import decode_json
from hasten.jobs._engines.redis.decoding import (
    decode_add_reply,
    decode_settle_reply,
    to_event,
    to_job_record,
)
from hasten.jobs._options import decode_keep_logs, decode_options
from hasten.jobs._states import State
from hasten.pagination import Paginator
from hasten.pagination._cursor import Cursor, SigningKeys, _compute_mac, _to_base64
from hasten.ratelimit._http.addresses import AddressKeys
from hasten.ratelimit._http.proxies import Proxies
from hasten.ratelimit._rates import parse_rates

Target = Callable[[bytes], None]

CODINGS: Final = list(Coding)

SECRET: Final = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"


class Tag(BaseModel):
    name: str


class Post(BaseModel):
    id: int
    title: str
    tags: list[Tag]


class User(BaseModel):
    id: int
    name: str
    posts: list[Post]


def accept_encoding() -> Target:

    def parse(data: bytes) -> None:
        choose_codings(data.decode("latin-1"), CODINGS)

    return parse


def forwarded() -> Target:
    return _proxies("forwarded")


def x_forwarded_for() -> Target:
    return _proxies("x-forwarded-for")


def _proxies(header: str) -> Target:
    trusting = Proxies(["10.0.0.0/8", "2001:db8::/32"], header=header)
    counting = Proxies(hops=2, header=header)
    addresses = AddressKeys()

    def parse(data: bytes) -> None:
        lines = [(header.encode(), line) for line in data.split(b"\n")]
        scope: dict[str, Any] = {"type": "http", "client": ("10.0.0.1", 1), "headers": lines}
        for proxies in (trusting, counting):
            found = proxies.find_client_address(scope)
            assert found.address is not None
            addresses.get_key(found.address)
        stranger = {**scope, "client": ("203.0.113.5", 1)}
        assert trusting.find_client_address(stranger).address == "203.0.113.5"

    return parse


def cursor() -> Target:
    keys = SigningKeys(SECRET)

    def parse(data: bytes) -> None:
        with contextlib.suppress(InvalidParameter):
            keys.decode_and_verify_signature(data.decode("latin-1"))
        # As an attacker who knows the secret would write it: valid signature, random content.
        try:
            found = keys.decode_and_verify_signature(
                _to_base64(data + _compute_mac(SECRET.encode(), data))
            )
        except InvalidParameter:
            return
        assert isinstance(found, Cursor)

    return parse


def fields() -> Target:
    fields = FieldSelector(User)

    def parse(data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        try:
            fields.parse([("fields", text)])
            fields.parse(text)
        except InvalidParameter:
            pass

    return parse


def sort() -> Target:
    pages: Any = Paginator(User, unique=("id",), sort=("id", "name"), mode="both", secret=SECRET)

    def parse(data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        for query in (text, [("sort", text)], [("page", text)], [("limit", text)]):
            with contextlib.suppress(InvalidParameter):
                pages.parse(query)

    return parse


def coded_body() -> Target:
    codings = list(find_decoder_factories(CODINGS))
    loop = asyncio.new_event_loop()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive()).get("more_body"):
            assert len(message["body"]) <= 2_000_000
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    middleware = DecompressionMiddleware(app, max_size="1mb", max_encodings=2)

    async def request(coding: bytes, pieces: Sequence[bytes]) -> int:
        messages = [
            {"type": "http.request", "body": piece, "more_body": number < len(pieces)}
            for number, piece in enumerate(pieces, 1)
        ]
        statuses: list[int] = []

        async def receive() -> Any:
            return messages.pop(0) if messages else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        scope = {
            "type": "http", "method": "POST", "path": "/",
            "headers": [(b"content-encoding", coding)],
        }  # fmt: skip
        await middleware(scope, receive, send)
        return statuses[0]

    def parse(data: bytes) -> None:
        if len(data) < 2:
            return
        names = [codings[data[0] % len(codings)]]
        if data[0] >= 128:
            names.append(codings[data[0] // 4 % len(codings)])
        size = data[1] + 1
        body = data[2:]
        pieces = [body[at : at + size] for at in range(0, len(body), size)] or [b""]
        began = time.process_time()
        status = loop.run_until_complete(request(",".join(names).encode(), pieces))
        assert status in {200, 400, 413, 415}, status
        assert time.process_time() - began < 1 + len(data) / 10_000

    return parse


def content_headers() -> Target:
    """Parse the other headers of a request or response."""
    guard = BreachGuard()

    def parse(data: bytes) -> None:
        lines = data.split(b"\n")
        names = [
            b"sec-fetch-site", b"sec-fetch-mode", b"origin", b"referer", b"host", b"cookie",
            b"available-dictionary", b"if-none-match", b"authorization",
        ]  # fmt: skip
        asked = dict(zip(names, lines, strict=False))
        guard._forbids_compression(asked)
        _get_offered_dictionary_hash(list(asked.items()))
        head = ResponseHead(
            200, [(b"etag", lines[0]), (b"cache-control", lines[-1]), (b"vary", lines[0])]
        )
        head.find_skip_reason("GET")
        head.make_headers_with_vary()
        for policy in get_args(ETagPolicy):
            head.make_not_modified_headers(lines[-1], policy)

    return parse


def job_hash() -> Target:
    names = [
        "name", "data", "opts", "delay", "priority", "timestamp", "atm", "ats", "stc", "defa",
        "processedOn", "finishedOn", "pb", "progress", "failedReason", "returnvalue", "stacktrace",
    ]  # fmt: skip

    def parse(data: bytes) -> None:
        values = data.decode("utf-8", "replace").split("\n")
        stored = dict(zip(names, values, strict=False))
        job = to_job_record("q", "1", State.FAILED, None, stored)
        assert all(isinstance(trace, str) for trace in job.tracebacks)
        to_event("1-1", dict(zip(["event", "jobId", "data", "delay"], values, strict=False)))
        decode_keep_logs(job.opts)
        for text in (job.data, job.opts, values[0]):
            with contextlib.suppress(ValueError):
                decode_json(text)
        for text in (job.opts, values[0]):
            with contextlib.suppress(ValueError, InvalidOption):
                decode_options(text)

    return parse


def answers() -> Target:
    """Replies of scripts contain texts that others have stored, anywhere."""

    def parse(data: bytes) -> None:
        for decode in (decode_settle_reply, decode_add_reply):
            with contextlib.suppress(msgspec.DecodeError, ValueError):
                decode(data)

    return parse


def rates() -> Target:
    def parse(data: bytes) -> None:
        try:
            found = parse_rates(data.decode("utf-8", "replace"))
        except InvalidOption:
            return
        assert found

    return parse


TARGETS: Final[dict[str, Callable[[], Target]]] = {
    "accept-encoding": accept_encoding,
    "answers": answers,
    "coded-body": coded_body,
    "content-headers": content_headers,
    "cursor": cursor,
    "fields": fields,
    "forwarded": forwarded,
    "job-hash": job_hash,
    "rates": rates,
    "sort": sort,
    "x-forwarded-for": x_forwarded_for,
}
