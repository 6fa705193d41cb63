"""Responses of pages have headers, and are 304 for clients that have the page."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Final

import pytest
from pydantic import BaseModel
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import Session

from hasten._responses import EncodedResponse
from hasten.errors import InvalidOption
from hasten.fields import FieldSelector, Partial
from hasten.pagination import CursorPage, Envelope, Page, Paginator
from hasten.pagination._counts import Count
from tests.pagination.databases import Author, Item, Post, statements_of

SECRET: Final = "a secret of more than 16 bytes"
EVERY: Final = select(Item)


class ItemOut(BaseModel):
    id: int
    grade: int | None
    made: datetime


class AuthorOut(BaseModel):
    id: int
    name: str


class PostOut(BaseModel):
    id: int
    title: str
    author: AuthorOut | None


class Request:
    def __init__(self, tag: str | None = None, method: str = "GET") -> None:
        self.method = method
        self.headers = {} if tag is None else {"if-none-match": tag}


def answered(
    session: Session, items: Any, query: str, tag: str | None = None, statement: Any = EVERY
) -> EncodedResponse:
    q = items.parse(query, if_none_match=tag)
    found: EncodedResponse = items.sync.page(session, statement, q).response(Request(tag))
    return found


def test_a_response_has_links(session: Session) -> None:
    items = Paginator(ItemOut, model=Item)
    found = answered(session, items, "page=2&limit=5&q=%26")
    assert json.loads(found.body)["pagination"] == {"page": 2, "limit": 5, "total": 180}
    assert (found.status, found.headers["content-type"]) == (200, "application/json")
    assert '<?limit=5&q=%26&page=3>; rel="next"' in found.headers["link"]
    assert set(found.headers) == {"content-type", "link"}


def test_the_only_page_has_no_links(session: Session) -> None:
    items = Paginator(ItemOut, model=Item)
    found = answered(session, items, "", statement=EVERY.where(Item.id < 3))
    assert set(found.headers) == {"content-type"}


def test_no_cache_control_is_sent(session: Session) -> None:
    items = Paginator(ItemOut, model=Item, etag=True)
    assert set(answered(session, items, "").headers) == {"content-type", "link", "etag"}


def test_a_matching_etag_gets_304_with_the_links(session: Session) -> None:
    items = Paginator(ItemOut, model=Item, etag=True)
    first = answered(session, items, "limit=3")
    tag = first.headers["etag"]
    assert not tag.startswith("W/")
    again = answered(session, items, "limit=3", f"W/{tag}")
    assert again == EncodedResponse(b"", 304, {"etag": tag, "link": first.headers["link"]})
    assert answered(session, items, "limit=4", tag).status == 200
    session.execute(update(Item).where(Item.id == 2).values(grade=99))
    assert answered(session, items, "limit=3", tag).status == 200


def test_the_etag_depends_on_the_selected_fields(session: Session) -> None:
    items = Paginator(Partial[ItemOut], model=Item, etag=True)
    queries = ("", "fields=id", "fields=grade", "fields=grade,id", "fields=id,grade")
    tags = [answered(session, items, query).headers["etag"] for query in queries]
    assert len(set(tags)) == 4
    assert tags[3] == tags[4]


class TestVersions:
    items = Paginator(
        Partial[ItemOut],
        model=Item,
        sort=("grade",),
        version=(func.max(Item.grade), func.count()),
        advise=False,
    )

    def test_a_client_with_the_version_takes_one_statement(self, session: Session) -> None:
        first = answered(session, self.items, "limit=3")
        tag = first.headers["etag"]
        assert tag.startswith("W/")
        with statements_of(session.get_bind().engine) as seen:
            again = answered(session, self.items, "limit=3", tag)
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
        assert len(seen) == 1
        found = self.items.sync.page(session, EVERY, self.items.parse("limit=3", if_none_match=tag))
        assert (found.not_modified, list(found.data), found.total) == (True, [], None)

    @pytest.mark.parametrize(
        ("query", "statement"),
        [
            ("limit=4", EVERY),
            ("limit=3&page=2", EVERY),
            ("limit=3&sort=grade", EVERY),
            ("limit=3&fields=id", EVERY),
            ("limit=3", EVERY.where(Item.id > 0)),
            ("limit=3", EVERY.where(Item.id > -1)),
        ],
    )
    def test_versions_are_per_request(self, session: Session, query: str, statement: Any) -> None:
        tags = {
            answered(session, self.items, *each).headers["etag"]
            for each in (("limit=3", None, EVERY), (query, None, statement))
        }
        assert len(tags) == 2

    def test_another_version_is_read(self, session: Session) -> None:
        tag = answered(session, self.items, "limit=3").headers["etag"]
        session.execute(delete(Item).where(Item.id == 180))
        found = answered(session, self.items, "limit=3", tag)
        assert (found.status, found.headers["etag"] != tag) == (200, True)

    def test_the_version_of_filtered_rows(self, session: Session) -> None:
        statement = EVERY.where(Item.dataset == 0)
        tag = answered(session, self.items, "", None, statement).headers["etag"]
        values = {"dataset": 1, "grade": 1000, "label": "", "weight": 1.0, "state": "new"}
        session.execute(insert(Item), [values | {"made": datetime(2026, 1, 1)}])  # noqa: DTZ001
        assert answered(session, self.items, "", tag, statement).status == 304
        assert answered(session, self.items, "", tag).status == 200

    def test_versions_with_cursors(self, session: Session) -> None:
        items = Paginator(
            ItemOut, model=Item, mode="cursor", secret=SECRET, version=func.max(Item.grade)
        )
        tag = answered(session, items, "").headers["etag"]
        assert answered(session, items, "", tag).status == 304

    def test_grouped_selects_have_no_version(self, session: Session) -> None:
        with pytest.raises(InvalidOption, match="version"):
            answered(session, self.items, "", None, EVERY.group_by(Item.id))

    @pytest.mark.parametrize("wrong", ["bytes", 1, True, ("x",)])
    def test_a_version_that_is_no_expression_is_rejected(self, wrong: Any) -> None:
        with pytest.raises(InvalidOption, match="version"):
            Paginator(ItemOut, model=Item, version=wrong)

    @pytest.mark.parametrize("wrong", [None, 1, "bytes", func.max(Item.grade)])
    def test_etag_is_true_or_false(self, wrong: Any) -> None:
        with pytest.raises(
            InvalidOption, match=r"etag=.*True or False; pass an SQL expression as version="
        ):
            Paginator(ItemOut, model=Item, etag=wrong)

    def test_etag_and_version_cannot_be_combined(self) -> None:
        with pytest.raises(InvalidOption, match="etag=True: cannot be combined with version="):
            Paginator(ItemOut, model=Item, etag=True, version=func.max(Item.grade))


def test_a_page_made_by_the_application_has_a_response() -> None:
    page: Page[Any] = Page([{"id": 1}], 1, 20, Count(1), has_more=False)
    assert json.loads(page.response().body) == {
        "data": [{"id": 1}], "pagination": {"page": 1, "limit": 20, "total": 1},
    }  # fmt: skip
    cursor_page: CursorPage[Any] = CursorPage([], 20, None, None)
    assert cursor_page.response(Request(method="HEAD")).body == b""


def test_the_response_uses_the_envelope(session: Session) -> None:
    items = Paginator(ItemOut, model=Item, envelope=Envelope("items", "meta", {"total": "count"}))
    found = json.loads(answered(session, items, "limit=1").body)
    assert (set(found), found["meta"]["count"]) == ({"items", "meta"}, 180)


class TestRows:
    def test_a_row_is_a_dict_with_a_response(self, session: Session) -> None:
        authors = FieldSelector(AuthorOut, model=Author, default=("id",), etag=True)
        row = authors.sync.one(session, select(Author).where(Author.id == 1), authors.parse(""))
        assert (row, row.response().body) == ({"id": 1}, b'{"id":1}')
        tag = row.response().headers["etag"]
        assert row.response(Request(tag)).status == 304

    def test_there_is_no_etag_by_default(self, session: Session) -> None:
        authors = FieldSelector(AuthorOut, model=Author)
        row = authors.sync.one(session, select(Author).where(Author.id == 1), authors.parse(""))
        assert set(row.response().headers) == {"content-type"}


def test_the_client_chooses_the_fields(session: Session) -> None:
    posts = Paginator(Partial[PostOut], model=Post, sort=("title",), advise=False)
    q = posts.parse("fields=author(name)&limit=2&sort=-title")
    with statements_of(session.get_bind().engine) as seen:
        found = posts.sync.page(session, select(Post), q)
    assert [set(row) for row in found.data] == [{"author"}] * 2
    assert all("body" not in each for each in seen)
