"""The rate limit store in the memory of this process.

Each bucket has a table with room for a fixed number of keys. A client with many addresses must not
be able to evict the keys of other clients, so a full table evicts an expired key, or else the key
that has used the least of its limit among a few candidates. A key that is blocked or has used most
of its limit is called hot, and is not evicted. If only hot keys are found, new keys share
additional entries, and a keyed hash with a secret assigns each new key to one of them. To get a new
client rejected, an attacker must use up the limit of that client's shared entry: if n of the shared
entries are used up, a new client is rejected with a probability of n / number of shared entries.

States are stored compactly (`_pack_state`): a typical one is a single integer.
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
from hasten.ratelimit import _test_isolation as test_isolation
from hasten.ratelimit._algorithms import CounterState
from hasten.ratelimit._counter_store import Check, CheckGroup, Outcome, Settlement, is_group_denied
from hasten.ratelimit._rules import Rule

logger = get_logger("hasten.ratelimit")

MAX_KEYS: Final = 100_000

KEYS_PER_SHARED_ENTRY: Final = 8
"""A full table has one additional, shared entry for every this many keys."""

KEY_BYTES: Final = 16
"""The size of a client's key. Shared entries have shorter keys, by which they are recognized."""

EXAMINED: Final = 2
"""How many stored keys are examined when a key is added, to delete expired ones."""

EXAMINED_IF_FULL: Final = 64
CANDIDATES: Final = 8
"""The limits of a search for a key to evict from a full table.

It examines up to EXAMINED_IF_FULL keys, and ends earlier when it has found CANDIDATES keys.
"""

# A fixed window is packed into one integer: the low bits are the used cost, and the bits above them
# are the end of the window.
BITS: Final = 32
MASK: Final = (1 << BITS) - 1

Packed: TypeAlias = "int | array[int]"

_SECRET: Final = secrets.token_bytes(16)


