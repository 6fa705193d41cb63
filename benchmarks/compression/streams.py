"""The memory of an open event stream, and the delay that compression adds to an event."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.compression import chrome
from benchmarks.compression.client import Connection, Response, ask, run
from benchmarks.compression.contestant import CONTESTANTS, OURS, baseline
from benchmarks.compression.decoding import new_decoder
from benchmarks.compression.part import CompressionPart, Sizes
from benchmarks.compression.server import Server
from benchmarks.contestants import Failed
from benchmarks.parts import Report
from benchmarks.tables import show_table, show_text
from benchmarks.verdicts import Verdict, percentile, short

MAX_STREAM_BYTES: Final = 40_000
SETTLE_SECONDS: Final = 0.5
POLL_SECONDS: Final = 0.1

_SENT_AT: Final = re.compile(rb'^data: \{"at":(\d+)')


@dataclass(frozen=True, slots=True)
class StreamCost:
    """The measurements of a contestant.

    stream_bytes is the memory of the server for a stream. held is the fraction of events that only
    arrived at the end of their stream. The latencies are those of the other events.
    """

    coding: str
    stream_bytes: float
    p50_ms: float
    p99_ms: float
    held: float
    ratio: float


class Streams(CompressionPart):
    name = "streams"

    def __init__(self, names: Sequence[str], folder: Path, sizes: Sizes) -> None:
        super().__init__(names, folder, sizes)
        self._costs: dict[str, list[StreamCost]] = {}

    def steps(self) -> int:
        return len(self.lineup.names)

    def round(self, number: int, report: Report) -> None:
        sizes = self.sizes
        for name in list(self.lineup.names):
            report(f"{self.name}: {name}")
            with (
                self.lineup.leaving_out(name, during=self.name),
                Server(
                    CONTESTANTS.find(name), self.folder,
                    streams=sizes.streams, events=sizes.events,
                    interval_seconds=sizes.interval_seconds,
                ) as server,
            ):  # fmt: skip
                self._costs.setdefault(name, []).append(run(_measure(server, sizes)))

    def show(self) -> None:
        sizes = self.sizes
        show_text(
            f"""
