"""Counts in a SQLite file, shared by the processes of one machine.

All that one tick of the event loop asks is one reading and one writing of the keys it is about, in
one transaction with what else waits (`hasten._sqlite`). In between the pure algorithms decide. A
row holds what they say is known of a key, as JSON, and goes some time after that is over. Times are
those of the machine's clock, which all its processes share.

Nothing is flushed to the disk for the sake of a count: a power cut may take the last ones.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from sqlite3 import Connection
from typing import Final

from hasten._clock import Clock, now_ns_of
from hasten._durations import Duration
from hasten._sqlite import Database
from hasten._store_url import DEFAULT_TIMEOUT
from hasten.ratelimit import _algorithms as algorithms
from hasten.ratelimit._algorithms import State
from hasten.ratelimit._counter_store import Check, Outcome, is_denied
from hasten.ratelimit._rules import Rule
from hasten.ratelimit._stores.asking import Answer, AskingStore
from hasten.ratelimit._stores.reopened import Reopened
from hasten.ratelimit._stores.requests import Block, Hit, Peek, Request, Reset, Settle

# So many rows whose time is over go with each writing.
SWEPT: Final = 16

CREATE: Final = """
CREATE TABLE IF NOT EXISTS hasten_limits (
  name TEXT PRIMARY KEY,
  expires_us INTEGER NOT NULL,
  state TEXT NOT NULL
) STRICT, WITHOUT ROWID
"""
CREATE_INDEX: Final = "CREATE INDEX IF NOT EXISTS hasten_limits_over ON hasten_limits (expires_us)"

READ: Final = """
SELECT json_group_object(name, json(state)) FROM hasten_limits
WHERE name IN (SELECT value FROM json_each(?))
"""
WRITE: Final = """
INSERT INTO hasten_limits (name, expires_us, state)
SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]')
FROM json_each(?) WHERE true
ON CONFLICT (name) DO UPDATE
SET expires_us = max(expires_us, excluded.expires_us), state = excluded.state
"""
DELETE: Final = "DELETE FROM hasten_limits WHERE name IN (SELECT value FROM json_each(?))"
SWEEP: Final = """
DELETE FROM hasten_limits WHERE name IN (
  SELECT name FROM hasten_limits WHERE expires_us <= ? ORDER BY expires_us LIMIT ?
)
"""


class SqliteStore(AskingStore):
    """Counts in a file.

    A file of jobs may be named; but then each waits for the other's transactions. timeout is how
    long a transaction waits, in seconds, for a lock that another process holds.
    """

    def __init__(
        self,
        path: Path,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        store_timeout: Duration | None = None,
        clock: Clock | None = None,
        on_open: Callable[[], object] | None = None,
    ) -> None:
        super().__init__(f"sqlite:///{path}", store_timeout=store_timeout, clock=clock)
        self._now_ns = time.time_ns if clock is None else now_ns_of(clock)
        self._database: Final = Reopened(
            lambda: Database(
                path,
                name=self.name,
                prepare=_prepare,
                synchronous="NORMAL",
                busy_seconds=timeout,
            ),
            on_open,
        )

    async def _exchange(self, requests: Sequence[Request]) -> list[Answer]:
        work = partial(_carry_out, requests=requests, now_ns=self._now_ns)
        return await self._database.get().run(work, durable=False, weight=len(requests))

    async def clear(self) -> None:
        """Forget all keys of the file."""
        await self._database.get().run(_clear, durable=False)

    async def _close(self) -> None:
        database = self._database.take()
        if database is not None:
            await asyncio.to_thread(database.close)  # which waits for what has begun

    def close_now(self) -> None:
        database = self._database.take()
        if database is not None:
            database.close()


def _prepare(connection: Connection) -> None:
    connection.execute(CREATE)
    connection.execute(CREATE_INDEX)


def _clear(connection: Connection) -> None:
    connection.execute("DELETE FROM hasten_limits")


def _carry_out(
    connection: Connection, requests: Sequence[Request], now_ns: Callable[[], int]
) -> list[Answer]:
    # The time is read here, where nobody else writes: it may not go back from one to the next.
    page = _Page(now_ns() // 1000)
    page.read(connection, requests)
    answers: list[Answer] = [page.carry_out(request) for request in requests]
    page.write(connection)
    return answers


class _Page:
    """The states of the keys that some requests are about, by name."""

    def __init__(self, now_us: int) -> None:
        self._now_us = now_us
        self._states: dict[str, State] = {}
        self._changed: dict[str, Rule | None] = {}

    def read(self, connection: Connection, requests: Sequence[Request]) -> None:
        names = {name for request in requests for name in _names(request)}
        (found,) = connection.execute(READ, (json.dumps(list(names)),)).fetchone()
        self._states = {name: tuple(state) for name, state in json.loads(found).items()}

    def write(self, connection: Connection) -> None:
        kept, gone = [], []
        for name, rule in self._changed.items():
            state = self._states[name]
            if state:
                expires_us = state[0] if rule is None else algorithms.expiry(rule, state)
                kept.append((name, expires_us, json.dumps(state)))
            else:
                gone.append(name)
        if kept:
            connection.execute(WRITE, (json.dumps(kept),))
            connection.execute(SWEEP, (self._now_us, SWEPT))
        if gone:
            connection.execute(DELETE, (json.dumps(gone),))

    def carry_out(self, request: Request) -> list[list[Outcome]]:
        match request:
            case Hit(groups):
                return self._hit(groups)
            case Peek(checks):
                return [[self._peek(check) for check in checks]]
            case Settle((token, keep)):
                name = _name(token.bucket, token.key)
                state = algorithms.settle(token, keep, self._states.get(name, ()), self._now_us)
                self._keep(name, state, token.rule)
            case Reset(bucket, key):
                self._keep(_name(bucket, key), (), None)
            case Block(bucket, key, for_us):
                self._block(_name(bucket, key), for_us)
        return []

    def _hit(self, groups: Iterable[Sequence[Check]]) -> list[list[Outcome]]:
        answer = []
        for group in groups:
            names = [_name(check.bucket, check.key) for check in group]
            states = [self._states.get(name, ()) for name in names]
            states, outcomes = algorithms.hit(group, states, self._now_us)
            for check, name, state in zip(group, names, states, strict=True):
                self._keep(name, state, check.rule)
            answer.append(outcomes)
            if is_denied(group, outcomes):
                break
        return answer

    def _peek(self, check: Check) -> Outcome:
        state = self._states.get(_name(check.bucket, check.key), ())
        return algorithms.peek(check, state, self._now_us)

    def _block(self, name: str, for_us: int) -> None:
        state = self._states.get(name, ())
        if state or for_us:
            until_us = self._now_us + for_us if for_us else 0
            # Without its rule nobody knows how long the rest is of use: `WRITE` keeps the later
            # one of the two times.
            self._keep(name, algorithms.block(state, until_us), None)

    def _keep(self, name: str, state: State, rule: Rule | None) -> None:
        if self._states.get(name, ()) != state:
            self._states[name] = state
            self._changed[name] = rule or self._changed.get(name)


def _names(request: Request) -> Iterable[str]:
    match request:
        case Hit(groups):
            return [_name(check.bucket, check.key) for group in groups for check in group]
        case Peek(checks):
            return [_name(check.bucket, check.key) for check in checks]
        case Settle((token, _)):
            return [_name(token.bucket, token.key)]
        case Reset(bucket, key) | Block(bucket, key, _):
            return [_name(bucket, key)]


def _name(bucket: str, key: bytes) -> str:
    return f"{_text(bucket)}:{key.hex()}"


@lru_cache(maxsize=10_000)
def _text(bucket: str) -> str:
    return json.dumps(bucket)  # any text at all as one that SQLite can hold
