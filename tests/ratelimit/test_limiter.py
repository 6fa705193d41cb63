"""Limits outside of HTTP."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Final

import pytest

from hasten.errors import InvalidOption, UsageError
from hasten.ratelimit._limiter import Limiter
from hasten.ratelimit._stores.memory import MemoryStore
from tests.ratelimit.stores import Clock, prefix_of
from tests.servers.redis import shared_redis

PATIENCE: Final = 30
"""Seconds for the store to respond: on a busy machine it may exceed the default of 50 ms."""


class TestLimiter:
    async def test_hits_pass_up_to_the_limit(self) -> None:
        limiter = Limiter("2/h", name="limiter")
        decisions = [await limiter.hit("ada") for _ in range(3)]
        assert [bool(d) for d in decisions] == [True, True, False]
        assert [d.remaining for d in decisions] == [1, 0, 0]
        assert 3590 < decisions[2].retry_after <= 3600
        assert await limiter.hit("bob")

    async def test_the_decision_shows_the_strictest_of_several_rates(self) -> None:
        limiter = Limiter("5/s, 3/h", name="limiter")
        assert (await limiter.hit("ada", 3)).remaining == 0
        denied = await limiter.hit("ada")
        assert (denied.ok, denied.limit) == (False, 3)

    async def test_wait_takes_the_cost_as_soon_as_it_fits(self) -> None:
        limiter = Limiter("50/s burst 1", name="limiter")
        assert all([await limiter.wait("ada") for _ in range(5)])

    async def test_wait_returns_a_denial_at_once_if_the_timeout_is_too_short(self) -> None:
        limiter = Limiter("1/h", name="limiter")
        await limiter.hit("ada")
        assert not await limiter.wait("ada", timeout=10)
        with pytest.raises(InvalidOption, match=r"^cost=2: must be at most 1"):
            await limiter.wait("ada", cost=2)

    async def test_peek_reset_block(self) -> None:
        clock = Clock()
        limiter = Limiter("1/h, 9/d", name="limiter", store=MemoryStore(clock=clock))
        assert await limiter.peek("ada")
        assert await limiter.hit("ada")
        assert not await limiter.peek("ada")
        await limiter.reset("ada")
        assert await limiter.hit("ada")
        await limiter.reset("ada")
        await limiter.block("ada", 7200)
        assert (await limiter.hit("ada")).retry_after == 7200
        clock.advance(7200)
        assert await limiter.hit("ada")

    async def test_exceeding_the_limit_blocks_the_key(self) -> None:
        limiter = Limiter("1/s", name="limiter", block_for=60)
        await limiter.hit("ada")
        assert (await limiter.hit("ada")).retry_after == 60

    async def test_limiters_of_one_name_share_their_counts(self, tmp_path: Path) -> None:
        url = f"{shared_redis().url}?prefix={prefix_of(tmp_path)}"
        one, two, other = (
            Limiter("1/h", store=url, name=name, store_timeout=PATIENCE)
            for name in ("one", "one", "other")
        )
        assert await one.hit("ada")
        assert not await two.hit("ada")
        assert await other.hit("ada")
        for limiter in (one, two, other):
            await limiter.aclose()
            await limiter.aclose()

    async def test_the_cache_of_keys_is_bounded(self) -> None:
        limiter = Limiter("1/h", name="limiter")
        for number in range(11_000):
            await limiter.hit(str(number))
        assert len(limiter._groups) <= 10_000

    @pytest.mark.parametrize(
        ("options", "named"),
        [
            ({"rate": "1/fortnight"}, "rate"),
            ({"store": "http://x"}, "url"),
            ({"store": 5}, "store"),
            ({"on_store_error": "shrug"}, "on_store_error"),
            ({"algorithm": "leaky"}, "algorithm"),
            ({"name": ""}, "name"),
            ({"block_for": -1}, "block_for"),
            ({"block_for": 0.5}, "block_for"),
            ({"processes": 0}, "processes"),
            ({"store_timeout": 0}, "store_timeout"),
        ],
    )
    def test_mistakes_are_found_at_once(self, options: dict[str, object], named: str) -> None:
        with pytest.raises(InvalidOption, match=f"^{named}="):
            Limiter(**{"rate": "1/s", "name": "limiter"} | options)  # type: ignore[arg-type]

    async def test_a_cost_is_a_whole_number(self) -> None:
        for wrong in (-1, True, 1.5):
            with pytest.raises(InvalidOption, match=r"^cost="):
                await Limiter("1/s", name="limiter").hit("ada", wrong)  # type: ignore[arg-type]


class TestSync:
    @pytest.mark.parametrize("store", ["memory", "redis"])
    def test_threads_without_an_event_loop(self, store: str, tmp_path: Path) -> None:
        url = "memory://" if store == "memory" else (
            f"{shared_redis().url}?prefix={prefix_of(tmp_path)}"
        )  # fmt: skip
        limiter = Limiter("20/h", name="limiter", store=url, store_timeout=PATIENCE)
        passed: list[int] = []

        def client() -> None:
            passed.append(sum(bool(limiter.sync.hit("ada")) for _ in range(10)))

        threads = [threading.Thread(target=client) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(passed) == 20
        assert not limiter.sync.peek("ada")
        assert not limiter.sync.wait("ada", timeout=1)
        limiter.sync.reset("ada")
        limiter.sync.block("ada", 5)
        assert not limiter.sync.hit("ada")
        limiter.sync.close()

    async def test_warns_in_a_running_loop_and_does_not_wait_there(self) -> None:
        limiter = Limiter("2/h", name="limiter", store="memory://")
        with pytest.warns(RuntimeWarning, match=r"use 'await limiter\.hit\("):
            assert limiter.sync.hit("ada")
        with pytest.raises(UsageError, match=r"use 'await limiter\.wait\("):
            limiter.sync.wait("ada")
        with pytest.raises(UsageError, match=r"use 'await limiter\.aclose\("):
            limiter.sync.close()
        await limiter.aclose()

    def test_sync_and_async_calls_share_their_counts(self, tmp_path: Path) -> None:
        url = f"{shared_redis().url}?prefix={prefix_of(tmp_path)}"
        limiter = Limiter("2/h", name="limiter", store=url, store_timeout=PATIENCE)
        assert limiter.sync.hit("ada")

        async def main() -> None:
            assert await limiter.hit("ada")
            assert not await limiter.hit("ada")

        asyncio.run(main())
        assert not limiter.sync.hit("ada")
        limiter.sync.close()
