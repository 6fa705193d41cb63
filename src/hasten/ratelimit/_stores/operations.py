"""What can be asked of a store, as values: one after the other is carried out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from hasten.ratelimit._counter_store import Check, CheckGroup, Settlement


class Hit(NamedTuple):
    groups: Sequence[CheckGroup]

    @property
    def key(self) -> bytes:
        """The client. On a cluster one request is about one client."""
        return self.groups[0][0].key


class Peek(NamedTuple):
    checks: Sequence[Check]

    @property
    def key(self) -> bytes:
        return self.checks[0].key


class Settle(NamedTuple):
    settlement: Settlement

    @property
    def key(self) -> bytes:
        return self.settlement.token.key


class Reset(NamedTuple):
    bucket: str
    key: bytes


class Block(NamedTuple):
    bucket: str
    key: bytes
    for_us: int


Request: TypeAlias = Hit | Peek | Settle | Reset | Block
