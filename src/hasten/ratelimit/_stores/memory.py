"""Counts in the memory of this process.

Each bucket is a table with room for so many keys. Whoever sends from many addresses must not be
able to push out what is known of others, so what makes room is chosen: first what is over, then
the one with the most left among some. A key that is blocked, or has little left, keeps its place
as long as that is so. Where all are like this, new keys share entries: each key one of many, which
nobody outside can foretell. So to have a newcomer refused, somebody must use up the limit in that
newcomer's entry: with n entries used up, a newcomer is refused with a chance of n / entries.

What is known of a key is kept as small as it can be (`_pack`): a million keys take as little as
their names do.
"""

from __future__ import annotations

import secrets
import threading
from array import array
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Final, TypeAlias

from hasten._clock import Clock, check_clock, now_ns_of
from hasten._logs import get_logger
from hasten.ratelimit import _algorithms as algorithms
from hasten.ratelimit._algorithms import State
from hasten.ratelimit._counter_store import Check, CheckGroup, Outcome, Settlement, is_denied
from hasten.ratelimit._rates import to_limit
from hasten.ratelimit._rules import Rule

logger = get_logger("hasten.ratelimit")

MAX_KEYS: Final = 100_000

KEYS_PER_SHARED_ENTRY: Final = 8
"""Where there is no room, there is one more entry, to be shared, for so many keys."""

KEY_BYTES: Final = 16
"""The size of a key. Those of shared entries are shorter."""

# With each new key so many old ones are looked at, whether they are over.
LOOKED_AT: Final = 2
# Where there is no room: how many to look at, and among how many to choose.
LOOKED_AT_IF_FULL: Final = 64
CHOSEN_FROM: Final = 8

# The low bits of a packed window are what is used, those above them its end.
BITS: Final = 32
MASK: Final = (1 << BITS) - 1

Packed: TypeAlias = "int | array[int]"

_SECRET: Final = secrets.token_bytes(16)

_new: Final = tuple.__new__  # a named tuple's own costs twice the time


