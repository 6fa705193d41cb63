"""Pages and parameters of requests can be copied, and sent to another process."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any, Final

import pytest
from pydantic import BaseModel

from hasten import fastapi
from hasten.errors import InvalidOption, InvalidParameter
from hasten.fields import FieldSelector, Partial
from hasten.pagination import Count, CursorPage, Envelope, Page, Paginator

SECRET: Final = "a secret of more than 16 bytes"

ITEMS: Final = [{"id": n, "name": f"name {n}", "owner": {"id": n}} for n in range(5)]


class OwnerOut(BaseModel):
    id: int


class ItemOut(BaseModel):
    id: int
    name: str
    owner: OwnerOut


Fields = FieldSelector(ItemOut)
Guests = Fields.without("name")


def paginator(fields: FieldSelector[Any]) -> Paginator[Any]:
    return Paginator(
        Partial[ItemOut],
        unique=("id",),
        sort=("id", "name"),
        mode="both",
        secret=SECRET,
        fields=fields,
        etag=True,
        envelope=Envelope("items", "meta"),
    )


Items = paginator(Fields)
Same = paginator(FieldSelector(ItemOut))
Served = fastapi.Paginate(ItemOut, unique=("id",), etag=True)
Rows = fastapi.Fields(ItemOut)


def sent(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


COPIES: Final = [copy.copy, copy.deepcopy, sent]


@pytest.mark.parametrize("make", COPIES)
class TestCopies:
    @pytest.mark.parametrize("query", ["page=2&limit=2&fields=id", "cursor=&limit=2&sort=-name"])
    def test_a_page_has_the_same_response(self, make: Callable[[Any], Any], query: str) -> None:
        page = Items.from_items(ITEMS, Items.parse(query))
        copied = make(page)
        assert copied == page
        assert copied.response() == page.response()
        assert {"link", "etag"} < copied.response().headers.keys()

    def test_a_page_made_by_the_application(self, make: Callable[[Any], Any]) -> None:
        page: Page[Any] = Page([{"id": 1}], 1, 20, Count(1, "gte"), has_more=False)
        assert make(page).response() == page.response()
        last: CursorPage[Any] = CursorPage([], 20, None, None)
        assert make(last) == last

    @pytest.mark.parametrize("query", ["", "fields=id,owner(id)&page=2&limit=2", "sort=-name"])
    def test_parameters_read_the_same_page(self, make: Callable[[Any], Any], query: str) -> None:
        q = Items.parse(query)
        assert Items.from_items(ITEMS, make(q)) == Items.from_items(ITEMS, q)
        first = Items.from_items(ITEMS, Items.parse("cursor=&limit=2"))
        assert isinstance(first, CursorPage)
        q = Items.parse(f"cursor={first.next_cursor}&limit=2&fields=id")
        assert Items.from_items(ITEMS, make(q)) == Items.from_items(ITEMS, q)

    def test_fields_of_a_role_keep_its_restrictions(self, make: Callable[[Any], Any]) -> None:
        guest = make(Guests.parse("fields=id"))
        assert Items.from_items(ITEMS, Items.parse("limit=1"), guest).data == [{"id": 0}]
        with pytest.raises(InvalidParameter, match="sort='name': cannot be sorted by"):
            Items.from_items(ITEMS, Items.parse("sort=name"), guest)

    def test_in_fastapi_a_page_and_a_row_are_responses(self, make: Callable[[Any], Any]) -> None:
        page: Any = Served.from_items(ITEMS, Served.parse("limit=2"))
        page.headers["x-test"] = "1"
        copied = make(page)
        assert (copied, copied.body) == (page, page.body)
        assert copied.raw_headers == page.raw_headers
        copied.headers["x-test"] = "2"
        assert page.headers["x-test"] == "1"
        row: Any = Rows.from_item(ITEMS[0], Rows.parse(""))
        assert (make(row), make(row).body) == (row, row.body)


def test_fields_of_another_process_are_compared_by_name() -> None:
    """The other process has made an equal selector with other objects."""
    q = sent(Items.parse("fields=id,owner"))
    assert Same.from_items(ITEMS, q).data == Items.from_items(ITEMS, q).data
    with pytest.raises(InvalidOption, match="fields parsed by this FieldSelector"):
        Same.from_items(ITEMS, Items.parse("fields=id"))
    other = Paginator(Partial[OwnerOut], fields=FieldSelector(OwnerOut))
    with pytest.raises(InvalidOption, match="fields parsed by this FieldSelector"):
        other.from_items(ITEMS, q)


class TestRepr:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (Items, "Paginator(Partial[ItemOut], sort=('id', 'name'), mode='both')"),
            (Items.sync, "Paginator(Partial[ItemOut], sort=('id', 'name'), mode='both').sync"),
            (Served, "Paginate(ItemOut, mode='page')"),
            (Fields, "FieldSelector(AllowedFields(id, name, owner))"),
            (Fields.sync, "FieldSelector(AllowedFields(id, name, owner)).sync"),
            (Fields.parse("fields=owner,id"), "FieldSet('id,owner(id)')"),
            (
                Served.from_items([], Served.parse("")),
                "Page(data=[], page=1, limit=20, count=Count(total=0, relation='eq'), has_more",
            ),
            (
                Served.from_items([], Served.parse("")).response(),
                "EncodedResponse(200, 56 bytes, {'content-type': 'application/json', 'etag': '\"",
            ),
        ],
    )
    def test_a_repr_describes_the_object(self, value: object, text: str) -> None:
        assert repr(value).startswith(text)

    def test_a_secret_is_never_shown(self) -> None:
        assert SECRET not in repr(vars(Items))
