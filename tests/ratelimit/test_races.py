"""Several processes hit one limit at once, and together they do not exceed it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from hasten.ratelimit._counter_store import Check, hash_client
from hasten.ratelimit._rules import Rule
from tests.ratelimit.stores import SECOND, open_for_test, url_of

SHARED = ["sqlite", "redis"]
"""A cluster runs the scripts that a single Redis runs."""

LIMIT = 100
RULE = Rule("fixed", LIMIT, 900 * SECOND)

PROGRAM = """
import asyncio, json, sys
from hasten.ratelimit._counter_store import Check, Settlement, hash_client
from tests.ratelimit.stores import counter_store
from tests.ratelimit.test_races import RULE

async def main(url, hits, later):
    store = counter_store(url)
    check = Check("race", hash_client("ada"), RULE, counted_later=later)
    print("ready", flush=True)
    sys.stdin.readline()
    answers = await asyncio.gather(*(store.hit([[check]]) for _ in range(hits)))
    passed = [outcome for [[outcome]] in answers if outcome.ok]
    if later:
        await store.settle([Settlement(outcome.reservation) for outcome in passed])
    await store.aclose()
    print(json.dumps(len(passed)), flush=True)

asyncio.run(main(*json.loads(sys.argv[1])))
"""


def race(url: str, *, processes: int, hits: int, later: bool) -> int:
    """Let processes hit one key at once. Returns how many hits passed."""
    argument = json.dumps([url, hits, later])
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, argument],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(processes)
    ]
    for run in runs:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
    for run in runs:
        assert run.stdin is not None
        run.stdin.write("go\n")
        run.stdin.flush()
    return sum(int(json.loads(run.communicate(timeout=60)[0])) for run in runs)


@pytest.mark.parametrize("kind", SHARED)
def test_processes_together_admit_exactly_the_limit(kind: str, tmp_path: Path) -> None:
    assert race(url_of(kind, tmp_path), processes=4, hits=150, later=False) == LIMIT


@pytest.mark.parametrize("kind", SHARED)
def test_refunds_of_several_processes_leave_nothing_counted(kind: str, tmp_path: Path) -> None:
    assert race(url_of(kind, tmp_path), processes=4, hits=150, later=True) >= LIMIT

    async def left() -> int:
        async with open_for_test(kind, tmp_path) as store:
            [outcome] = await store.peek([Check("race", hash_client("ada"), RULE)])
            return outcome.remaining

    assert asyncio.run(left()) == LIMIT