class MemoryStore:
    """A store that answers at once, to any thread.

    max_keys is how many keys each bucket may have, besides an eighth as many that new keys share
    where there is no room. clock is for tests: `ManualClock`.
    """

    def __init__(self, *, max_keys: int = MAX_KEYS, clock: Clock | None = None) -> None:
        self._max_keys = to_limit("max_keys", max_keys, at_least=1)
        self.clock: Final = None if clock is None else check_clock(clock)
        self._clock_ns = now_ns_of(clock)
        self._lock = threading.Lock()
        self._tables: dict[str, _Table] = {}

    def __repr__(self) -> str:
        return f"<MemoryStore {len(self)} keys>"

    def __len__(self) -> int:
        """How many keys there are in all buckets, those whose time is over among them."""
        return sum(len(table.entries) for table in self._tables.values())

    def hit_one(self, check: Check) -> Outcome:
        with self._lock:
            bucket, key, rule, cost, counted_later, block_us, forced, _, _, _ = check
            now_us = self._clock_ns() // 1000
            table = self._tables.get(bucket)
            if table is None or table.rule is None:
                table = self._table(bucket, rule)
            packed = table.entries.get(key)
            if packed is None:
                key = table.place(key, now_us)
                if len(key) < KEY_BYTES:
                    check = _for_shared_entry(check)
                    block_us = 0
                packed = table.entries.get(key)
            # What most requests are, without the general case's steps. The tests hold it to them.
            if cost and not (counted_later or block_us or forced):
                if rule.kind == "fixed":
                    if packed.__class__ is int and (left_us := (packed >> BITS) - now_us) > 0:
                        remaining = rule.limit - (packed & MASK) - cost
                        if remaining >= 0:
                            table.entries[key] = packed + cost
                            return _passed(rule, remaining, left_us)
                        if cost <= rule.limit:
                            return _denied(rule, max(0, remaining + cost), left_us, left_us)
                    elif cost <= rule.limit and (packed is None or packed.__class__ is int):
                        table.entries[key] = (now_us + rule.window_us) << BITS | cost
                        return _passed(rule, rule.limit - cost, rule.window_us)
                elif rule.kind == "gcra" and packed.__class__ is int and cost <= rule.burst:
                    return table.hit_arrival(key, packed, rule, cost, now_us)
            state, outcome = algorithms.hit_one(check, table.read(key), now_us)
            table.write(key, state)
            return outcome

    def hit_now(self, groups: Sequence[CheckGroup]) -> list[list[Outcome]]:
        answers = []
        for group in groups:
            outcomes = [self.hit_one(group[0])] if len(group) == 1 else self._hit_group(group)
            answers.append(outcomes)
            if is_denied(group, outcomes):
                break
        return answers

    def _hit_group(self, group: CheckGroup) -> list[Outcome]:
        with self._lock:
            now_us = self._now_us()
            tables = [self._table(check.bucket, check.rule) for check in group]
            keys = [
                table.place(check.key, now_us) for table, check in zip(tables, group, strict=True)
            ]
            group = [
                check if len(key) == KEY_BYTES else _for_shared_entry(check)
                for check, key in zip(group, keys, strict=True)
            ]
            stored = [table.read(key) for table, key in zip(tables, keys, strict=True)]
            states, outcomes = algorithms.hit(group, stored, now_us)
            for table, key, state in zip(tables, keys, states, strict=True):
                table.write(key, state)
            return outcomes

    def settle_now(self, settlements: Sequence[Settlement]) -> None:
        with self._lock:
            now_us = self._now_us()
            for token, keep in settlements:
                table = self._tables.get(token.bucket)
                if table is None:
                    continue
                key = table.find(token.key)
                if key in table.entries:
                    table.write(key, algorithms.settle(token, keep, table.read(key), now_us))

    def peek_now(self, checks: Sequence[Check]) -> list[Outcome]:
        with self._lock:
            now_us = self._now_us()
            outcomes = []
            for check in checks:
                table = self._table(check.bucket, check.rule)
                state = table.read(table.find(check.key))
                outcomes.append(algorithms.peek(check, state, now_us))
            return outcomes

    def reset_now(self, bucket: str, key: bytes) -> None:
        with self._lock:
            if bucket in self._tables:
                table = self._tables[bucket]
                table.entries.pop(table.find(key), None)

    def block_now(self, bucket: str, key: bytes, for_us: int) -> None:
        with self._lock:
            table, now_us = self._table(bucket, None), self._now_us()
            if key not in table.entries and not for_us:
                return
            if table.place(key, now_us) != key:  # a shared entry would block others, too
                table.make_room(now_us, hot_too=True)
            table.write(key, algorithms.block(table.read(key), for_us and now_us + for_us))

    def clear(self) -> None:
        """Forget all keys."""
        with self._lock:
            self._tables.clear()

    # The same for those who wait ------------------------------------------------------------------

    async def hit(self, groups: Sequence[CheckGroup]) -> list[list[Outcome]]:
        return self.hit_now(groups)

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        self.settle_now(settlements)

    async def peek(self, checks: Sequence[Check]) -> list[Outcome]:
        return self.peek_now(checks)

    async def reset(self, bucket: str, key: bytes) -> None:
        self.reset_now(bucket, key)

    async def block(self, bucket: str, key: bytes, for_us: int) -> None:
        self.block_now(bucket, key, for_us)

    async def aclose(self) -> None:
        """There is nothing to let go of; the counts stay."""

    # --------------------------------------------------------------------------------------------

    def _now_us(self) -> int:
        return self._clock_ns() // 1000

    def _table(self, bucket: str, rule: Rule | None) -> _Table:
        table = self._tables.get(bucket)
        if table is None:
            table = self._tables[bucket] = _Table(bucket, self._max_keys)
        if table.rule is None:
            table.rule = rule
        return table


