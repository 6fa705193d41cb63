"""A store in the memory of this process.

Each bucket is a table with room for a fixed number of keys. A client with many addresses must not
be able to evict the keys of others, so the table chooses what to evict: first an expired key, then
the one with the most left among a few. A key that is blocked or has little left is not evicted. If
all keys are like that, new keys share entries, and a secret decides which key uses which entry. To
get a new client refused, an attacker must use up the limit in that client's entry: with n entries
used up, a new client is refused with a probability of n / entries.

States are stored as compactly as possible (`_pack`): a state takes no more memory than its key.
"""

from __future__ import annotations

import secrets
import threading
from array import array
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Final, TypeAlias

from hasten._checks import check_whole_number
from hasten._clock import Clock, check_clock, make_now_ns
from hasten._logs import get_logger
from hasten.ratelimit import _algorithms as algorithms
from hasten.ratelimit._algorithms import State
from hasten.ratelimit._counter_store import Check, CheckGroup, Outcome, Settlement, is_denied
from hasten.ratelimit._rules import Rule

logger = get_logger("hasten.ratelimit")

MAX_KEYS: Final = 100_000

KEYS_PER_SHARED_ENTRY: Final = 8
"""A full table has one shared entry for each of this many keys."""

KEY_BYTES: Final = 16
"""The size of a key. The keys of shared entries are shorter."""

EXAMINED: Final = 2
"""How many old keys each new key examines, to delete the expired ones."""

EXAMINED_IF_FULL: Final = 64
CANDIDATES: Final = 8
"""A full table examines this many keys and evicts one of this many candidates."""

# The low bits of a packed window are what is used, the bits above them are its end.
BITS: Final = 32
MASK: Final = (1 << BITS) - 1

Packed: TypeAlias = "int | array[int]"

_SECRET: Final = secrets.token_bytes(16)