class MemoryStore:
    """A counter store in the memory of this process. Any thread may use it.

    max_keys is how many keys each rate of a limit may have. When that many keys have used most of
    their limit, new keys share additional entries, an eighth of max_keys. clock is for tests: a
    `hasten.testing.ManualClock`.
    """

    def __init__(self, *, max_keys: int = MAX_KEYS, clock: Clock | None = None) -> None:
        self._max_keys = check_whole_number("max_keys", max_keys, 1)
        self.clock: Final = None if clock is None else check_clock(clock)
        self.use_default_clock(test_isolation.clock)
        self._lock = threading.Lock()
        self._tables: dict[str, _BucketTable] = {}
        test_isolation.memory_stores.add(self)

    def __repr__(self) -> str:
        return f"<MemoryStore {len(self)} keys>"

    def use_default_clock(self, clock: Clock | None) -> None:
        """Use this clock if the store was created without one. None is the system's clock."""
        self._clock_ns = make_now_ns(self.clock or clock)

    def __len__(self) -> int:
        """Return the number of keys in all buckets, including expired ones."""
        return sum(len(table.entries) for table in self._tables.values())

    def hit_one(self, check: Check) -> Outcome:
        """Decide a single check: see `ImmediateStore.hit_one`."""
        with self._lock:
            bucket, key, rule, cost, counted_later, block_us, forced, _, _ = check
            now_us = self._clock_ns() // 1000
            table = self._tables.get(bucket)
            if table is None or table.rule is None:
                table = self._get_table(bucket, rule)
            entries = table.entries
            packed = entries.get(key)
            if packed is None:
                key = table.reserve_own_or_shared_key(key, now_us)
                if len(key) < KEY_BYTES:
                    check = _without_block_on_denial(check)
                    block_us = 0
                packed = entries.get(key)
            # Most hits take one of these two shortcuts. Tests compare them with the general path.
            if cost and not (counted_later or block_us or forced):
                if rule.kind == "fixed" and cost <= rule.limit:
                    if packed is None or packed.__class__ is int:
                        if packed is None or (left_us := (packed >> BITS) - now_us) <= 0:
                            left_us = rule.window_us
                            packed = (now_us + left_us) << BITS
                        outcome = algorithms.decide_fixed_window(rule, packed & MASK, left_us, cost)
                        if outcome.ok:
                            entries[key] = packed + cost
                        return outcome
                elif rule.kind == "gcra" and packed.__class__ is int and cost <= rule.burst:
                    owed_us = packed - now_us if packed > now_us else 0
                    outcome = algorithms.decide_gcra(rule, owed_us, cost)
                    if outcome.ok:
                        entries[key] = now_us + owed_us + cost * rule.interval_us
                    return outcome
            state, outcome = algorithms.hit_one(check, table.read_state(key), now_us)
            table.write_state(key, state)
            return outcome

    def hit_now(self, groups: Sequence[CheckGroup]) -> list[list[Outcome]]:
        """Take the costs of groups, up to the first that is denied: see `CounterStore.hit`."""
        answers = []
        for group in groups:
            outcomes = [self.hit_one(group[0])] if len(group) == 1 else self._hit_group(group)
            answers.append(outcomes)
            if is_group_denied(group, outcomes):
                break
        return answers

    def _hit_group(self, group: CheckGroup) -> list[Outcome]:
        with self._lock:
            now_us = self._now_us()
            tables = [self._get_table(check.bucket, check.rule) for check in group]
            keys = [
                table.reserve_own_or_shared_key(check.key, now_us)
                for table, check in zip(tables, group, strict=True)
            ]
            group = [
                check if len(key) == KEY_BYTES else _without_block_on_denial(check)
                for check, key in zip(group, keys, strict=True)
            ]
            stored = [table.read_state(key) for table, key in zip(tables, keys, strict=True)]
            states, outcomes = algorithms.hit_group(group, stored, now_us)
            for table, key, state in zip(tables, keys, states, strict=True):
                table.write_state(key, state)
            return outcomes

    def settle_now(self, settlements: Sequence[Settlement]) -> None:
        """End reservations: see `CounterStore.settle`."""
        with self._lock:
            now_us = self._now_us()
            for reservation, keep in settlements:
                table = self._tables.get(reservation.bucket)
                if table is None:
                    continue
                key = table.find_own_or_shared_key(reservation.key)
                if key in table.entries:
                    table.write_state(
                        key,
                        algorithms.settle_reservation(
                            reservation, keep, table.read_state(key), now_us
                        ),
                    )

    def peek_now(self, checks: Sequence[Check]) -> list[Outcome]:
        """Return the outcome that each check would have now, without counting anything."""
        with self._lock:
            now_us = self._now_us()
            outcomes = []
            for check in checks:
                table = self._get_table(check.bucket, check.rule)
                state = table.read_state(table.find_own_or_shared_key(check.key))
                outcomes.append(algorithms.peek(check, state, now_us))
            return outcomes

    def reset_now(self, bucket: str, key: bytes) -> None:
        """Delete the counts and the block of a key in a bucket."""
        with self._lock:
            if bucket in self._tables:
                table = self._tables[bucket]
                table.entries.pop(table.find_own_or_shared_key(key), None)

    def block_now(self, bucket: str, key: bytes, for_us: int) -> None:
        """Deny every check of a key for this many microseconds; 0 ends a block."""
        with self._lock:
            table, now_us = self._get_table(bucket, None), self._now_us()
            if key not in table.entries and not for_us:
                return
            if table.reserve_own_or_shared_key(key, now_us) != key:  # do not block a shared entry
                table.evict_entry(now_us, may_evict_hot=True)
            table.write_state(
                key, algorithms.replace_block(table.read_state(key), for_us and now_us + for_us)
            )

    def clear(self) -> None:
        """Delete all keys."""
        with self._lock:
            self._tables.clear()

    # The same methods for callers that await ------------------------------------------------------

    async def hit(self, groups: Sequence[CheckGroup]) -> list[list[Outcome]]:
        """Take the costs of groups, up to the first that is denied: see `CounterStore.hit`."""
        return self.hit_now(groups)

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """End reservations: see `CounterStore.settle`."""
        self.settle_now(settlements)

    async def peek(self, checks: Sequence[Check]) -> list[Outcome]:
        """Return the outcome that each check would have now, without counting anything."""
        return self.peek_now(checks)

    async def reset(self, bucket: str, key: bytes) -> None:
        """Delete the counts and the block of a key in a bucket."""
        self.reset_now(bucket, key)

    async def block(self, bucket: str, key: bytes, for_us: int) -> None:
        """Deny every check of a key for this many microseconds; 0 ends a block."""
        self.block_now(bucket, key, for_us)

    async def aclose(self) -> None:
        """Do nothing: there is no connection to close. The counts stay."""

    # --------------------------------------------------------------------------------------------

    def _now_us(self) -> int:
        return self._clock_ns() // 1000

    def _get_table(self, bucket: str, rule: Rule | None) -> _BucketTable:
        table = self._tables.get(bucket)
        if table is None:
            table = self._tables[bucket] = _BucketTable(bucket, self._max_keys)
        if table.rule is None:
            table.rule = rule
        return table


