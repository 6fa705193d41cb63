"""A client that has the page gets a 304."""

from __future__ import annotations

from typing import Any

import pytest

from hasten._responses import EncodedResponse, make_etag, matches_if_none_match

TAG = '"abc"'


class Request:
    def __init__(self, method: str = "GET", if_none_match: str | None = None) -> None:
        self.method = method
        self.headers = {} if if_none_match is None else {"if-none-match": if_none_match}


def answer(**headers: str) -> EncodedResponse:
    return EncodedResponse(b"body", 200, {"content-type": "text/plain", **headers})


@pytest.mark.parametrize(
    ("given", "known"),
    [
        (None, False),
        ("*", True),
        ('"abc"', True),
        ('W/"abc"', True),
        ('"x", W/"abc" , "y"', True),
        ('"ab"', False),
        ("abc", False),
        ('"abcd"', False),
        ("", False),
        ('"x,"abc"', False),
        ("\x00\xff", False),
    ],
)
def test_a_tag_is_found_by_the_weak_comparison(given: str | None, known: bool) -> None:
    assert matches_if_none_match(given, TAG) is known
    assert matches_if_none_match(given, "W/" + TAG) is known


def test_a_matching_etag_gets_304_without_headers_of_the_content() -> None:
    given = answer(etag=TAG, link="<?page=2>", vary="accept")
    assert given.to(Request(if_none_match=TAG)) == EncodedResponse(
        b"", 304, {"etag": TAG, "link": "<?page=2>", "vary": "accept"}
    )
    assert given.to(Request(if_none_match='"other"')) == given
    assert given.to(Request("POST", TAG)) == given
    assert answer().to(Request(if_none_match="*")) == answer()
    assert given._replace(status=404).to(Request(if_none_match=TAG)).status == 404


def test_head_gets_the_same_headers_without_a_body() -> None:
    found = answer(etag=TAG).to(Request("HEAD"))
    assert (found.body, found.status) == (b"", 200)
    assert found.headers == answer(etag=TAG).headers | {"content-length": "4"}
    assert answer(etag=TAG).to(Request("HEAD", TAG)).status == 304


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("known", [False, True])
async def test_an_asgi_response_handles_conditions_and_head(method: str, known: bool) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nothing is to be received")

    headers = [(b"if-none-match", b'"x"'), (b"if-none-match", TAG.encode() if known else b"y")]
    await answer(etag=TAG)({"type": "http", "method": method, "headers": headers}, receive, send)
    start, body = sent
    names = dict(start["headers"])
    if known:
        assert (start["status"], body["body"], set(names)) == (304, b"", {b"etag"})
    else:
        assert (start["status"], names[b"content-length"]) == (200, b"4")
        assert body["body"] == (b"body" if method == "GET" else b"")


def test_an_etag_depends_on_bytes_and_fits_into_a_header() -> None:
    assert make_etag(b"a") != make_etag(b"b")
    assert make_etag([b"a", b"b"], weak=True) == "W/" + make_etag(b"ab")
    assert make_etag(b"a").strip('"').replace("-", "").replace("_", "").isalnum()
