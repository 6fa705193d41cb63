"""The operations of a remote store as values, so that many of them can be sent in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from hasten.ratelimit._counter_store import Check, CheckGroup, Settlement


class Hit(NamedTuple):
    """One call of `CounterStore.hit`."""

    groups: Sequence[CheckGroup]

    @property
    def key(self) -> bytes:
        """The client of the first check, as a hash.

        It selects the node of a cluster, where all checks of an operation have the same client.
        """
        return self.groups[0][0].key


class Peek(NamedTuple):
    """One call of `CounterStore.peek`."""

    checks: Sequence[Check]

    @property
    def key(self) -> bytes:
        """The client, as a hash (see `Hit.key`)."""
        return self.checks[0].key


class Settle(NamedTuple):
    """The settlement of one reservation (`CounterStore.settle`)."""

    settlement: Settlement

    @property
    def key(self) -> bytes:
        """The client, as a hash (see `Hit.key`)."""
        return self.settlement.reservation.key


class Reset(NamedTuple):
    """One call of `CounterStore.reset`."""

    bucket: str
    key: bytes


class Block(NamedTuple):
    """One call of `CounterStore.block`. for_us is in microseconds, 0 to end a block."""

    bucket: str
    key: bytes
    for_us: int


Operation: TypeAlias = Hit | Peek | Settle | Reset | Block
