"""Differences to earlier responses are sent only to clients that have those. RFC 9842."""

from __future__ import annotations

import base64
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.compression import CompressionMiddleware, Dictionaries
from hasten.compression._dictionaries import _get_offered_dictionary_hash
from tests.effort import effort
from tests.http import expect
from tests.http.bodies import JSON, ORDERS, orders
from tests.http.client import Client, Headers, Response
from tests.http.codings import DCZ_MAGIC, decode_dcz
from tests.http.hosts import Answer, Installed, Raw

FRESH: Headers = (*JSON, (b"cache-control", b"public, max-age=60"))
PRIVATE: Headers = (*JSON, (b"cache-control", b"private, max-age=60"))
NEXT = ORDERS.replace(b'"open"', b'"paid"', 3)


def shown(body: bytes) -> tuple[bytes, bytes]:
    return (b"available-dictionary", b":" + base64.b64encode(sha256(body).digest()) + b":")


class Feed:
    """An answer that changes after it was sent once."""

    def __init__(self, dictionaries: Dictionaries | None = None, **options: Any) -> None:
        self.answer = Answer(ORDERS, FRESH)
        self.dictionaries = dictionaries or Dictionaries(["/feed*"])
        given = {"dictionaries": self.dictionaries, **options}
        self.client = Client(Raw().serve(self.answer, Installed(CompressionMiddleware, given)))

    async def get(self, *headers: tuple[bytes, bytes], **request: Any) -> Response:
        given = {"accept": "gzip, dcz", "path": "/feed", "headers": headers, **request}
        return await self.client.get(**given)

    async def begun(self) -> Feed:
        assert (await self.get()).coding == "gzip"
        self.answer.body = NEXT
        return self


def is_difference(response: Response, before: bytes, after: bytes) -> None:
    assert response.coding == "dcz"
    assert response.body[:40] == DCZ_MAGIC + sha256(before).digest()
    assert decode_dcz(response.body, before) == after
    assert response.members("vary") == ["accept-encoding", "available-dictionary"]


