"""How long finished jobs are kept. As in BullMQ, each finish has a rule."""

from __future__ import annotations

from typing import Any

import pytest

from hasten.jobs._engine import Engine
from hasten.jobs._options import KEEP_ALL, KEEP_NONE, Keep
from hasten.jobs._record import Completed, Failed, LogLine, NewJob, Outcome
from hasten.jobs._states import State
from tests.contract.steps import NOW, QUEUE, claim, counts, exists, ids_in, new_job, settled, start


def ending(state: State, id: str, keep: Keep) -> Outcome:
    if state is State.COMPLETED:
        return Completed(id, "t1", "1", keep)
    return Failed(id, "t1", "no", "trace", keep)


@pytest.fixture(params=[State.COMPLETED, State.FAILED])
def state(request: pytest.FixtureRequest) -> State:
    assert isinstance(request.param, State)
    return request.param


class TestKeep:
    async def test_all_keeps_all(self, engine: Engine, state: State) -> None:
        await start(engine, *"abcde")
        await settled(engine, *(ending(state, id, KEEP_ALL) for id in "abcde"))
        assert await counts(engine) == {state: 5}

    async def test_none_deletes_the_job_at_its_finish(self, engine: Engine, state: State) -> None:
        await start(engine, "a")
        await engine.update(QUEUE, [LogLine("a", "line", 10)], now_ms=NOW)
        await settled(engine, ending(state, "a", KEEP_NONE))
        assert await counts(engine) == {}
        assert not await exists(engine, "a")
        assert await engine.logs(QUEUE, "a") == []

    async def test_none_does_not_touch_the_others(self, engine: Engine, state: State) -> None:
        """A task that keeps nothing does not delete the results of other tasks."""
        await start(engine, "a", "b")
        await settled(engine, ending(state, "a", KEEP_ALL))
        await settled(engine, ending(state, "b", KEEP_NONE), now_ms=NOW + 1)
        assert await ids_in(engine, state) == ["a"]

    async def test_a_count_keeps_the_newest(self, engine: Engine, state: State) -> None:
        """The newest by finish time, not by the time of adding."""
        await start(engine, *"abcde")
        for n, id in enumerate("ecdba"):
            await settled(engine, ending(state, id, Keep(count=3)), now_ms=NOW + n)
        assert await ids_in(engine, state) == ["d", "b", "a"]

    async def test_a_count_holds_within_one_call(self, engine: Engine, state: State) -> None:
        await start(engine, *"abcde")
        await settled(engine, *(ending(state, id, Keep(count=2)) for id in "abcde"))
        assert await ids_in(engine, state) == ["d", "e"]

    async def test_an_age_deletes_what_is_older(self, engine: Engine, state: State) -> None:
        """They are deleted when the next job finishes, not earlier."""
        await start(engine, *"abc")
        for id, now_ms in [("a", NOW), ("b", NOW + 4000), ("c", NOW + 6000)]:
            await settled(engine, ending(state, id, Keep(age=5)), now_ms=now_ms)
        assert await ids_in(engine, state) == ["b", "c"]

    async def test_both_limits_hold(self, engine: Engine, state: State) -> None:
        keep = Keep(count=2, age=5)
        await start(engine, *"abcd")
        for id, now_ms in [("a", NOW), ("b", NOW + 1000), ("c", NOW + 2000)]:
            await settled(engine, ending(state, id, keep), now_ms=now_ms)
        assert await ids_in(engine, state) == ["b", "c"]
        await settled(engine, ending(state, "d", keep), now_ms=NOW + 6500)
        assert await ids_in(engine, state) == ["c", "d"]

    async def test_a_rule_is_for_all_of_its_kind(self, engine: Engine, state: State) -> None:
        """As in BullMQ, the rule of the job that finishes applies to all earlier jobs."""
        await start(engine, *"abc")
        await settled(engine, ending(state, "a", KEEP_ALL), now_ms=NOW)
        await settled(engine, ending(state, "b", KEEP_ALL), now_ms=NOW + 1)
        await settled(engine, ending(state, "c", Keep(count=1)), now_ms=NOW + 2)
        assert await ids_in(engine, state) == ["c"]

    async def test_a_rule_does_not_bind_the_next_job(self, engine: Engine, state: State) -> None:
        await start(engine, *"abc")
        await settled(engine, ending(state, "a", Keep(count=1)), now_ms=NOW)
        await settled(engine, ending(state, "b", KEEP_ALL), now_ms=NOW + 1)
        assert await ids_in(engine, state) == ["a", "b"]

    async def test_mixed_rules_of_one_call_all_apply(self, engine: Engine, state: State) -> None:
        await start(engine, *"abcd")
        await settled(engine, ending(state, "a", KEEP_ALL))
        outcomes = [
            ending(state, "b", KEEP_ALL),
            ending(state, "c", KEEP_NONE),
            ending(state, "d", Keep(count=2)),
        ]
        await settled(engine, *outcomes, now_ms=NOW + 1)
        assert await ids_in(engine, state) == ["b", "d"]

    async def test_completed_and_failed_are_kept_apart(self, engine: Engine) -> None:
        await start(engine, "a", "b", "c")
        await settled(engine, Failed("a", "t1", "no", keep=KEEP_ALL))
        await settled(engine, Completed("b", "t1", "1", KEEP_ALL), now_ms=NOW + 1)
        await settled(engine, Completed("c", "t1", "1", Keep(count=1)), now_ms=NOW + 2)
        assert await counts(engine) == {State.COMPLETED: 1, State.FAILED: 1}

    async def test_queues_are_kept_apart(self, engine: Engine) -> None:
        await start(engine, "a")
        await settled(engine, Completed("a", "t1", "1", Keep(count=1)))
        await engine.add([new_job("b", queue="other")], now_ms=NOW)
        await engine.claim("other", claim(1, "t2"), now_ms=NOW)
        done = Completed("b", "t2", "1", Keep(count=1, age=1))
        await engine.settle("other", [done], None, now_ms=NOW + 9000)
        assert await counts(engine) == {State.COMPLETED: 1}

    async def test_the_count_is_right_after_removals(self, engine: Engine, state: State) -> None:
        """Jobs are deleted in other ways, too, and the count stays right."""
        await start(engine, *"abcdefg")
        for n, id in enumerate("abcd"):
            await settled(engine, ending(state, id, KEEP_ALL), now_ms=NOW + n)
        await engine.remove(QUEUE, ["a"], now_ms=NOW + 4)
        await engine.purge(QUEUE, [state], before_ms=None, limit=1, now_ms=NOW + 4)
        await engine.requeue(QUEUE, ["c"], {state}, now_ms=NOW + 4)
        assert await ids_in(engine, state) == ["d"]
        for n, id in enumerate("efg"):
            await settled(engine, ending(state, id, Keep(count=3)), now_ms=NOW + 5 + n)
        assert await ids_in(engine, state) == ["e", "f", "g"]

    async def test_logs_go_with_their_jobs(self, engine: Engine, state: State) -> None:
        await start(engine, "a", "b")
        await engine.update(QUEUE, [LogLine(id, "line", 10) for id in "ab"], now_ms=NOW)
        await settled(engine, ending(state, "a", Keep(count=1)), now_ms=NOW)
        await settled(engine, ending(state, "b", Keep(count=1)), now_ms=NOW + 1)
        assert await engine.logs(QUEUE, "a") == []
        assert await engine.logs(QUEUE, "b") == ["line"]

    async def test_the_id_of_a_deleted_job_is_free(self, engine: Engine, state: State) -> None:
        await start(engine, "a")
        await settled(engine, ending(state, "a", KEEP_NONE))
        (answer,) = await engine.add([new_job("a")], now_ms=NOW)
        assert not answer.existing


class TestCancelled:
    async def test_jobs_follow_their_own_rule(self, engine: Engine) -> None:
        """No worker is involved that has a rule."""

        def kept(id: str, wire: str) -> NewJob:
            return new_job(id, opts=f'{{"removeOnFail":{wire}}}')

        rules: dict[str, Any] = {"a": "false", "b": "true", "c": "{}", "d": '{"count":2}'}
        await engine.add([kept(id, wire) for id, wire in rules.items()], now_ms=NOW)
        for n, id in enumerate(rules):
            await engine.cancel(QUEUE, [id], now_ms=NOW + n)
        assert await ids_in(engine, State.FAILED) == ["c", "d"]
