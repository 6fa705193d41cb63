"""The rate limit store in a SQLite file, shared by the processes of one machine.

The operations of one tick of the event loop share a transaction with other waiting work
(`hasten._sqlite`). One statement reads the states of all their keys, the functions of
`_algorithms.py` decide, and one statement writes the states that changed. A row holds the state of
a key as JSON, and is deleted some time after it has expired. Times are those of the machine's
clock, which all its processes share.

A transaction does not wait until its counts are on the disk: a power cut may lose the last ones.
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

from hasten._clock import Clock, make_now_ns
from hasten._durations import Duration
from hasten._sqlite import Database, load_scripts, run_migrations
from hasten._store_url import DEFAULT_TIMEOUT
from hasten.ratelimit import _algorithms as algorithms
from hasten.ratelimit._algorithms import CounterState
from hasten.ratelimit._counter_store import Check, Outcome, is_group_denied
from hasten.ratelimit._rules import Rule
from hasten.ratelimit._stores.lazy_connection import LazyConnection
from hasten.ratelimit._stores.operations import Block, Hit, Operation, Peek, Reset, Settle
from hasten.ratelimit._stores.remote import RemoteStore, Result

SWEPT: Final = 16
"""How many expired rows are deleted after each write."""

SQL: Final = load_scripts(__package__, "sql")

MIGRATIONS: Final = list(load_scripts(__package__, "migrations").values())


class SqliteStore(RemoteStore):
    """A rate limit store in a SQLite file.

    The file may also contain job queues, but then limits and jobs wait for each other's
    transactions. timeout is how many seconds a transaction waits for the lock of another process.
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
        self._now_ns = time.time_ns if clock is None else make_now_ns(clock)
        self._database: Final = LazyConnection(
            lambda: Database(
                path,
                name=self.name,
                prepare=partial(_run_limit_migrations, self.name),
                synchronous="NORMAL",
                busy_seconds=timeout,
            ),
            on_open,
        )

    async def _apply_batch(self, operations: Sequence[Operation]) -> list[Result]:
        work = partial(_apply_operations, operations=operations, now_ns=self._now_ns)
        return await self._database.get().run(work, durable=False, weight=len(operations))

    async def _clear(self) -> None:
        """Delete all counts of limits in the file."""
        await self._database.get().run(_delete_all_rows, durable=False)

    async def _close(self) -> None:
        database = self._database.detach()
        if database is not None:
            await asyncio.to_thread(database.close)  # waits for running transactions

    def close_without_event_loop(self) -> None:
        """Close the file."""
        database = self._database.detach()
        if database is not None:
            database.close()


def _run_limit_migrations(name: str, connection: Connection) -> None:
    run_migrations(name, connection, MIGRATIONS, table="hasten_limits_meta")


def _delete_all_rows(connection: Connection) -> None:
    connection.execute(SQL["clear"])


def _apply_operations(
    connection: Connection, operations: Sequence[Operation], now_ns: Callable[[], int]
) -> list[Result]:
    # The time is read within the transaction, so that no transaction has an earlier time than
    # the one before.
    batch = _StateBatch(now_ns() // 1000)
    batch.read(connection, operations)
    results: list[Result] = [batch.apply(operation) for operation in operations]
    batch.write(connection)
    return results


class _StateBatch:
    """The states of all keys of a batch of operations, by the names of their rows.

    The batch reads the states, applies the operations, and writes the states that changed.
    """

    def __init__(self, now_us: int) -> None:
        self._now_us = now_us
        self._states: dict[str, CounterState] = {}
        self._changed: dict[str, Rule | None] = {}

    def read(self, connection: Connection, operations: Sequence[Operation]) -> None:
        names = {name for operation in operations for name in _find_row_names(operation)}
        parameters = {"names": json.dumps(list(names))}
        (found,) = connection.execute(SQL["read"], parameters).fetchone()
        self._states = {name: tuple(state) for name, state in json.loads(found).items()}

    def write(self, connection: Connection) -> None:
        kept, deleted = [], []
        for name, rule in self._changed.items():
            state = self._states[name]
            if state:
                expires_us = (
                    state[0] if rule is None else algorithms.find_state_expiry_time_us(rule, state)
                )
                kept.append((name, expires_us, json.dumps(state)))
            else:
                deleted.append(name)
        if kept:
            connection.execute(SQL["write"], {"rows": json.dumps(kept)})
            connection.execute(SQL["sweep"], {"now_us": self._now_us, "limit": SWEPT})
        if deleted:
            connection.execute(SQL["delete"], {"names": json.dumps(deleted)})

    def apply(self, operation: Operation) -> list[list[Outcome]]:
        match operation:
            case Hit(groups):
                return self._hit(groups)
            case Peek(checks):
                return [[self._peek(check) for check in checks]]
            case Settle((reservation, keep)):
                name = _make_row_name(reservation.bucket, reservation.key)
                state = algorithms.settle_reservation(
                    reservation, keep, self._states.get(name, ()), self._now_us
                )
                self._set_state(name, state, reservation.rule)
            case Reset(bucket, key):
                self._set_state(_make_row_name(bucket, key), (), None)
            case Block(bucket, key, for_us):
                self._block(_make_row_name(bucket, key), for_us)
        return []

    def _hit(self, groups: Iterable[Sequence[Check]]) -> list[list[Outcome]]:
        answer = []
        for group in groups:
            names = [_make_row_name(check.bucket, check.key) for check in group]
            states = [self._states.get(name, ()) for name in names]
            states, outcomes = algorithms.hit_group(group, states, self._now_us)
            for check, name, state in zip(group, names, states, strict=True):
                self._set_state(name, state, check.rule)
            answer.append(outcomes)
            if is_group_denied(group, outcomes):
                break
        return answer

    def _peek(self, check: Check) -> Outcome:
        state = self._states.get(_make_row_name(check.bucket, check.key), ())
        return algorithms.peek(check, state, self._now_us)

    def _block(self, name: str, for_us: int) -> None:
        state = self._states.get(name, ())
        if state or for_us:
            until_us = self._now_us + for_us if for_us else 0
            # The rule is unknown here, so the expiry of the counts is, too. `write.sql` keeps the
            # later of the stored expiry and the end of the block.
            self._set_state(name, algorithms.replace_block(state, until_us), None)

    def _set_state(self, name: str, state: CounterState, rule: Rule | None) -> None:
        if self._states.get(name, ()) != state:
            self._states[name] = state
            self._changed[name] = rule or self._changed.get(name)


def _find_row_names(operation: Operation) -> Iterable[str]:
    match operation:
        case Hit(groups):
            return [_make_row_name(check.bucket, check.key) for group in groups for check in group]
        case Peek(checks):
            return [_make_row_name(check.bucket, check.key) for check in checks]
        case Settle((reservation, _)):
            return [_make_row_name(reservation.bucket, reservation.key)]
        case Reset(bucket, key) | Block(bucket, key, _):
            return [_make_row_name(bucket, key)]


def _make_row_name(bucket: str, key: bytes) -> str:
    return f"{_encode_bucket_as_json(bucket)}:{key.hex()}"


@lru_cache(maxsize=10_000)
def _encode_bucket_as_json(bucket: str) -> str:
    return json.dumps(bucket)  # JSON, because SQLite cannot store every string
