"""Bytes and processor time. No contestant should send fewer bytes in less time than hasten."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import chain, product
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.compression import chrome, corpora
from benchmarks.compression.client import Connection, Response, run
from benchmarks.compression.contestant import CONTESTANTS, OURS, RIVAL, baseline
from benchmarks.compression.decoding import check
from benchmarks.compression.part import CompressionPart, Sizes, titles
from benchmarks.compression.server import Server
from benchmarks.parts import Report
from benchmarks.tables import show_table, show_text
from benchmarks.verdicts import Ratios, Verdict, short

CONNECTIONS: Final = 8
WARM_UP_SECONDS: Final = 0.5  # Node compiles functions after about 10,000 requests

# A difference below this fraction of the time of a request counts as noise.
NOISE: Final = 0.02

LESS_CPU: Final = 10.0
MORE_BYTES: Final = 1.15


@dataclass(frozen=True, slots=True)
class Case:
    accept_encoding: str
    kind: str
    size: str

    @property
    def corpus(self) -> str:
        return f"{self.kind}-{self.size}"


CHROME_CASES: Final = [
    Case(chrome.ALL_CODINGS, *case) for case in product(corpora.KINDS, corpora.SIZES)
]
GZIP_CASES: Final = [Case("gzip", *case) for case in product(corpora.KINDS, corpora.SIZES)]
TARGET_CASE: Final = Case(chrome.ALL_CODINGS, "json", "100kB")


@dataclass(frozen=True, slots=True)
class Cost:
    """The average cost of a request."""

    coding: str
    body_bytes: float
    cpu_us: float
    per_second: float


@dataclass(slots=True)
class Costs:
    """The costs of one case: for each contestant, the cost in each round."""

    names: Sequence[str]
    by_name: dict[str, list[Cost]] = field(default_factory=dict)

    def bytes(self, name: str) -> float:
        return median([cost.body_bytes for cost in self.by_name[name]])

    def over_bare_us(self, name: str) -> list[float]:
        """Return the cost of compression, without that of the server, for each round."""
        bare = self.by_name[baseline(name)]
        pairs = zip(self.by_name[name], bare, strict=True)
        return [cost.cpu_us - base.cpu_us for cost, base in pairs]

    def times_ours(self, name: str) -> Ratios:
        """Return the cost of compression divided by that of hasten, for each round."""
        pairs = zip(self.over_bare_us(name), self.over_bare_us(OURS), strict=True)
        return Ratios([theirs / max(ours, 0.1) for theirs, ours in pairs])

    def compared(self) -> list[str]:
        """Return the contestants that compress, and whose baseline was measured, too."""
        return [
            name for name in self.names if baseline(name) in self.names and baseline(name) != name
        ]

    def better_contestants(self, name: str) -> list[str]:
        """Return the contestants that send fewer bytes in less time than this one."""
        return [
            other
            for other in self.compared()
            if self.bytes(other) < self.bytes(name) and self._is_faster(other, name)
        ]

    def _is_faster(self, one: str, other: str) -> bool:
        pairs = zip(self.over_bare_us(one), self.over_bare_us(other), strict=True)
        saved = median([theirs - ours for ours, theirs in pairs])
        return saved > NOISE * median([cost.cpu_us for cost in self.by_name[other]])


class Pareto(CompressionPart):
    name = "pareto"

    def __init__(self, names: Sequence[str], folder: Path, sizes: Sizes) -> None:
        super().__init__(names, folder, sizes)
        self._costs = {
            case: Costs(self.lineup.names) for case in [*CHROME_CASES, *GZIP_CASES]
        }  # fmt: skip
        self._plain_bytes = {
            case.corpus: (folder / case.corpus).stat().st_size for case in CHROME_CASES
        }  # fmt: skip

    def steps(self) -> int:
        return len(self._costs)

    def round(self, number: int, report: Report) -> None:
        with ExitStack() as stack:
            servers: dict[str, Server] = {}
            for name in list(self.lineup.names):
                with self.lineup.leaving_out(name, during=self.name):
                    servers[name] = stack.enter_context(Server(CONTESTANTS.find(name), self.folder))
                    run(_warm_up(servers[name]))
            for case, costs in self._costs.items():
                report(f"{self.name}: {case.kind}, {case.size}, {case.accept_encoding}")
                expected = (self.folder / case.corpus).read_bytes()
                for name in list(self.lineup.names):
                    with self.lineup.leaving_out(name, during=self.name):
                        work = _measure(servers[name], case, expected, self.sizes.pareto_seconds)
                        costs.by_name.setdefault(name, []).append(run(work))

    def show(self) -> None:
        show_text(
            f"""
