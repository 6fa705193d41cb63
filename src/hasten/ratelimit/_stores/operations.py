"""The operations of a remote store as values, which it applies one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from hasten.ratelimit._counter_store import Check, CheckGroup, Settlement


class Hit(NamedTuple):
    """`CounterStore.hit`."""

    groups: Sequence[CheckGroup]

    @property
    def key(self) -> bytes:
        """The client. On a cluster, one operation is about one client."""
        return self.groups[0][0].key


class Peek(NamedTuple):
    """`CounterStore.peek`."""

    checks: Sequence[Check]

    @property
    def key(self) -> bytes:
        """The client."""
        return self.checks[0].key


class Settle(NamedTuple):
    """`CounterStore.settle`, for one reservation."""

    settlement: Settlement

    @property
    def key(self) -> bytes:
        """The client."""
        return self.settlement.token.key


class Reset(NamedTuple):
    """`CounterStore.reset`."""

    bucket: str
    key: bytes


class Block(NamedTuple):
    """`CounterStore.block`."""

    bucket: str
    key: bytes
    for_us: int


Operation: TypeAlias = Hit | Peek | Settle | Reset | Block
