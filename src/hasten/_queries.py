"""Read the query string of a URL from the request objects of different frameworks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, TypeAlias
from urllib.parse import parse_qsl

Pairs: TypeAlias = list[tuple[str, str]]


class _StarletteQueryParams(Protocol):
    """The query parameters of a request of Starlette or Litestar."""

    def multi_items(self) -> Iterable[tuple[str, str]]: ...


class _DjangoQueryParams(Protocol):
    """The query parameters of a request of Django, Quart or Flask."""

    def lists(self) -> Iterable[tuple[str, list[str]]]: ...


class _QueryMapping(Protocol):
    """A mapping with one value for each parameter, such as a dict."""

    def items(self) -> Iterable[tuple[str, str]]: ...


class _RequestWithQuery(Protocol):
    """A request of Starlette, FastAPI or Litestar."""

    @property
    def query_params(self) -> _StarletteQueryParams: ...


_QueryParams: TypeAlias = _StarletteQueryParams | _DjangoQueryParams | _QueryMapping

QueryLike: TypeAlias = str | Iterable[tuple[str, str]] | _QueryParams | _RequestWithQuery
"""The query string of a URL, in one of these forms:

- the text: ``"page=2&limit=10"``
- the pairs: ``[("page", "2"), ("limit", "10")]``
- the query parameters of a request of Starlette, FastAPI, Litestar, Django, Quart or Flask
- a request of Starlette, FastAPI or Litestar
"""


def to_query_pairs(query: QueryLike) -> Pairs:
    """Return the query parameters as decoded (name, value) pairs, in their order."""
    if isinstance(query, str):
        return parse_qsl(query.removeprefix("?"), keep_blank_values=True)
    # First, because a request of Starlette has items(), too: those of its ASGI scope.
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


def get_header_if_request(query: QueryLike, name: str) -> str | None:
    """Return a header of the request.

    Returns None if the request does not have this header, or if query is not a request.
    """
    if not hasattr(query, "query_params"):
        return None
    headers: Any = getattr(query, "headers", {})
    value: str | None = headers.get(name)
    return value


def is_request_of_app_in_debug_mode(query: QueryLike) -> bool:
    """Return whether query is a request of an application in debug mode."""
    scope: Any = getattr(query, "scope", None) or {}
    return bool(getattr(scope.get("app"), "debug", False))
