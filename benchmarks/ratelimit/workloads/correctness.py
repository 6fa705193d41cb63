"""How many requests a limit allows or denies wrongly."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final

from benchmarks.asgi import Answer, Application
from benchmarks.ratelimit.application import Logins, call
from benchmarks.ratelimit.contestant import PythonContestant, Rate
from benchmarks.ratelimit.workloads.client_requests import Request, by_default, by_library

PARALLEL: Final = 30
LOGIN_RATE: Final = Rate(5, 3_600)
CLIENT: Final = "203.0.113.7"
SEAM_RATE: Final = Rate(100, 1)
DEADLINE_SECONDS: Final = 20


async def measure(contestant: type[PythonContestant]) -> dict[str, Any]:
    async with asyncio.timeout(DEADLINE_SECONDS):
        requests = {
            algorithm: by_library(contestant, algorithm, [SEAM_RATE], None)
            for algorithm in contestant.algorithms
        } or {"": by_default(contestant, SEAM_RATE)}
        passed = await asyncio.gather(*map(_seam, requests.values()))
        return {
            "logins": await _logins(contestant),
            "seam": dict(zip(requests, passed, strict=True)),
        }


async def _logins(contestant: type[PythonContestant]) -> dict[str, int] | None:
    """Return how many wrong passwords were checked, and how many correct logins succeeded."""
    bad, good = Logins(), Logins()
    for_bad, for_good = (contestant.logins(app, LOGIN_RATE) for app in (bad, good))
    if for_bad is None or for_good is None:
        return None
    await _all_at_once(for_bad, bad, "/login?bad")
    answers = await _all_at_once(for_good, good, "/login?good")
    later = [
        (await call(for_good, "/login?good", CLIENT, method="POST")).status
        for _ in range(LOGIN_RATE.limit)
    ]
    return {
        "bad_tried": bad.reached,
        "good_in": sum(answer.status == 200 for answer in answers),
        "good_later": later.count(200),
    }


async def _all_at_once(app: Application, logins: Logins, path: str) -> Sequence[Answer]:
    """Send all requests before the application responds to the first one."""
    calls = [asyncio.ensure_future(call(app, path, CLIENT, method="POST")) for _ in range(PARALLEL)]
    for each in calls:
        each.add_done_callback(lambda _: logins.arrivals.release())
    for _ in calls:
        await logins.arrivals.acquire()
    logins.opened.set()
    return await asyncio.gather(*calls)


async def _seam(request: Request) -> int:
    """Return how many requests are allowed in quick succession around the end of a window.

    One request starts a window at a full second. Just before the window ends, the client starts to
    send requests as fast as they are allowed, and continues for the length of a window.
    """
    start = time.time() // 1 + 1.005
    await asyncio.sleep(start - time.time())
    await request(CLIENT)
    start = time.time()
    await asyncio.sleep(start + 0.9 - time.time())
    begin, passed = time.monotonic(), 0
    while True:
        while await request(CLIENT):
            if time.monotonic() - begin >= 0.99 * SEAM_RATE.seconds:
                return passed
            passed += 1
        if time.monotonic() - begin >= 0.99 * SEAM_RATE.seconds:
            return passed
        await asyncio.sleep(0.005)