class _Table:
    """The keys of one bucket. rule is None until the first check; only blocks are known then."""

    __slots__ = (
        "_hand", "_max_keys", "_name", "_overflowed", "_shared_entries", "entries", "rule"
    )  # fmt: skip

    def __init__(self, name: str, max_keys: int) -> None:
        self.entries: dict[bytes, Packed] = {}
        self.rule: Rule | None = None
        self._name = name
        self._max_keys = max_keys
        self._shared_entries = max(1, max_keys // KEYS_PER_SHARED_ENTRY)
        self._hand: list[bytes] = []  # the keys that are to be looked at, the next one last
        self._overflowed = False

    def read(self, key: bytes) -> State:
        packed = self.entries.get(key)
        return () if packed is None else _unpack(self.rule, packed)

    def write(self, key: bytes, state: State) -> None:
        if state:
            self.entries[key] = _pack(self.rule, state)
        else:
            self.entries.pop(key, None)

    def hit_arrival(
        self, key: bytes, arrival_us: int, rule: Rule, cost: int, now_us: int
    ) -> Outcome:
        """Decide by "gcra" where nothing is in flight; a cost that fits in."""
        owed_us = arrival_us - now_us if arrival_us > now_us else 0
        interval_us, tolerance_us = rule.interval_us, rule.tolerance_us
        after_us = owed_us + cost * interval_us
        passes = after_us <= tolerance_us
        if passes:
            self.entries[key] = now_us + after_us
            owed_us = after_us
        remaining = max(0, (tolerance_us - owed_us) // interval_us)
        reset_us = owed_us - tolerance_us + (remaining + 1) * interval_us
        if passes:
            return _passed(rule, remaining, reset_us)
        return _denied(rule, remaining, reset_us, after_us - tolerance_us)

    def find(self, key: bytes) -> bytes:
        """Where a key is, or would be: the key itself, or its shared entry if that is there."""
        if key in self.entries or not self._overflowed:
            return key
        shared = self._shared(key)
        return shared if shared in self.entries else key

    def place(self, key: bytes, now_us: int) -> bytes:
        """The key itself if it has an entry or there is room for one; else a shared entry's."""
        if key in self.entries:
            return key
        if len(self.entries) < self._max_keys:
            for candidate in self._walk(LOOKED_AT):
                if self._heat(candidate, now_us) is None:
                    del self.entries[candidate]
            return key
        if self.make_room(now_us):
            return key
        if not self._overflowed:
            self._overflowed = True
            logger.warning(
                "%s: each of its %d keys has nearly used up its limit: new clients share %d counts",
                self._name, self._max_keys, self._shared_entries,
            )  # fmt: skip
        return self._shared(key)

    def make_room(self, now_us: int, *, hot_too: bool = False) -> bool:
        """Delete an entry that is over, or else the coldest of some. False if all are hot."""
        coldest: tuple[float, bytes] | None = None
        cold = 0
        for candidate in self._walk(LOOKED_AT_IF_FULL):
            heat = self._heat(candidate, now_us)
            if heat is None:
                del self.entries[candidate]
                return True
            if (heat < HOT or hot_too) and len(candidate) == KEY_BYTES:
                cold += 1
                if coldest is None or heat < coldest[0]:
                    coldest = heat, candidate
                if cold == CHOSEN_FROM:
                    break
        if coldest is None:
            return False
        del self.entries[coldest[1]]
        return True

    def _shared(self, key: bytes) -> bytes:
        # Keyed with a secret: else a client could choose names that share the entry of another.
        number = int.from_bytes(blake2b(key, digest_size=8, key=_SECRET).digest(), "big")
        return (number % self._shared_entries).to_bytes(8, "big")

    def _walk(self, count: int) -> Iterator[bytes]:
        """The next keys in a walk around the table, which ends and begins again."""
        for _ in range(min(count, len(self.entries))):
            if not self._hand:
                self._hand = list(self.entries)
                self._hand.reverse()  # the oldest entries first
            key = self._hand.pop()
            if key in self.entries:
                yield key

    def _heat(self, key: bytes, now_us: int) -> float | None:
        """The share that is used, 1 for a blocked key, None if its time is over."""
        packed = self.entries[key]
        rule = self.rule
        if packed.__class__ is int and rule is not None and rule.kind == "fixed":  # most are
            return None if packed >> BITS <= now_us else (packed & MASK) / (rule.limit or 1)
        state = _unpack(rule, packed)
        if rule is None:
            return 1.0 if state[0] > now_us else None
        state = algorithms.fresh(rule, state, now_us)
        if not state:
            return None
        if state[0] or not rule.capacity:
            return 1.0
        remaining, _ = algorithms.left(rule, state, now_us)
        return 1.0 - remaining / rule.capacity


HOT: Final = 0.8
"""Above this share of its limit a key is not forgotten before its time."""


def _for_shared_entry(check: Check) -> Check:
    """The same without a block, which others would feel for longer than the limit says."""
    return check._replace(block_us=0)


def _passed(rule: Rule, remaining: int, reset_us: int) -> Outcome:
    limit = rule.burst or rule.limit
    return _new(Outcome, (True, limit, remaining, reset_us, 0, False, None, False))


def _denied(rule: Rule, remaining: int, reset_us: int, retry_us: int) -> Outcome:
    limit = rule.burst or rule.limit
    reset_us = min(reset_us, retry_us)
    return _new(Outcome, (False, limit, remaining, reset_us, retry_us, True, None, False))


def _pack(rule: Rule | None, state: State) -> Packed:
    """One integer where nothing but a window or an arrival is known, else an array."""
    if rule is not None and not state[0]:
        if rule.kind == "fixed" and len(state) == 4 and not state[3] and state[2] <= MASK:
            return state[1] << BITS | state[2]
        if rule.kind == "gcra" and len(state) == 2:
            return state[1]
    return array("q", state)


def _unpack(rule: Rule | None, packed: Packed) -> State:
    if not isinstance(packed, int):
        return tuple(packed)
    if rule is not None and rule.kind == "fixed":
        return 0, packed >> BITS, packed & MASK, 0
    return 0, packed
