"""The query of a URL, in the form of any framework."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, TypeAlias
from urllib.parse import parse_qsl

Pairs: TypeAlias = list[tuple[str, str]]


class _MultiItems(Protocol):
    """The query of Starlette and Litestar."""

    def multi_items(self) -> Iterable[tuple[str, str]]: ...


class _Lists(Protocol):
    """The query of Django, Quart and Flask."""

    def lists(self) -> Iterable[tuple[str, list[str]]]: ...


class _Items(Protocol):
    """A dict with one value for each name."""

    def items(self) -> Iterable[tuple[str, str]]: ...


class _Request(Protocol):
    """A request of Starlette, FastAPI or Litestar."""

    @property
    def query_params(self) -> _MultiItems: ...


QueryLike: TypeAlias = str | Iterable[tuple[str, str]] | _MultiItems | _Lists | _Items | _Request
"""The query of a URL: its text, its pairs, a framework's object for it, or a request of Starlette,
FastAPI or Litestar."""


def pairs_of(query: QueryLike) -> Pairs:
    """Return the names and values, decoded, in the order of the query."""
    if isinstance(query, str):
        return parse_qsl(query.removeprefix("?"), keep_blank_values=True)
    # First, because a request of Starlette also is a mapping: of its ASGI scope.
    query = getattr(query, "query_params", query)
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


def header_of(query: QueryLike, name: str) -> str | None:
    """Return a header of the request, or None if there is none or no request was passed."""
    if not hasattr(query, "query_params"):
        return None
    headers: Any = getattr(query, "headers", {})
    value: str | None = headers.get(name)
    return value


def is_debug(query: QueryLike) -> bool:
    """Return whether a request was passed whose application runs in debug mode."""
    scope: Any = getattr(query, "scope", None) or {}
    return bool(getattr(scope.get("app"), "debug", False))
