"""`python -m benchmarks.ratelimit`: compare rate limiting libraries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from benchmarks.benchmark import Benchmark, run
from benchmarks.machine import allow_open_files
from benchmarks.parts import Part
from benchmarks.ratelimit.contestant import CONTESTANTS, Contestant
from benchmarks.ratelimit.correctness import Correctness
from benchmarks.ratelimit.hits import Hits
from benchmarks.ratelimit.memory import Memory
from benchmarks.ratelimit.on_redis import OnRedis
from benchmarks.ratelimit.on_sqlite import OnSqlite
from benchmarks.ratelimit.overhead import Overhead
from benchmarks.ratelimit.overload import Overload
from benchmarks.ratelimit.part import Sizes, StoreRateLimitPart
from benchmarks.stores import RedisServer


class RateLimits(Benchmark[Contestant, Sizes]):
    contestants = CONTESTANTS
    known_parts: ClassVar[dict[str, type[StoreRateLimitPart]]] = {
        part.name: part
        for part in (Hits, Overhead, OnRedis, OnSqlite, Memory, Correctness, Overload)
    }
    part_names = tuple(known_parts)
    full = Sizes()
    quick = Sizes(
        repeats=3, redis_seconds=0.5, keys=20_000, many_keys=100_000, redis_keys=2_000,
        overload_seconds=4,
    )  # fmt: skip

    def measure(self) -> Sequence[Part]:
        allow_open_files()  # some contestants open a connection for each call
        with RedisServer(None) as server, server.new_location() as url:
            self.environment |= server.facts()
            kinds = [self.known_parts[name] for name in self.options.parts]
            return self.measure_rounds([part(self.names, url, self.sizes) for part in kinds])


if __name__ == "__main__":
    raise SystemExit(run(RateLimits, __doc__))
