"""Unknown query parameters are rejected with unknown="refuse"."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from hasten.errors import InvalidOption, InvalidParameter
from hasten.fields import FieldSelector, Partial
from hasten.pagination import Paginator

SECRET = "a secret of more than 16 bytes"


class ItemOut(BaseModel):
    id: int


def pages(mode: Any = "page", schema: Any = ItemOut, **options: Any) -> Any:
    options = {"unknown": "refuse", **options}
    return Paginator(schema, unique=("id",), mode=mode, secret=SECRET, **options)


def refusal(parser: Any, query: str, **options: Any) -> InvalidParameter:
    with pytest.raises(InvalidParameter) as caught:
        parser.parse(query, **options)
    assert (caught.value.status, caught.value.code) == (422, "unknown_parameter")
    return caught.value


class TestRefused:
    @pytest.mark.parametrize(
        ("query", "text"),
        [
            (
                "pgae=2",
                "pgae='2': no such parameter; did you mean page? expected page, limit, sort",
            ),
            (
                "limt=3",
                "limt='3': no such parameter; did you mean limit? expected page, limit, sort",
            ),
            ("x=1", "x='1': no such parameter; expected page, limit, sort"),
            ("fields=id", "fields='id': no such parameter; expected page, limit, sort"),
            ("page=1&cursor=", "cursor='': no such parameter; expected page, limit, sort"),
        ],
    )
    def test_the_error_contains_the_nearest_known_name(self, query: str, text: str) -> None:
        error = refusal(pages(), query)
        assert str(error) == text
        assert error.allowed == ("page", "limit", "sort")

    @pytest.mark.parametrize(
        ("mode", "known"),
        [("page", "page limit sort"), ("cursor", "limit sort cursor"), ("both", None)],
    )
    def test_parameters_of_the_mode_are_known(self, mode: str, known: str | None) -> None:
        expected = known or "page limit sort cursor"
        assert refusal(pages(mode), "x=1").allowed == tuple(expected.split())

    def test_fields_is_known_where_the_client_chooses_fields(self) -> None:
        chosen = pages(schema=Partial[ItemOut])
        assert chosen.parse("fields=id").fields is not None
        assert "did you mean fields?" in str(refusal(chosen, "field=id"))

    def test_passed_names_of_the_route_are_known(self) -> None:
        assert pages().parse("author=1&page=2", known={"author"}).page == 2
        assert "did you mean author?" in str(refusal(pages(), "autor=1", known={"author"}))

    def test_unknown_parameters_of_a_field_selector(self) -> None:
        fields = FieldSelector(ItemOut, unknown="refuse")
        assert fields.parse("fields=id&page=2", known=("page",)).names == ("id",)
        error = refusal(fields, "field=id")
        assert str(error) == "field='id': no such parameter; did you mean fields? expected fields"

    def test_a_long_name_is_cut(self) -> None:
        error = refusal(pages(), f"{'page' * 1000}=1")
        assert len(str(error)) < 300


def test_unknown_parameters_are_ignored_by_default() -> None:
    assert pages(unknown="ignore").parse("pgae=2&per_page=3").page == 1
    assert FieldSelector(ItemOut).parse("field=id").names == ("id",)


@pytest.mark.parametrize("unknown", [None, True, "forbid"])
def test_other_values_of_unknown_are_rejected(unknown: Any) -> None:
    with pytest.raises(InvalidOption, match=r"unknown=.*: must be one of 'ignore', 'refuse'"):
        pages(unknown=unknown)
    with pytest.raises(InvalidOption, match=r"unknown=.*: must be one of 'ignore', 'refuse'"):
        FieldSelector(ItemOut, unknown=unknown)