class MemoryStore:
    """A store in the memory of this process, for use from any thread.

    max_keys is how many keys each bucket may have. A full bucket has an eighth as many entries
    more, which new keys share. clock is for tests: a `hasten.testing.ManualClock`.
    """

    def __init__(self, *, max_keys: int = MAX_KEYS, clock: Clock | None = None) -> None:
        self._max_keys = check_whole_number("max_keys", max_keys, 1)
        self.clock: Final = None if clock is None else check_clock(clock)
        self._clock_ns = make_now_ns(clock)
        self._lock = threading.Lock()
        self._tables: dict[str, _Table] = {}

    def __repr__(self) -> str:
        return f"<MemoryStore {len(self)} keys>"

    def __len__(self) -> int:
        """Return the number of keys in all buckets, including expired ones."""
        return sum(len(table.entries) for table in self._tables.values())

    def hit_one(self, check: Check) -> Outcome:
        """Implement `ImmediateStore.hit_one`."""
        with self._lock:
            bucket, key, rule, cost, counted_later, block_us, forced, _, _ = check
            now_us = self._clock_ns() // 1000
            table = self._tables.get(bucket)
            if table is None or table.rule is None:
                table = self._table(bucket, rule)
            entries = table.entries
            packed = entries.get(key)
            if packed is None:
                key = table.place(key, now_us)
                if len(key) < KEY_BYTES:
                    check = _for_shared_entry(check)
                    block_us = 0
                packed = entries.get(key)
            # Most hits take one of two shortcuts. Tests compare them with the general way.
            if cost and not (counted_later or block_us or forced):
                if rule.kind == "fixed" and cost <= rule.limit:
                    if packed is None or packed.__class__ is int:
                        if packed is None or (left_us := (packed >> BITS) - now_us) <= 0:
                            left_us = rule.window_us
                            packed = (now_us + left_us) << BITS
                        outcome = algorithms.decide_fixed(rule, packed & MASK, left_us, cost)
                        if outcome.ok:
                            entries[key] = packed + cost
                        return outcome
                elif rule.kind == "gcra" and packed.__class__ is int and cost <= rule.burst:
                    owed_us = packed - now_us if packed > now_us else 0
                    outcome = algorithms.decide_gcra(rule, owed_us, cost)
                    if outcome.ok:
                        entries[key] = now_us + owed_us + cost * rule.interval_us
                    return outcome
            state, outcome = algorithms.hit_one(check, table.read(key), now_us)
            table.write(key, state)
            return outcome

    def hit_now(self, groups: Sequence[CheckGroup]) -> list[list[Outcome]]:
        """Implement `ImmediateStore.hit_now`."""
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
        """Implement `ImmediateStore.settle_now`."""
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
        """Implement `ImmediateStore.peek_now`."""
        with self._lock:
            now_us = self._now_us()
            outcomes = []
            for check in checks:
                table = self._table(check.bucket, check.rule)
                state = table.read(table.find(check.key))
                outcomes.append(algorithms.peek(check, state, now_us))
            return outcomes

    def reset_now(self, bucket: str, key: bytes) -> None:
        """Implement `ImmediateStore.reset_now`."""
        with self._lock:
            if bucket in self._tables:
                table = self._tables[bucket]
                table.entries.pop(table.find(key), None)

    def block_now(self, bucket: str, key: bytes, for_us: int) -> None:
        """Implement `ImmediateStore.block_now`."""
        with self._lock:
            table, now_us = self._table(bucket, None), self._now_us()
            if key not in table.entries and not for_us:
                return
            if table.place(key, now_us) != key:  # a shared entry would block other keys, too
                table.make_room(now_us, evict_hot=True)
            table.write(key, algorithms.block(table.read(key), for_us and now_us + for_us))

    def clear(self) -> None:
        """Delete all keys."""
        with self._lock:
            self._tables.clear()

    # The same methods for callers that await ------------------------------------------------------

    async def hit(self, groups: Sequence[CheckGroup]) -> list[list[Outcome]]:
        """Implement `CounterStore.hit`."""
        return self.hit_now(groups)

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """Implement `CounterStore.settle`."""
        self.settle_now(settlements)

    async def peek(self, checks: Sequence[Check]) -> list[Outcome]:
        """Implement `CounterStore.peek`."""
        return self.peek_now(checks)

    async def reset(self, bucket: str, key: bytes) -> None:
        """Implement `CounterStore.reset`."""
        self.reset_now(bucket, key)

    async def block(self, bucket: str, key: bytes, for_us: int) -> None:
        """Implement `CounterStore.block`."""
        self.block_now(bucket, key, for_us)

    async def aclose(self) -> None:
        """Do nothing: there is no connection to close. The counts stay."""

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
    """The keys of one bucket. rule is None before the first check: then there are only blocks."""

    __slots__ = (
        "_max_keys", "_name", "_overflowed", "_queue", "_shared_entries", "entries", "rule"
    )  # fmt: skip

    def __init__(self, name: str, max_keys: int) -> None:
        self.entries: dict[bytes, Packed] = {}
        self.rule: Rule | None = None
        self._name = name
        self._max_keys = max_keys
        self._shared_entries = max(1, max_keys // KEYS_PER_SHARED_ENTRY)
        self._queue: list[bytes] = []  # the keys to examine, the next one last
        self._overflowed = False

    def read(self, key: bytes) -> State:
        packed = self.entries.get(key)
        return () if packed is None else _unpack(self.rule, packed)

    def write(self, key: bytes, state: State) -> None:
        if state:
            self.entries[key] = _pack(self.rule, state)
        else:
            self.entries.pop(key, None)

    def find(self, key: bytes) -> bytes:
        """Return where a key is or would be: the key itself, or its shared entry if that exists."""
        if key in self.entries or not self._overflowed:
            return key
        shared = self._shared(key)
        return shared if shared in self.entries else key

    def place(self, key: bytes, now_us: int) -> bytes:
        """Return the key if it has an entry or room for one, else the key of a shared entry."""
        if key in self.entries:
            return key
        if len(self.entries) < self._max_keys:
            for candidate in self._walk(EXAMINED):
                if self._heat(candidate, now_us) is None:
                    del self.entries[candidate]
            return key
        if self.make_room(now_us):
            return key
        if not self._overflowed:
            self._overflowed = True
            logger.warning(
                "bucket %s is full: all %d keys have nearly used up their limit; new clients share "
                "%d counts",
                self._name, self._max_keys, self._shared_entries,
            )  # fmt: skip
        return self._shared(key)

    def make_room(self, now_us: int, *, evict_hot: bool = False) -> bool:
        """Delete an expired entry, else one with much left. Returns False if all are hot."""
        coldest: tuple[float, bytes] | None = None
        cold = 0
        for candidate in self._walk(EXAMINED_IF_FULL):
            heat = self._heat(candidate, now_us)
            if heat is None:
                del self.entries[candidate]
                return True
            if (heat < HOT or evict_hot) and len(candidate) == KEY_BYTES:
                cold += 1
                if coldest is None or heat < coldest[0]:
                    coldest = heat, candidate
                if cold == CANDIDATES:
                    break
        if coldest is None:
            return False
        del self.entries[coldest[1]]
        return True

    def _shared(self, key: bytes) -> bytes:
        # With a secret: otherwise a client could choose keys that share another client's entry.
        number = int.from_bytes(blake2b(key, digest_size=8, key=_SECRET).digest(), "big")
        return (number % self._shared_entries).to_bytes(8, "big")

    def _walk(self, count: int) -> Iterator[bytes]:
        """Yield the next keys in a walk around the table."""
        for _ in range(min(count, len(self.entries))):
            if not self._queue:
                self._queue = list(self.entries)
                self._queue.reverse()  # the oldest entries first
            key = self._queue.pop()
            if key in self.entries:
                yield key

    def _heat(self, key: bytes, now_us: int) -> float | None:
        """Return the share that is used: 1 for a blocked key, None for an expired one."""
        packed = self.entries[key]
        rule = self.rule
        if packed.__class__ is int and rule is not None and rule.kind == "fixed":  # most entries
            return None if packed >> BITS <= now_us else (packed & MASK) / (rule.limit or 1)
        state = _unpack(rule, packed)
        if rule is None:
            return 1.0 if state[0] > now_us else None
        state = algorithms.fresh(rule, state, now_us)
        if not state:
            return None
        if state[0] or not rule.capacity:
            return 1.0
        remaining, _ = algorithms.remaining_and_reset(rule, state, now_us)
        return 1.0 - remaining / rule.capacity


HOT: Final = 0.8
"""A key that has used more than this share of its limit is hot: it is not evicted."""


def _for_shared_entry(check: Check) -> Check:
    """Return the check without a block, which would affect other clients for too long."""
    return check._replace(block_us=0)


def _pack(rule: Rule | None, state: State) -> Packed:
    """Return one integer for a state that is only a window or an arrival, else an array."""
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
