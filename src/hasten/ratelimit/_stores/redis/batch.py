"""Encode operations for the script `limit.lua`, and decode its results.

One call of the script applies a batch of operations. Operations refer to keys and rules by number,
so that a key or a rule that several operations use is sent once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from hasten.ratelimit._counter_store import Check, CheckGroup, Outcome, Reservation
from hasten.ratelimit._rules import Rule, RuleKind
from hasten.ratelimit._stores.operations import Block, Hit, Operation, Peek, Reset, Settle

_pack: Final = msgspec.msgpack.Encoder().encode
_unpack: Final = msgspec.msgpack.Decoder(list[list[int]]).decode
_new: Final = tuple.__new__  # twice as fast as the constructor of a named tuple

_KINDS: Final[dict[RuleKind, int]] = {"fixed": 1, "sliding": 2, "concurrency": 3, "gcra": 4}
_HIT, _SETTLE, _PEEK, _RESET, _BLOCK = 1, 2, 3, 4, 5
_LATER, _FORCED, _SHADOW = 1, 2, 4
_OK, _CERTAIN = 1, 2

KeyName: TypeAlias = Callable[[str, bytes], bytes]
"""A function that returns the Redis key for a bucket and a client."""


class ScriptBatch:
    """The operations of one call of the script, and the keys and rules that they refer to."""

    def __init__(self, name: KeyName) -> None:
        self._name = name
        self.rows: list[list[Any]] = []
        self._keys: dict[tuple[str, bytes], int] = {}
        self._rules: dict[int, int] = {}  # by identity: the hash of a rule is slow
        self._rule_rows: list[tuple[int, ...]] = []

    def get_or_add_key_number(self, bucket: str, key: bytes) -> int:
        """Return the number of a key in this batch, from 1. Adds the key if it is new."""
        return self._keys.setdefault((bucket, key), len(self._keys) + 1)

    def get_or_add_rule_number(self, rule: Rule) -> int:
        """Return the number of a rule in this batch, from 1. Adds the rule if it is new."""
        number = self._rules.get(id(rule))
        if number is None:
            self._rule_rows.append(_encode_rule(rule))
            number = self._rules[id(rule)] = len(self._rule_rows)
        return number

    def get_key_names(self) -> list[bytes]:
        """Return the Redis keys of the batch, in the order of their numbers."""
        return [self._name(bucket, key) for bucket, key in self._keys]

    def pack(self, now_us: int | None, min_ttl_ms: int) -> bytes:
        """Encode the batch as the argument of the script.

        now_us is None for the time of the server. min_ttl_ms is the minimum time to live of keys.
        """
        now: int | bool = False if now_us is None else now_us
        return _pack((now, min_ttl_ms, self._rule_rows, self.rows))


def unpack_results(results: bytes) -> list[list[int]]:
    """Decode the results of the script: a list of numbers for each operation."""
    return _unpack(results)


def _encode_rule(rule: Rule) -> tuple[int, ...]:
    return (
        _KINDS[rule.kind], rule.limit, rule.window_us, rule.capacity,
        rule.interval_us, rule.tolerance_us, rule.run_us, rule.life_us,
    )  # fmt: skip


def add_operation(batch: ScriptBatch, operation: Operation) -> None:
    """Encode an operation and add it to a batch."""
    match operation:
        case Hit(groups):
            batch.rows.append([_HIT, *(_encode_group(batch, group) for group in groups)])
        case Settle((reservation, keep)):
            key, rule = (
                batch.get_or_add_key_number(reservation.bucket, reservation.key),
                batch.get_or_add_rule_number(reservation.rule),
            )
            batch.rows.append([_SETTLE, key, rule, reservation.at_us, reservation.cost, keep])
        case Peek(checks):
            row = [_PEEK]
            for check in checks:
                row += (
                    batch.get_or_add_key_number(check.bucket, check.key),
                    batch.get_or_add_rule_number(check.rule),
                    check.cost,
                )
            batch.rows.append(row)
        case Reset(bucket, key_):
            batch.rows.append([_RESET, batch.get_or_add_key_number(bucket, key_)])
        case Block(bucket, key_, for_us):
            batch.rows.append([_BLOCK, batch.get_or_add_key_number(bucket, key_), for_us])


def _encode_group(batch: ScriptBatch, group: CheckGroup) -> list[int]:
    numbers: list[int] = []
    for bucket, key, rule, cost, counted_later, block_us, forced, shadow, _ in group:
        flags = counted_later * _LATER + forced * _FORCED + shadow * _SHADOW
        numbers += (
            batch.get_or_add_key_number(bucket, key),
            batch.get_or_add_rule_number(rule),
            cost,
            flags,
            block_us,
        )
    return numbers


def parse_outcomes(operation: Operation, numbers: list[int]) -> list[list[Outcome]]:
    """Convert the numbers that the script returned for an operation to outcomes, by group."""
    match operation:
        case Hit(groups):
            return _parse_groups(groups, numbers)
        case Peek(checks):
            outcomes = [
                _parse_outcome(check, numbers, 5 * i)._replace(reservation=None)
                for i, check in enumerate(checks)
            ]
            return [outcomes]
        case _:
            return []


def _parse_groups(groups: Sequence[CheckGroup], numbers: list[int]) -> list[list[Outcome]]:
    result, start = [], 0
    for group in groups:
        if start == len(numbers):  # the previous group was denied
            break
        outcomes = []
        for check in group:
            outcomes.append(_parse_outcome(check, numbers, start))
            start += 5
        result.append(outcomes)
    return result


def _parse_outcome(check: Check, numbers: list[int], start: int) -> Outcome:
    flags, remaining, reset_us, retry_us, at_us = numbers[start : start + 5]
    rule, reservation = check.rule, None
    # at_us is 0 if nothing was reserved: nothing was taken, or "gcra" charged the cost at once.
    if at_us and (check.counted_later or rule.kind == "concurrency"):
        reservation = Reservation(check.bucket, check.key, rule, check.cost, at_us)
    ok, certain = bool(flags & _OK), bool(flags & _CERTAIN)
    limit = rule.capacity
    return _new(Outcome, (ok, limit, remaining, reset_us, retry_us, certain, reservation, False))
