"""In which order rows are paged through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Nulls = Literal["first", "last"]


@dataclass(frozen=True, slots=True)
class Key:
    """One key of an order: a name that the client may know, never a text of SQL."""

    name: str
    descending: bool = False
    nullable: bool = False
    nulls: Nulls = "last"
    """Where rows without a value stand, whatever the direction. Of no meaning if not nullable."""


Order = tuple[Key, ...]
"""The first key decides; the last ones make it total: no two rows are equal in all of them."""