class _BucketTable:
    """The keys of one bucket with their packed states.

    rule is None until the first check; until then the table has only blocks.
    """

    __slots__ = (
        "_max_keys", "_name", "_overflowed", "_queue", "_shared_entries", "entries", "rule"
    )  # fmt: skip

    def __init__(self, name: str, max_keys: int) -> None:
        self.entries: dict[bytes, Packed] = {}
        self.rule: Rule | None = None
        self._name = name
        self._max_keys = max_keys
        self._shared_entries = max(1, max_keys // KEYS_PER_SHARED_ENTRY)
        self._queue: list[bytes] = []  # the keys to examine next, in reverse order
        self._overflowed = False

    def read_state(self, key: bytes) -> CounterState:
        packed = self.entries.get(key)
        return () if packed is None else _unpack_state(self.rule, packed)

    def write_state(self, key: bytes, state: CounterState) -> None:
        if state:
            self.entries[key] = _pack_state(self.rule, state)
        else:
            self.entries.pop(key, None)

    def find_own_or_shared_key(self, key: bytes) -> bytes:
        """Return the key of the entry that counts a client: its own key, or that of a shared entry.

        A shared entry is used only if it exists and the key has no entry of its own.
        """
        if key in self.entries or not self._overflowed:
            return key
        shared = self._choose_shared_entry_key(key)
        return shared if shared in self.entries else key

    def reserve_own_or_shared_key(self, key: bytes, now_us: int) -> bytes:
        """Return the key of the entry to use for a client: its own key, or that of a shared entry.

        A shared entry is used if the key has no entry, and the table has no room and no key to
        evict.
        """
        if key in self.entries:
            return key
        if len(self.entries) < self._max_keys:
            for candidate in self._iter_eviction_candidates(EXAMINED):
                if self._find_used_fraction(candidate, now_us) is None:
                    del self.entries[candidate]
            return key
        if self.evict_entry(now_us):
            return key
        if not self._overflowed:
            self._overflowed = True
            logger.warning(
                "rate limit bucket %s is full: none of its %d keys can be evicted, as they have "
                "used most of their limit; new clients share %d counters",
                self._name, self._max_keys, self._shared_entries,
            )  # fmt: skip
        return self._choose_shared_entry_key(key)

    def evict_entry(self, now_us: int, *, may_evict_hot: bool = False) -> bool:
        """Delete an expired entry, or else the least used of a few. Returns whether it did.

        Hot entries (blocked, or most of the limit is used) are deleted only with may_evict_hot.
        """
        coldest: tuple[float, bytes] | None = None
        candidates = 0
        for candidate in self._iter_eviction_candidates(EXAMINED_IF_FULL):
            heat = self._find_used_fraction(candidate, now_us)
            if heat is None:
                del self.entries[candidate]
                return True
            if (heat < HOT or may_evict_hot) and len(candidate) == KEY_BYTES:
                candidates += 1
                if coldest is None or heat < coldest[0]:
                    coldest = heat, candidate
                if candidates == CANDIDATES:
                    break
        if coldest is None:
            return False
        del self.entries[coldest[1]]
        return True

    def _choose_shared_entry_key(self, key: bytes) -> bytes:
        # Without the secret, an attacker could choose keys that share the entry of a victim.
        number = int.from_bytes(blake2b(key, digest_size=8, key=_SECRET).digest(), "big")
        return (number % self._shared_entries).to_bytes(8, "big")

    def _iter_eviction_candidates(self, count: int) -> Iterator[bytes]:
        """Yield up to count keys to examine, continuing after the last key of the previous call.

        After the newest key, the iteration starts again with the oldest.
        """
        for _ in range(min(count, len(self.entries))):
            if not self._queue:
                self._queue = list(self.entries)
                self._queue.reverse()  # so that pop() returns the oldest key first
            key = self._queue.pop()
            if key in self.entries:
                yield key

    def _find_used_fraction(self, key: bytes, now_us: int) -> float | None:
        """Return the used share of a key's limit: 1 for a blocked key, None for an expired one."""
        packed = self.entries[key]
        rule = self.rule
        # A shortcut for the most frequent case.
        if packed.__class__ is int and rule is not None and rule.kind == "fixed":
            return None if packed >> BITS <= now_us else (packed & MASK) / (rule.limit or 1)
        state = _unpack_state(rule, packed)
        if rule is None:
            return 1.0 if state[0] > now_us else None
        state = algorithms.drop_expired_parts(rule, state, now_us)
        if not state:
            return None
        if state[0] or not rule.capacity:
            return 1.0
        remaining, _ = algorithms.find_remaining_and_reset_us(rule, state, now_us)
        return 1.0 - remaining / rule.capacity


HOT: Final = 0.8
"""A key that has used at least this share of its limit is hot: it is not evicted."""


def _without_block_on_denial(check: Check) -> Check:
    """Return the check without block_us, because a blocked shared entry denies other clients."""
    return check._replace(block_us=0)


def _pack_state(rule: Rule | None, state: CounterState) -> Packed:
    """Return one integer for a state that fits into it, else an array.

    If there is no block, a fixed window without reservations fits, and so does the theoretical
    arrival time of "gcra".
    """
    if rule is not None and not state[0]:
        if rule.kind == "fixed" and len(state) == 4 and not state[3] and state[2] <= MASK:
            return state[1] << BITS | state[2]
        if rule.kind == "gcra" and len(state) == 2:
            return state[1]
    return array("q", state)


def _unpack_state(rule: Rule | None, packed: Packed) -> CounterState:
    if not isinstance(packed, int):
        return tuple(packed)
    if rule is not None and rule.kind == "fixed":
        return 0, packed >> BITS, packed & MASK, 0
    return 0, packed
