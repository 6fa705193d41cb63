"""express-rate-limit with rate-limit-redis, in Node."""

from __future__ import annotations

from benchmarks.ratelimit.contestant import NodeContestant


class ExpressRateLimit(NodeContestant):
    title = "express-rate-limit, Node"
    remark = (
        "fixed window, draft-8 and X-RateLimit headers; on Redis with node-redis, which combines"
        " the commands of one tick; without an application: increment of its stores"
    )
    packages = ("node", "express", "express-rate-limit", "rate-limit-redis", "redis")
    algorithms = ("fixed window",)


CONTESTANT = ExpressRateLimit
