"""Which responses are compressed, and with which headers. There are no targets for this."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.asgi import Answer, Application, Receive, Scope, Send, receive, scope_of
from benchmarks.compression import chrome
from benchmarks.compression.client import run
from benchmarks.compression.contestant import CONTESTANTS, Contestant, PythonContestant, baseline
from benchmarks.compression.part import CompressionPart, Sizes
from benchmarks.parts import Report
from benchmarks.tables import show_table, show_text

ETAG: Final = '"1"'
TEXT: Final = b'{"id":1,"name":"Ada"},' * 500
NOISE: Final = random.Random(1).randbytes(20_000)


class Correctness(CompressionPart):
    name = "correctness"

    def __init__(self, names: Sequence[str], folder: Path, sizes: Sizes) -> None:
        super().__init__([name for name in names if _is_middleware(name)], folder, sizes)
        self._found: dict[str, dict[str, str]] = {}

    def steps(self) -> int:
        return 1

    def round(self, number: int, report: Report) -> None:
        """Check in the first round only, because the responses are always the same."""
        if number > 1:
            return
        report(self.name)
        for name in list(self.lineup.names):
            with self.lineup.leaving_out(name, during=self.name):
                self._found[name] = run(_facts(CONTESTANTS.find(name)))

    def show(self) -> None:
        show_text(
            f"""
correctness: how a middleware treats a response with the strong ETag {ETAG} of its plain body,
one with Cache-Control: no-transform, and one with {len(NOISE):,} random bytes of JSON, which no
encoding makes smaller. Python only."""
        )
        lines = [[CONTESTANTS.title(name), *facts.values()] for name, facts in self._found.items()]
        if lines:
            show_table("Headers", ["", "compressed", "ETag", "no-transform", "random"], lines)

    def samples(self) -> Mapping[str, Any]:
        return self._found


def _is_middleware(name: str) -> bool:
    return name != baseline(name) and issubclass(CONTESTANTS.find(name), PythonContestant)


async def _facts(contestant: type[Contestant]) -> dict[str, str]:
    assert issubclass(contestant, PythonContestant)
    answers = [
        await _answer(contestant.wrap(_application(body, header)))
        for body, header in (
            (TEXT, (b"etag", ETAG.encode())),
            (TEXT, (b"cache-control", b"no-transform")),
            (NOISE, (b"x-none", b"")),
        )
    ]
    encodings = [answer.headers.get("content-encoding", "not compressed") for answer in answers]
    return {
        "compressed": encodings[0],
        "etag": answers[0].headers.get("etag", "removed"),
        "no-transform": encodings[1],
        "random": f"{encodings[2]}, {len(answers[2].body):,} bytes",
    }


def _application(body: bytes, header: tuple[bytes, bytes]) -> Application:
    headers = [
        (b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), header
    ]  # fmt: skip

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(headers)})
        await send({"type": "http.response.body", "body": body})

    return app


async def _answer(app: Application) -> Answer:
    answer = Answer()
    await app(scope_of("/", chrome.headers(chrome.ALL_CODINGS)), receive, answer.send)
    return answer
