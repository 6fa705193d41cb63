"""How long small responses wait while large ones are compressed at the same time."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.compression import chrome, corpora
from benchmarks.compression.client import Connection, Response, ask, run
from benchmarks.compression.contestant import CONTESTANTS, OURS, RIVAL
from benchmarks.compression.decoding import check
from benchmarks.compression.part import CompressionPart, Sizes
from benchmarks.compression.server import Server
from benchmarks.parts import Report
from benchmarks.tables import show_table, show_text
from benchmarks.verdicts import Ratios, Verdict, percentile, short

# At the lower rate, compression with Starlette's defaults needs two thirds of a processor. At the
# higher one it needs more than two and a half, which is more than small machines have.
RATES: Final = (100, 400)
BIG_EVERY: Final = 50
SMALL_CORPUS: Final = "json-1kB"

TIMES_LOWER: Final = 5.0


@dataclass(frozen=True, slots=True)
class Waits:
    p50_ms: float
    p99_ms: float
    p999_ms: float
    big_p50_ms: float
    gap_ms: float
    peak_bytes: int
    big_body_bytes: float
    coding: str


class Stalls(CompressionPart):
    name = "stalls"

    def __init__(self, names: Sequence[str], folder: Path, sizes: Sizes) -> None:
        super().__init__(names, folder, sizes)
        self._waits: dict[int, dict[str, list[Waits]]] = {rate: {} for rate in RATES}
        self._plain_bytes = (folder / corpora.BIG).stat().st_size

    def steps(self) -> int:
        return len(self.lineup.names) * len(RATES)

    def round(self, number: int, report: Report) -> None:
        for rate, waits in self._waits.items():
            for name in list(self.lineup.names):
                report(f"{self.name}: {rate} requests/s, {name}")
                with (
                    self.lineup.leaving_out(name, during=self.name),
                    Server(CONTESTANTS.find(name), self.folder) as server,
                ):
                    arrivals = _arrivals(rate, self.sizes.stalls_seconds, seed=number)
                    found = run(_measure(server, self.folder, arrivals))
                    waits.setdefault(name, []).append(found)

    def show(self) -> None:
        show_text(
            f"""