streams: {sizes.streams:,} streams are open. Each gets {sizes.events} events of about 110 bytes, one
every {sizes.interval_seconds:g} s. Memory: the growth of the server's resident memory, divided by
the number of streams. over bare: minus the memory without compression in the same round. The time
of an event is measured from just before the application sends it until the client can decode it."""
        )
        lines = [self._line(name) for name in self.lineup.names]
        if lines:
            header = (
                "", "coding", "ratio", "memory by stream, kB", "over bare, kB", "event p50, ms",
                "over bare, ms", "event p99, ms", "over bare, ms", "",
            )  # fmt: skip
            show_table(f"{sizes.streams:,} open streams of events", header, lines)

    def _line(self, name: str) -> list[str]:
        found = self._costs[name]
        compared = self._is_compared(name)
        holds = self._holds_events_back(name)
        line = [
            CONTESTANTS.title(name),
            found[-1].coding,
            f"{median([burden.ratio for burden in found]):.2f}",
            short(median([burden.stream_bytes for burden in found]) / 1e3),
            short(median(self._over_bare(name, "stream_bytes")) / 1e3) if compared else "–",
        ]
        for key in ("p50_ms", "p99_ms"):
            line.append("–" if holds else short(median([getattr(each, key) for each in found])))
            over = compared and not holds
            line.append(f"{median(self._over_bare(name, key)):+.2f}" if over else "")
        return [*line, self._remark(name)]

    def _remark(self, name: str) -> str:
        if self._holds_events_back(name):
            held = median([burden.held for burden in self._costs[name]])
            return f"holds {held:.0%} of the events back until the stream ends"
        if self._costs[name][-1].coding == "identity" and self._is_compared(name):
            return "does not compress events"
        return ""

    def _holds_events_back(self, name: str) -> bool:
        return median([burden.held for burden in self._costs[name]]) > 0.01

    def _is_compared(self, name: str) -> bool:
        return name != baseline(name) and {name, baseline(name)} <= set(self.lineup.names)

    def _over_bare(self, name: str, key: str) -> list[float]:
        pairs = zip(self._costs[name], self._costs[baseline(name)], strict=True)
        return [getattr(burden, key) - getattr(bare, key) for burden, bare in pairs]

    def verdicts(self) -> list[Verdict]:
        if not self._is_compared(OURS):
            return []
        size = median(self._over_bare(OURS, "stream_bytes"))
        target = f"streams, {self.sizes.streams:,} open: at most {MAX_STREAM_BYTES / 1e3:g} kB each"
        ours = self._costs[OURS]
        held = median([burden.held for burden in ours])
        ratio = median([burden.ratio for burden in ours])
        measured = (
            f"{short(size / 1e3)} kB, {ratio:.2f} times smaller, "
            f"added p50 {median(self._over_bare(OURS, 'p50_ms')):+.2f} ms, "
            f"p99 {median(self._over_bare(OURS, 'p99_ms')):+.2f} ms, {held:.0%} held back"
        )
        compresses = ours[-1].coding != "identity"
        return [Verdict(target, measured, size <= MAX_STREAM_BYTES and compresses and not held)]

    def samples(self) -> Mapping[str, Any]:
        return {name: [asdict(burden) for burden in found] for name, found in self._costs.items()}


async def _measure(server: Server, sizes: Sizes) -> StreamCost:
    control = await Connection.open(server.port)
    for _ in range(500):
        await ask(control, "streams")
    before = server.rss_bytes()
    records = [await _open(server.port, number) for number in range(sizes.streams)]
    await _until(control, "open", sizes.streams)
    await ask(control, "go")
    await _until(control, "sent", sizes.streams * sizes.events)
    await asyncio.sleep(SETTLE_SECONDS)
    growth = server.rss_bytes() - before
    end_ns = time.monotonic_ns()
    await ask(control, "end")
    await asyncio.gather(*(record.ended for record in records))
    arrivals = [record.read() for record in records]
    events = [event for arrival in arrivals for event in arrival.events]
    if len(events) != sizes.streams * sizes.events:
        raise Failed(f"only {len(events)} of {sizes.streams * sizes.events} events arrived")
    prompt = sorted((at - sent) / 1e6 for sent, at in events if at <= end_ns)
    return StreamCost(
        coding=arrivals[0].coding,
        stream_bytes=growth / sizes.streams,
        p50_ms=percentile(prompt, 0.5) if prompt else 0.0,
        p99_ms=percentile(prompt, 0.99) if prompt else 0.0,
        held=1 - len(prompt) / len(events),
        ratio=sum(arrival.plain_bytes for arrival in arrivals)
        / sum(arrival.coded_bytes for arrival in arrivals),
    )


async def _until(control: Connection, key: str, count: int) -> None:
    while (await ask(control, "streams"))[key] < count:  # noqa: ASYNC110  # the count of another process
        await asyncio.sleep(POLL_SECONDS)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A stream as received: when each event was sent, and when it could be decoded, in ns."""

    coding: str
    events: Sequence[tuple[int, int]]
    plain_bytes: int
    coded_bytes: int


class Record(asyncio.Protocol):
    """Records bytes and the times of their arrival. They are decoded after the measurement."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pieces: list[tuple[int, bytes]] = []

    def data_received(self, data: bytes) -> None:
        self._pieces.append((time.monotonic_ns(), data))
        if data.endswith(b"0\r\n\r\n") and self._is_complete():
            self.ended.set_result(None)

    def _is_complete(self) -> bool:
        response = Response()
        return any(response.feed(data) for _, data in self._pieces)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(exc or ConnectionResetError("closed by the server"))

    def read(self) -> Arrival:
        response, events, plain, text = Response(keep=True), [], 0, b""
        decode = None
        for at, data in self._pieces:
            response.feed(data)
            if not response.pieces:
                continue
            decode = decode or new_decoder(response.coding)
            decoded = b"".join(map(decode, response.pieces))
            response.pieces.clear()
            plain += len(decoded)
            *complete, text = (text + decoded).split(b"\n\n")
            events += [(_sent_at(event), at) for event in complete]
        return Arrival(response.coding, events, plain, response.size)


def _sent_at(event: bytes) -> int:
    found = _SENT_AT.match(event)
    if found is None:
        raise Failed(f"malformed event {event!r}")
    return int(found[1])


async def _open(port: int, number: int) -> Record:
    transport, record = await asyncio.get_running_loop().create_connection(
        Record, "127.0.0.1", port
    )
    transport.write(chrome.request(f"/stream?{number}").replace(b"*/*", b"text/event-stream"))
    return record
