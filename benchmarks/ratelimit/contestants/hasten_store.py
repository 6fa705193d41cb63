"""hasten's store in memory without a `Limiter`, called in the same way as by the middleware."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from benchmarks.ratelimit.contestant import Hit, PythonContestant, Rate


class HastenStore(PythonContestant):
    title = "hasten, its store"
    remark = "MemoryStore.hit_one with a prepared check for each client, as in the middleware"
    packages = ("hasten",)
    algorithms = ("fixed", "sliding", "gcra")
    has_application = False
    uses_redis = False

    @classmethod
    def limiter(cls, rates: Sequence[Rate], *, algorithm: str, url: str | None = None) -> Hit:
        from hasten.ratelimit._counter_store import Check, hash_client
        from hasten.ratelimit._rates import Rate as HastenRate
        from hasten.ratelimit._rules import make_rule
        from hasten.ratelimit._stores import MemoryStore

        [rate] = rates
        rule = make_rule(HastenRate(rate.limit, rate.seconds), cast("Any", algorithm))
        hit_one = MemoryStore(max_keys=2_000_000).hit_one
        checks: dict[str, Check] = {}

        def hit(key: str) -> bool:
            check = checks.get(key)
            if check is None:
                check = checks[key] = Check("bucket", hash_client(key), rule)
            return hit_one(check).ok

        return hit


CONTESTANT = HastenStore
