"""The query of a URL, in whatever form a framework has it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeAlias
from urllib.parse import parse_qsl

Pairs: TypeAlias = list[tuple[str, str]]


class _MultiItems(Protocol):
    """As Starlette and Litestar have it."""

    def multi_items(self) -> Iterable[tuple[str, str]]: ...


class _Lists(Protocol):
    """As Django, Quart and Flask have it."""

    def lists(self) -> Iterable[tuple[str, list[str]]]: ...


class _Items(Protocol):
    """A dict, of one value for each name."""

    def items(self) -> Iterable[tuple[str, str]]: ...


QueryLike: TypeAlias = str | Iterable[tuple[str, str]] | _MultiItems | _Lists | _Items
"""The query of a URL: its text, its pairs, or the object of a framework."""


def pairs_of(query: QueryLike) -> Pairs:
    """The names and values, decoded; those of one name in their order."""
    if isinstance(query, str):
        return parse_qsl(query.removeprefix("?"), keep_blank_values=True)
    multi_items = getattr(query, "multi_items", None)
    if multi_items is not None:
        return list(multi_items())
    lists = getattr(query, "lists", None)
    if lists is not None:
        return [(name, value) for name, values in lists() for value in values]
    items = getattr(query, "items", None)
    if items is not None:
        return list(items())
    pairs: Iterable[tuple[str, str]] = query  # type: ignore[assignment]
    return list(pairs)