pareto: {CONNECTIONS} kept-alive connections, with one request at a time on each, for
{self.sizes.pareto_seconds:g} s in each line and round. CPU: the time of all threads of the server
for a request, including system calls. over bare: minus the time of the same server without
compression in the same round. Differences below {NOISE:.0%} of the CPU of a request count as noise.
Bytes: those of the body."""
        )
        for cases in (CHROME_CASES, GZIP_CASES):
            for kind in corpora.KINDS:
                lines: list[list[str]] = []
                for case in cases:
                    if case.kind == kind:
                        lines += self._lines(case)
                title = f"{kind}, Accept-Encoding: {cases[0].accept_encoding}"
                if lines:
                    show_table(title, HEADER, lines)

    def _lines(self, case: Case) -> list[list[str]]:
        costs = self._costs[case]
        plain = self._plain_bytes[case.corpus]
        lines: list[list[str]] = []
        for name in self.lineup.names:
            compared = name in costs.compared()
            has_ours = compared and name != OURS and OURS in costs.compared()
            found = costs.by_name[name]
            lines.append(
                [
                    "" if lines else f"{case.size} ({plain:,})",
                    CONTESTANTS.title(name),
                    found[-1].coding,
                    f"{costs.bytes(name):,.0f}",
                    f"{plain / costs.bytes(name):.2f}",
                    short(median([cost.cpu_us for cost in found])),
                    short(median(costs.over_bare_us(name))) if compared else "–",
                    str(costs.times_ours(name)) if has_ours else "",
                    short(median([cost.per_second for cost in found])),
                    titles(costs.better_contestants(name)) if compared else "",
                ]
            )
        return lines

    def verdicts(self) -> list[Verdict]:
        if OURS not in self._costs[TARGET_CASE].compared():
            return []
        return [*map(self._verdict_on_rivals, CHROME_CASES), *self._verdicts_on_starlette()]

    def _verdict_on_rivals(self, case: Case) -> Verdict:
        better = self._costs[case].better_contestants(OURS)
        target = f"{case.kind}, {case.size}: no contestant is both faster and smaller than hasten"
        return Verdict(target, titles(better) or "none is", not better)

    def _verdicts_on_starlette(self) -> list[Verdict]:
        costs = self._costs[TARGET_CASE]
        if RIVAL not in costs.compared():
            return []
        cpu = costs.times_ours(RIVAL)
        size = costs.bytes(OURS) / costs.bytes(RIVAL)
        what = f"json, {TARGET_CASE.size}"
        rival = CONTESTANTS.title(RIVAL)
        return [
            Verdict(
                f"{what}: {rival}'s CPU over bare at least {LESS_CPU:g} times hasten's",
                str(cpu), cpu.median >= LESS_CPU,
            ),
            Verdict(
                f"{what}: at most {MORE_BYTES - 1:.0%} more bytes than {rival}",
                f"{size - 1:+.1%}", size <= MORE_BYTES,
            ),
        ]  # fmt: skip

    def samples(self) -> Mapping[str, Any]:
        return {
            f"{case.corpus}, {case.accept_encoding}": {
                name: [asdict(cost) for cost in found] for name, found in costs.by_name.items()
            }
            for case, costs in self._costs.items()
        }


HEADER: Final = (
    "size (bytes)", "", "coding", "bytes", "ratio", "CPU, µs", "over bare, µs", "of hasten's",
    "requests/s", "smaller and faster",
)  # fmt: skip


async def _warm_up(server: Server) -> None:
    connections = await _connect(server)
    request = chrome.request("/json-1kB")
    await _repeat(connections, request, WARM_UP_SECONDS)
    for connection in connections:
        connection.close()


async def _measure(server: Server, case: Case, expected: bytes, seconds: float) -> Cost:
    connections = await _connect(server)
    request = chrome.request(f"/{case.corpus}", case.accept_encoding)
    check(await connections[0].get(request, keep=True), expected, case.corpus)
    await _repeat(connections, request, seconds / 5)
    cpu, start = server.cpu_seconds(), time.perf_counter()
    responses = await _repeat(connections, request, seconds)
    cpu, taken = server.cpu_seconds() - cpu, time.perf_counter() - start
    for connection in connections:
        connection.close()
    return Cost(
        coding="/".join(sorted({response.coding for response in responses})),
        body_bytes=sum(response.size for response in responses) / len(responses),
        cpu_us=cpu / len(responses) * 1e6,
        per_second=len(responses) / taken,
    )


async def _connect(server: Server) -> list[Connection]:
    return [await Connection.open(server.port) for _ in range(CONNECTIONS)]


async def _repeat(
    connections: Sequence[Connection], request: bytes, seconds: float
) -> list[Response]:
    """Send requests on each connection, at least one. Each request waits for the last response."""
    end = time.perf_counter() + seconds

    async def one(connection: Connection) -> list[Response]:
        responses = [await connection.get(request)]
        while time.perf_counter() < end:
            responses.append(await connection.get(request))
        return responses

    return list(chain.from_iterable(await asyncio.gather(*map(one, connections))))
