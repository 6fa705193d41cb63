"""The request headers that Chrome sends. Their number matters, because middlewares search them."""

from __future__ import annotations

from typing import Final

ALL_CODINGS: Final = "gzip, deflate, br, zstd"


def headers(accept_encoding: str) -> list[tuple[bytes, bytes]]:
    """Return the headers of a request from a page of the application, in lower case as in ASGI."""
    return [
        (b"host", b"127.0.0.1"),
        (b"connection", b"keep-alive"),
        (b"sec-ch-ua-platform", b'"Linux"'),
        (
            b"user-agent",
            (
                b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
                b"Chrome/142.0.0.0 Safari/537.36"
            ),
        ),
        (b"sec-ch-ua", b'"Chromium";v="142", "Google Chrome";v="142", "Not_A Brand";v="99"'),
        (b"sec-ch-ua-mobile", b"?0"),
        (b"accept", b"*/*"),
        (b"sec-fetch-site", b"same-origin"),
        (b"sec-fetch-mode", b"cors"),
        (b"sec-fetch-dest", b"empty"),
        (b"referer", b"http://127.0.0.1/orders"),
        (b"accept-encoding", accept_encoding.encode()),
        (b"accept-language", b"en-GB,en;q=0.9,de;q=0.8"),
        (b"cookie", b"session=3f9c2f0e8a7b4d5c9e1f6a2b3c4d5e6f; theme=dark"),
        (b"priority", b"u=1, i"),
    ]


def request(path: str, accept_encoding: str = ALL_CODINGS) -> bytes:
    lines = b"".join(b"%s: %s\r\n" % header for header in headers(accept_encoding))
    return b"GET %s HTTP/1.1\r\n%s\r\n" % (path.encode(), lines)
