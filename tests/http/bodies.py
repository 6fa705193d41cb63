"""Bodies and headers for many tests. They are the same in every run."""

from __future__ import annotations

import json
import random

from tests.http.client import Headers

KILOBYTE = 1024


def orders(count: int) -> bytes:
    """Return a JSON list of orders of about 100 bytes each."""
    dice = random.Random(7)
    rows = [
        {
            "id": number,
            "customer": f"customer-{dice.randrange(10**6)}",
            "status": dice.choice(["open", "paid", "sent", "returned"]),
            "total": dice.randrange(10**5) / 100,
            "tags": dice.sample(["new", "gift", "express", "fragile", "prime"], 2),
        }
        for number in range(count)
    ]
    return json.dumps(rows).encode()


def noise(size: int) -> bytes:
    """Return bytes that no coding makes smaller."""
    return random.Random(11).randbytes(size)


def tokens(count: int) -> list[bytes]:
    """Return events as servers of language models send them."""
    words = "the quick brown fox jumps over a lazy dog and then some more of it".split()
    dice = random.Random(13)
    return [
        b"data: "
        + json.dumps(
            {"id": "chatcmpl-7f", "object": "chunk", "choices": [{"delta": dice.choice(words)}]}
        ).encode()
        + b"\n\n"
        for _ in range(count)
    ]


ORDERS = orders(105)  # some 12 kB
SMALL = orders(5)  # below the minimum size, and easy to make smaller
assert 11_000 < len(ORDERS) < 14_000
assert 300 < len(SMALL) < 1000

JSON: Headers = ((b"content-type", b"application/json"),)
HTML: Headers = ((b"content-type", b"text/html; charset=utf-8"),)
TEXT: Headers = ((b"content-type", b"text/plain; charset=utf-8"),)
SSE: Headers = ((b"content-type", b"text/event-stream"), (b"cache-control", b"no-store"))
NDJSON: Headers = ((b"content-type", b"application/x-ndjson"),)


def of_type(content_type: str) -> Headers:
    return ((b"content-type", content_type.encode()),)