stalls: requests at random times for {self.sizes.stalls_seconds:g} s, without waiting for responses.
Every {BIG_EVERY}th is for 8 MB of JSON, the others for {SMALL_CORPUS}. A wait is measured from the
time when the request was due. Gap: the longest delay of a timer of 1 ms in the server's event loop.
Peak: the maximum resident memory of the server, which is started for the round."""
        )
        header = (
            "", "small p50, ms", "p99, ms", "p99.9, ms", f"p99 below {CONTESTANTS.title(RIVAL)}'s",
            "gap, ms", "8 MB p50, ms", "coding", "bytes of 8 MB", "ratio", "peak, MB",
        )  # fmt: skip
        for rate in RATES:
            lines = [self._line(rate, name) for name in self.lineup.names]
            if lines:
                title = f"{1 / BIG_EVERY:.0%} responses of 8 MB among small ones, {rate} requests/s"
                show_table(title, header, lines)

    def _line(self, rate: int, name: str) -> list[str]:
        size = self._median(rate, name, "big_body_bytes")
        return [
            CONTESTANTS.title(name),
            *(short(self._median(rate, name, key)) for key in ("p50_ms", "p99_ms", "p999_ms")),
            str(self._times_lower(rate, name)) if self._has_ratio(name) else "",
            short(self._median(rate, name, "gap_ms")),
            short(self._median(rate, name, "big_p50_ms")),
            self._waits[rate][name][-1].coding,
            f"{size:,.0f}",
            f"{self._plain_bytes / size:.2f}",
            f"{self._median(rate, name, 'peak_bytes') / 1e6:,.0f}",
        ]

    def _median(self, rate: int, name: str, key: str) -> float:
        found: list[float] = [getattr(waits, key) for waits in self._waits[rate][name]]
        return median(found)

    def _has_ratio(self, name: str) -> bool:
        return name != RIVAL and {name, RIVAL} <= set(self.lineup.names)

    def _times_lower(self, rate: int, name: str) -> Ratios:
        pairs = zip(self._waits[rate][RIVAL], self._waits[rate][name], strict=True)
        return Ratios([theirs.p99_ms / ours.p99_ms for theirs, ours in pairs])

    def verdicts(self) -> list[Verdict]:
        if not self._has_ratio(OURS):
            return []
        return [self._verdict(rate) for rate in RATES]

    def _verdict(self, rate: int) -> Verdict:
        ratio = self._times_lower(rate, OURS)
        rival = CONTESTANTS.title(RIVAL)
        target = (
            f"stalls, {rate} requests/s: p99 of small responses at least "
            f"{TIMES_LOWER:g} times lower than {rival}'s"
        )
        measured = f"{ratio}, longest gap {short(self._median(rate, OURS, 'gap_ms'))} ms"
        if "bare" in self.lineup.names:
            measured += f"; the bare application: {self._times_lower(rate, 'bare')}"
        return Verdict(target, measured, ratio.median >= TIMES_LOWER)

    def samples(self) -> Mapping[str, Any]:
        return {
            f"{rate} requests/s": {
                name: [asdict(each) for each in found] for name, found in waits.items()
            }
            for rate, waits in self._waits.items()
        }


def _arrivals(rate: int, seconds: float, *, seed: int) -> list[float]:
    """Return the random times of requests, the same for all contestants of a round."""
    chance = random.Random(seed)
    moments = [0.0]
    while moments[-1] < seconds:
        moments.append(moments[-1] + chance.expovariate(rate))
    return moments


async def _measure(server: Server, folder: Path, arrivals: Sequence[float]) -> Waits:
    pool = CompressionThreads(server.port)
    small, big = chrome.request(f"/{SMALL_CORPUS}"), chrome.request(f"/{corpora.BIG}")
    control = await Connection.open(server.port)
    first = await control.get(big, keep=True)
    check(first, (folder / corpora.BIG).read_bytes(), corpora.BIG)
    for _ in range(2_000):
        await control.get(small)
    await ask(control, "ticker")
    await asyncio.sleep(0.05)
    await ask(control, "ticker")
    kinds = [number % BIG_EVERY == BIG_EVERY // 2 for number in range(len(arrivals))]
    start = time.perf_counter()
    answers = await asyncio.gather(
        *(
            pool.get(big if is_big else small, start + moment)
            for moment, is_big in zip(arrivals, kinds, strict=True)
        )
    )
    gap_ms = (await ask(control, "ticker"))["longest_ms"]
    waits = [(response.ended_at - begun) * 1e3 for begun, response in answers]
    smalls = sorted(wait for wait, is_big in zip(waits, kinds, strict=True) if not is_big)
    bigs = sorted(wait for wait, is_big in zip(waits, kinds, strict=True) if is_big)
    bodies = [response for (_, response), is_big in zip(answers, kinds, strict=True) if is_big]
    pool.close()
    control.close()
    return Waits(
        p50_ms=percentile(smalls, 0.5),
        p99_ms=percentile(smalls, 0.99),
        p999_ms=percentile(smalls, 0.999),
        big_p50_ms=percentile(bigs, 0.5),
        gap_ms=gap_ms,
        peak_bytes=server.peak_rss_bytes(),
        big_body_bytes=sum(response.size for response in bodies) / len(bodies),
        coding="/".join(sorted({response.coding for response in bodies})),
    )


class CompressionThreads:
    """A pool of kept-alive connections. A new one is opened if all are in use."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[Connection] = []

    async def get(self, request: bytes, due: float) -> tuple[float, Response]:
        """Return the start of the wait, as uvloop may wake 1 ms too early, and the response."""
        await asyncio.sleep(due - time.perf_counter())
        begun = min(due, time.perf_counter())
        connection = self._idle.pop() if self._idle else await Connection.open(self._port)
        response = await connection.get(request)
        self._idle.append(connection)
        return begun, response

    def close(self) -> None:
        for connection in self._idle:
            connection.close()
