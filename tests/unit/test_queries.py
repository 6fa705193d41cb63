"""Queries come in the forms that frameworks have."""

from __future__ import annotations

from typing import Any

import pytest
from litestar.datastructures import MultiDict as OfLitestar
from starlette.applications import Starlette
from starlette.datastructures import QueryParams
from starlette.requests import Request
from werkzeug.datastructures import MultiDict as OfWerkzeug

from hasten._queries import get_header_if_request, is_request_of_app_in_debug_mode, to_query_pairs
from tests.http.hosts import django_app, untyped

PAIRS = [("a", "1 &"), ("a", ""), ("b", "é")]
TEXT = "a=1+%26&a=&b=%C3%A9"


def request_of(app: Starlette | None = None) -> Request:
    headers = [(b"if-none-match", b'"a"')]
    scope = {"type": "http", "query_string": TEXT.encode(), "headers": headers}
    return Request(scope if app is None else scope | {"app": app})


def of_django() -> Any:
    django_app()
    return untyped("django.http").QueryDict(TEXT)


@pytest.mark.parametrize(
    "make",
    [
        lambda: TEXT,
        lambda: "?" + TEXT,
        lambda: PAIRS,
        lambda: iter(PAIRS),
        lambda: QueryParams(TEXT),
        lambda: OfLitestar(PAIRS),
        lambda: OfWerkzeug(PAIRS),
        of_django,
        request_of,
    ],
)
def test_names_and_values(make: Any) -> None:
    found = to_query_pairs(make())
    # Litestar changes the order of names, but not that of the values of one name.
    assert sorted(found) == sorted(PAIRS)
    assert [value for name, value in found if name == "a"] == ["1 &", ""]


def test_a_query_may_be_a_dict() -> None:
    assert to_query_pairs({"a": "1"}) == [("a", "1")]
    assert to_query_pairs("") == []


def test_a_request_has_headers() -> None:
    assert get_header_if_request(request_of(), "if-none-match") == '"a"'
    assert get_header_if_request(request_of(), "etag") is None
    assert get_header_if_request(QueryParams(TEXT), "if-none-match") is None


def test_a_request_shows_if_its_application_is_in_debug_mode() -> None:
    assert is_request_of_app_in_debug_mode(request_of(Starlette(debug=True)))
    assert not is_request_of_app_in_debug_mode(request_of(Starlette()))
    assert not is_request_of_app_in_debug_mode(request_of())
    assert not is_request_of_app_in_debug_mode(TEXT)