class TestWhoGetsIt:
    async def test_a_client_with_the_last_response_gets_a_difference(self) -> None:
        feed = await Feed().begun()
        is_difference(await feed.get(shown(ORDERS)), ORDERS, NEXT)

    async def test_a_client_with_an_older_response_gets_a_difference(self) -> None:
        feed = await Feed().begun()
        await feed.get()
        feed.answer.body = orders(110)
        is_difference(await feed.get(shown(ORDERS)), ORDERS, orders(110))
        is_difference(await feed.get(shown(NEXT)), NEXT, orders(110))

    async def test_a_client_with_the_same_response_gets_a_difference(self) -> None:
        feed = await Feed().begun()
        feed.answer.body = ORDERS
        response = await feed.get(shown(ORDERS))
        is_difference(response, ORDERS, ORDERS)
        assert len(response.body) < 100

    async def test_another_path_of_the_same_pattern_gets_a_difference(self) -> None:
        feed = await Feed().begun()
        is_difference(await feed.get(shown(ORDERS), path="/feed/2"), ORDERS, NEXT)

    @pytest.mark.parametrize("site", [b"same-origin", b"none"])
    async def test_pages_of_the_same_origin_get_a_difference(self, site: bytes) -> None:
        feed = await Feed().begun()
        headers = (shown(ORDERS), (b"sec-fetch-site", site))
        is_difference(await feed.get(*headers), ORDERS, NEXT)

    @pytest.mark.parametrize("site", [b"cross-site", b"same-site", b"something-new", b""])
    async def test_pages_of_other_origins_get_no_difference(self, site: bytes) -> None:
        """They could measure the length of the difference: RFC 9842, section 9."""
        feed = await Feed(breach="off").begun()
        expect.coded(await feed.get(shown(ORDERS), (b"sec-fetch-site", site)), "gzip", NEXT)

    @pytest.mark.parametrize(
        "credentials",
        [
            (),
            ((b"cookie", b"session=bob"),),
            ((b"cookie", b"session=alice"), (b"cookie", b"a=b")),
            ((b"cookie", b"session=alice"), (b"authorization", b"Bearer bob")),
            ((b"authorization", b"session=alice"),),
        ],
    )
    async def test_another_user_gets_no_difference(self, credentials: Headers) -> None:
        """A user who can guess a body also knows its hash."""
        alice = (b"cookie", b"session=alice")
        feed = Feed()
        await feed.get(alice)
        feed.answer.body = NEXT
        expect.coded(await feed.get(shown(ORDERS), *credentials), "gzip", NEXT)
        is_difference(await feed.get(shown(ORDERS), alice), ORDERS, NEXT)

    async def test_another_authorization_gets_no_difference(self) -> None:
        feed = Feed()
        await feed.get((b"authorization", b"Bearer alice"))
        feed.answer.body = NEXT
        for other in ((), ((b"authorization", b"Bearer bob"),)):
            expect.coded(await feed.get(shown(ORDERS), *other), "gzip", NEXT)

    async def test_a_request_without_tls_gets_no_difference(self) -> None:
        feed = await Feed().begun()
        response = expect.coded(await feed.get(shown(ORDERS), scheme="http"), "gzip", NEXT)
        assert response.get("use-as-dictionary") is None
        assert response.members("vary") == ["accept-encoding"]

    async def test_a_response_without_tls_is_no_dictionary(self) -> None:
        feed = Feed()
        await feed.get(scheme="http")
        assert feed.dictionaries.size == 0
        feed.answer.body = NEXT
        expect.coded(await feed.get(shown(ORDERS)), "gzip", NEXT)

    async def test_another_method_gets_no_difference(self) -> None:
        feed = await Feed().begun()
        response = expect.coded(await feed.get(shown(ORDERS), method="POST"), "gzip", NEXT)
        assert response.get("use-as-dictionary") is None

    async def test_another_path_gets_no_difference(self) -> None:
        feed = await Feed().begun()
        for path in ("/", "/fee", "/other/feed", "/FEED"):
            response = expect.coded(await feed.get(shown(ORDERS), path=path), "gzip", NEXT)
            assert response.get("use-as-dictionary") is None

    async def test_an_unknown_dictionary_gets_no_difference(self) -> None:
        feed = await Feed().begun()
        for unknown in (b"", b"another", NEXT[:-1]):
            expect.coded(await feed.get(shown(unknown)), "gzip", NEXT)

    @pytest.mark.parametrize(
        "accept", ["gzip", "gzip, dcz;q=0", "gzip, dcb", "gzip, *;q=0.5", "gzip,xdcz"]
    )
    async def test_a_client_that_does_not_accept_dcz_gets_no_difference(self, accept: str) -> None:
        feed = await Feed().begun()
        response = expect.coded(await feed.get(shown(ORDERS), accept=accept), "gzip", NEXT)
        assert set(response.members("vary")) == {"accept-encoding", "available-dictionary"}

    @pytest.mark.parametrize(
        "change",
        [
            lambda value: b"",
            lambda value: b"::",
            lambda value: value[1:],
            lambda value: value[:-1],
            lambda value: value[1:-1],
            lambda value: value[:-2] + b":",
            lambda value: b":" + value[1:-1].replace(b"=", b"!") + b":",
            lambda value: b":" + value[1:-2] + b"A:",  # a byte more than a hash has
            lambda value: b'"' + value[1:-1] + b'"',
            lambda value: value + b", " + value,
            lambda value: value.swapcase(),
            lambda value: b"\xff" * 46,
            lambda value: value * 100,
        ],
    )
    async def test_a_malformed_hash_gets_no_difference(self, change: Any) -> None:
        feed = await Feed().begun()
        name, value = shown(ORDERS)
        expect.coded(await feed.get((name, change(value))), "gzip", NEXT)

    @effort(50)
    @given(
        st.binary(max_size=60) | st.binary(min_size=44, max_size=44).map(lambda b: b":" + b + b":")
    )
    def test_any_header_is_accepted(self, value: bytes) -> None:
        headers = [(b"accept-encoding", b"dcz"), (b"available-dictionary", value)]
        named = _get_offered_dictionary_hash(headers)
        assert named is None or 31 <= len(named) <= 33


def certificate(name: str) -> dict[str, Any]:
    return {"extensions": {"tls": {"client_cert_name": f"CN={name}", "client_cert_chain": [name]}}}


