"""The bodies that are compressed. They are generated from a fixed seed, the same on each machine.

Servers read them from a folder, so that servers in Python and Node send the same bytes.
"""

from __future__ import annotations

import html
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

SEED: Final = 20240229

SIZES: Final = {"1kB": 1 << 10, "10kB": 10 << 10, "100kB": 100 << 10, "1MB": 1 << 20}
KINDS: Final = ("json", "html")
BIG: Final = "json-8MB"
SMALL: Final = "json-200B"
PICTURE: Final = "png-20kB"
EVENTS: Final = "events.json"

MEDIA_TYPES: Final = {
    "json": "application/json",
    "html": "text/html; charset=utf-8",
    "png": "image/png",
}

EVENT_COUNT: Final = 400

_SYLLABLES: Final = "ka lo mer ti sun der pol va ne gri ton bel sha re mi co lan fe ur da".split()


def write(folder: Path) -> None:
    """Write each corpus to a file with its name, and all events to one file."""
    for name, body in _corpora():
        (folder / name).write_bytes(body)
    (folder / EVENTS).write_text(json.dumps(list(_events())), "utf-8")


def _corpora() -> Iterator[tuple[str, bytes]]:
    for title, size in SIZES.items():
        yield f"json-{title}", _orders(size)
        yield f"html-{title}", _page(size)
    yield BIG, _orders(8 << 20)
    yield SMALL, _small_json()
    yield PICTURE, b"\x89PNG\r\n\x1a\n" + random.Random(SEED).randbytes(20_000)


def _orders(size: int) -> bytes:
    """Return JSON as from an API: keys that repeat, identifiers that do not, and some prose."""
    chance = random.Random(SEED)
    word = _vocabulary(chance)
    orders: list[str] = []
    length = len('{"orders":[],"notice":""}')
    while True:
        order = json.dumps(_order(len(orders), chance, word), separators=(",", ":"))
        if length + len(order) + 1 > size:
            break
        orders.append(order)
        length += len(order) + 1
    # Fill up to the exact size: whether it is above a threshold must not depend on chance.
    words = ""
    while len(words) <= size - length:
        words += f"{word()} "
    return f'{{"orders":[{",".join(orders)}],"notice":"{words[: size - length + 1]}"}}'.encode()


def _order(number: int, chance: random.Random, word: Callable[[], str]) -> dict[str, Any]:
    items: list[dict[str, Any]] = [
        {
            "sku": f"{chance.choice('ABCDEFGH')}-{chance.randrange(100_000):05}",
            "name": f"{word()} {word()}",
            "quantity": chance.randint(1, 9),
            "price": chance.randrange(99, 99_999) / 100,
        }
        for _ in range(chance.randint(1, 4))
    ]
    first, last = word(), word()
    return {
        "id": f"ord_{chance.getrandbits(64):016x}",
        "number": 100_000 + number,
        "status": chance.choice(("pending", "paid", "shipped", "delivered", "returned")),
        "createdAt": f"2024-{chance.randint(1, 12):02}-{chance.randint(1, 28):02}"
        f"T{chance.randrange(24):02}:{chance.randrange(60):02}:{chance.randrange(60):02}Z",
        "customer": {
            "id": chance.randrange(1_000_000),
            "name": f"{first.title()} {last.title()}",
            "email": f"{first}.{last}@example.com",
        },
        "items": items,
        "total": round(sum(item["quantity"] * item["price"] for item in items), 2),
        "note": " ".join(word() for _ in range(chance.randint(3, 8))) if chance.random() < 0.3
        else None,
    }  # fmt: skip


def _page(size: int) -> bytes:
    """Return an HTML article with tables, as from a template engine."""
    chance = random.Random(SEED + 1)
    word = _vocabulary(chance)
    end = "</main>\n</body>\n</html>\n"
    head = (
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">\n'
        '<title>Report</title>\n<link rel="stylesheet" href="/static/site.css">\n</head>\n'
        '<body class="page">\n<main>\n'
    )
    parts, length = [head], len(head) + len(end)
    while length < size:
        parts.append(_section(chance, word))
        length += len(parts[-1].encode())
    return ("".join(parts) + end).encode()


def _section(chance: random.Random, word: Callable[[], str]) -> str:
    if chance.random() < 0.5:
        words = " ".join(word() for _ in range(chance.randint(20, 60)))
        return f'<p class="text">{html.escape(words.capitalize())}.</p>\n'
    rows = "".join(
        f'  <tr class="row{" odd" if number % 2 else ""}">\n'
        f'    <td><a href="/items/{chance.randrange(100_000)}">{word()} {word()}</a></td>\n'
        f'    <td class="number">{chance.randrange(1_000_000) / 100:,.2f}</td>\n'
        f'    <td><span class="badge badge-{chance.choice(("ok", "late", "new"))}"></span></td>\n'
        "  </tr>\n"
        for number in range(chance.randint(2, 6))
    )
    return f'<h2 id="{word()}">{word().title()}</h2>\n<table class="table">\n{rows}</table>\n'


def _small_json() -> bytes:
    word = _vocabulary(random.Random(SEED + 2))
    text = " ".join(word() for _ in range(100))
    return json.dumps({"status": "queued", "message": text[:164]}).encode()


def _events() -> Iterator[str]:
    """Return the events of a chat interface: tokens of a language model.

    For each event, the server writes `data: {"at":`, the time, and one of these.
    """
    chance = random.Random(SEED + 3)
    word = _vocabulary(chance)
    answer = f"chatcmpl-{chance.getrandbits(80):020x}"
    for _ in range(EVENT_COUNT):
        choices = [{"index": 0, "delta": {"content": f" {word()}"}}]
        yield f',"id":"{answer}","choices":{json.dumps(choices, separators=(",", ":"))}}}\n\n'


def _vocabulary(chance: random.Random) -> Callable[[], str]:
    """Return words of which, as in a language, few are frequent and many are rare."""
    words = ["".join(chance.choices(_SYLLABLES, k=chance.randint(1, 4))) for _ in range(1_500)]
    return lambda: words[min(int(chance.paretovariate(0.6)) - 1, len(words) - 1)]
