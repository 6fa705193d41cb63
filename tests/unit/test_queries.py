"""Queries come in the forms that frameworks have."""

from __future__ import annotations

from typing import Any

import pytest
from litestar.datastructures import MultiDict as OfLitestar
from starlette.datastructures import QueryParams
from werkzeug.datastructures import MultiDict as OfWerkzeug

from hasten._queries import pairs_of
from tests.http.hosts import django_app, untyped

PAIRS = [("a", "1 &"), ("a", ""), ("b", "é")]
TEXT = "a=1+%26&a=&b=%C3%A9"


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
    ],
)
def test_names_and_values(make: Any) -> None:
    found = pairs_of(make())
    # Litestar gives the names in no order; what counts is that of the values of one.
    assert sorted(found) == sorted(PAIRS)
    assert [value for name, value in found if name == "a"] == ["1 &", ""]


def test_of_a_dict() -> None:
    assert pairs_of({"a": "1"}) == [("a", "1")]
    assert pairs_of("") == []