class TestOwner:
    """A difference confirms a guess of a whole response, so other users must not get it."""

    @staticmethod
    async def confirms(
        feed: Feed, mine: dict[str, Any], other: dict[str, Any] | None = None
    ) -> bool:
        """Return whether the response to one request is the dictionary of another request."""
        await feed.get(*mine.get("headers", ()), **_beside_headers(mine))
        feed.answer.body = NEXT
        asking = mine if other is None else other
        response = await feed.get(
            shown(ORDERS), *asking.get("headers", ()), **_beside_headers(asking)
        )
        feed.answer.body = ORDERS
        assert response.coding in {"dcz", "gzip"}
        return response.coding == "dcz"

    ALICE: tuple[dict[str, Any], ...] = (
        {"headers": [(b"x-api-key", b"alice")]},
        {"query": b"token=alice"},
        {},
    )

    @pytest.mark.parametrize("request_", ALICE, ids=["header", "query", "nothing"])
    @pytest.mark.parametrize(
        "cache_control", [b"private, max-age=5", b"max-age=5", b"no-cache", b"public, private"]
    )
    async def test_a_request_without_a_named_credential_has_no_owner(
        self, cache_control: bytes, request_: dict[str, Any]
    ) -> None:
        feed = Feed()
        feed.answer.headers = (*JSON, (b"cache-control", cache_control))
        response = await feed.get(*request_.get("headers", ()), **_beside_headers(request_))
        assert response.get("use-as-dictionary") is None
        assert not await self.confirms(feed, request_)
        assert feed.dictionaries.size == 0

    @pytest.mark.parametrize("name", ["X-API-Key", "Authorization", "Cookie", "Client-Cert"])
    async def test_the_same_credential_is_the_same_owner(self, name: str) -> None:
        feed = Feed(Dictionaries(["/feed*"], credential_headers=[name]))
        feed.answer.headers = PRIVATE
        alice, mallory = [
            {"headers": [(name.lower().encode(), user)]} for user in (b"alice", b"mallory")
        ]
        assert not await self.confirms(feed, alice, mallory)
        assert not await self.confirms(feed, alice, {})
        assert await self.confirms(feed, alice)

    async def test_credentials_that_are_not_named_are_no_owner(self) -> None:
        """Users behind a load balancer may share its cookie."""
        feed = Feed(Dictionaries(["/feed*"], credential_headers=["x-api-key"]))
        feed.answer.headers = PRIVATE
        balanced = (b"cookie", b"balancer=1")
        assert not await self.confirms(feed, {"headers": [balanced]})
        alice = {"headers": [balanced, (b"x-api-key", b"alice")]}
        assert await self.confirms(feed, alice)
        assert not await self.confirms(feed, alice, {"headers": [(b"x-api-key", b"alice")]})

    async def test_an_empty_credential_is_no_owner(self) -> None:
        feed = Feed()
        feed.answer.headers = PRIVATE
        assert not await self.confirms(feed, {"headers": [(b"authorization", b"")]})

    @pytest.mark.parametrize("headers", [PRIVATE, FRESH], ids=["private", "public"])
    async def test_the_owner_includes_the_query(self, headers: Headers) -> None:
        feed = Feed()
        feed.answer.headers = headers
        cookie = [(b"cookie", b"a=b")]
        alice, mallory = [
            {"headers": cookie, "query": b"token=" + user} for user in (b"alice", b"mallory")
        ]
        assert not await self.confirms(feed, alice, mallory)
        assert await self.confirms(feed, alice)

    async def test_the_owner_includes_the_client_certificate(self) -> None:
        feed = Feed()
        feed.answer.headers = PRIVATE
        assert not await self.confirms(feed, certificate("alice"), certificate("mallory"))
        assert not await self.confirms(feed, certificate("alice"), {})
        assert await self.confirms(feed, certificate("alice"))
        nobody: dict[str, Any] = {
            "extensions": {"tls": {"client_cert_name": None, "client_cert_chain": []}}
        }
        assert not await self.confirms(feed, nobody)

    @pytest.mark.parametrize("named", [b"X-User", b"Accept-Encoding, x-user"])
    async def test_the_owner_includes_the_headers_of_vary(self, named: bytes) -> None:
        feed = Feed()
        feed.answer.headers = (*FRESH, (b"vary", named))
        alice, mallory = [{"headers": [(b"x-user", user)]} for user in (b"alice", b"mallory")]
        assert not await self.confirms(feed, alice, mallory)
        assert await self.confirms(feed, alice)

    @pytest.mark.parametrize("more", [(b"vary", b"*"), (b"set-cookie", b"session=alice")])
    async def test_a_private_response_has_no_public_owner(self, more: tuple[bytes, bytes]) -> None:
        feed = Feed()
        feed.answer.headers = (*FRESH, more)
        assert not await self.confirms(feed, {})


def _beside_headers(request: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in request.items() if name != "headers"}


class TestWhatIsRemembered:
    async def test_a_small_response_is_not_stored(self) -> None:
        """strict=True lets clients request compression of the smallest responses."""
        feed = Feed(strict=True)
        feed.answer.body = ORDERS[:400]
        response = await feed.get(accept="dcz, gzip, identity;q=0")
        assert response.coding == "gzip"
        assert feed.dictionaries.size == 0

    @pytest.mark.parametrize(
        "directives", [b"no-store", b"private, No-Store", b"max-age=5,no-store"]
    )
    async def test_no_store_is_obeyed(self, directives: bytes) -> None:
        feed = Feed()
        feed.answer.headers = (*JSON, (b"cache-control", directives))
        expect.coded(await feed.get(), "gzip", ORDERS)
        assert feed.dictionaries.size == 0
        feed.answer.body = NEXT
        expect.coded(await feed.get(shown(ORDERS)), "gzip", NEXT)

    @pytest.mark.parametrize("status", [201, 203, 404, 500])
    async def test_only_successful_responses_are_stored(self, status: int) -> None:
        feed = Feed()
        feed.answer.status = status
        expect.coded(await feed.get(), "gzip", ORDERS)
        assert feed.dictionaries.size == 0
        feed.answer.body, feed.answer.status = NEXT, 200
        expect.coded(await feed.get(shown(ORDERS)), "gzip", NEXT)


class TestAnnouncement:
    async def test_the_header_names_the_pattern(self) -> None:
        feed = Feed(Dictionaries(["/a*", "/feed*"]))
        response = await feed.get()
        assert response.all("use-as-dictionary") == ['match="/feed*"']

    async def test_an_uncompressed_response_has_no_header(self) -> None:
        feed = Feed()
        response = expect.plain(await feed.get(accept="identity"), ORDERS)
        assert set(response.members("vary")) == {"accept-encoding", "available-dictionary"}

    async def test_all_variants_vary_alike(self) -> None:
        feed = await Feed().begun()
        responses = [
            await feed.get(shown(ORDERS)),
            await feed.get(),
            await feed.get(accept=""),
            await feed.get(method="HEAD"),
        ]
        assert {tuple(response.members("vary")) for response in responses} == {
            ("accept-encoding", "available-dictionary")
        }


class TestBound:
    async def test_the_oldest_response_is_dropped(self) -> None:
        feed = Feed(Dictionaries(["/feed*"], max_size=3 * len(ORDERS) + 10))
        bodies = [b"%d" % number + ORDERS[1:] for number in range(5)]
        for body in bodies[:3]:
            feed.answer.body = body
            await feed.get()
        feed.answer.body = bodies[0]
        await feed.get()  # which makes the second the oldest
        feed.answer.body = bodies[3]
        await feed.get()
        assert feed.dictionaries.size == 3 * len(ORDERS)
        feed.answer.body = bodies[0]  # it is stored already, so nothing changes
        for number, known in ((1, False), (2, True), (3, True), (0, True)):
            response = await feed.get(shown(bodies[number]))
            assert response.coding == ("dcz" if known else "gzip")

    async def test_the_maximum_size_is_never_exceeded(self) -> None:
        feed = Feed(Dictionaries(["/feed*"], max_size="40kb"))
        for number in range(40):
            feed.answer.body = orders(10 + 13 * number % 160)
            await feed.get()
            assert feed.dictionaries.size <= 40 * 1024
        assert feed.dictionaries.size > 0

    async def test_a_response_above_the_maximum_is_not_stored(self) -> None:
        feed = await Feed(Dictionaries(["/feed*"], max_size=1000)).begun()
        assert feed.dictionaries.size == 0
        expect.coded(await feed.get(shown(ORDERS)), "gzip", NEXT)

    async def test_the_same_response_is_stored_once(self) -> None:
        feed = Feed()
        for _ in range(3):
            await feed.get()
        assert feed.dictionaries.size == len(ORDERS)


async def test_zstd_itself_need_not_be_offered() -> None:
    feed = await Feed(encodings=("gzip", "br")).begun()
    is_difference(await feed.get(shown(ORDERS)), ORDERS, NEXT)


async def test_without_zstd_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    from hasten.compression import _libraries as libraries

    feed = await Feed().begun()
    monkeypatch.setattr(libraries, "zstd", None)
    expect.coded(await feed.get(shown(ORDERS)), "gzip", NEXT)
