"""Pages of lists and of other sources of items."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, field_serializer

from hasten.errors import InvalidOption, InvalidParameter, UsageError
from hasten.fields import FieldSelector, Partial
from hasten.pagination import Capped, Count, CursorPage, Page, Paginator, SortKey, Window

SECRET: Final = "a secret of more than 16 bytes"


class TagOut(BaseModel):
    name: str


class BookOut(BaseModel):
    id: int
    grade: int | None
    title: str = Field(serialization_alias="bookTitle")
    published: date
    tags: list[TagOut]

    @field_serializer("published")
    def _year(self, value: date) -> str:
        return f"in {value.year}"


class TimeOut(BaseModel):
    id: int
    at: datetime


class GradeOut(BaseModel):
    id: int
    grade: float | None


@dataclass
class Book:
    id: int
    grade: int | None = None
    title: str = "T"
    published: date = date(2026, 5, 1)
    tags: list[dict[str, str]] = field(default_factory=list)
    secret: str = "s"


def walk(books: Paginator[Any], items: Sequence[object], query: str) -> list[CursorPage[Any]]:
    pages = [books.from_items(items, books.parse(query))]
    while (token := pages[-1].next_cursor) is not None:
        pages.append(books.from_items(items, books.parse(f"{query}&cursor={token}")))
        assert len(pages) < 500
    return pages


class TestLists:
    def test_rows_are_written_as_the_model_writes_them(self) -> None:
        books = Paginator(BookOut, unique=("id",))
        book = Book(1, tags=[{"name": "red", "hidden": "h"}])
        found = books.from_items([book], books.parse(""))
        assert found.data == [
            {
                "id": 1, "grade": None, "bookTitle": "T", "published": "in 2026",
                "tags": [{"name": "red"}],
            }
        ]  # fmt: skip

    def test_the_client_chooses_among_fields(self) -> None:
        fields = FieldSelector(BookOut, max_related=2)
        books = Paginator(Partial[BookOut], fields=fields)
        book = Book(1, tags=[{"name": name} for name in ("red", "green", "blue")])
        found = books.from_items([book], books.parse("fields=tags,bookTitle"))
        assert found.data == [
            {"bookTitle": "T", "tags": [{"name": "red"}, {"name": "green"}], "tags_has_more": True}
        ]
        with pytest.raises(InvalidParameter, match="secret"):
            books.parse("fields=secret")

    def test_a_row_of_one_item(self) -> None:
        fields = FieldSelector(BookOut, default=("id",))
        assert fields.from_item(Book(7), fields.parse("")) == {"id": 7}
        assert fields.from_item(Book(7), fields.parse("fields=published")) == {
            "published": "in 2026"
        }

    @given(
        st.lists(
            st.tuples(st.one_of(st.none(), st.integers(0, 3)), st.integers(0, 2)), max_size=25
        ),
        st.lists(
            st.tuples(st.sampled_from(["grade", "title", "id"]), st.booleans()),
            unique_by=lambda each: each[0],
            max_size=3,
        ),
        st.sampled_from(["first", "last"]),
        st.integers(1, 7),
    )
    def test_a_walk_over_a_list_returns_the_whole_list_in_order(
        self, values: list[Any], sort: list[Any], nulls: Any, limit: int
    ) -> None:
        items = [Book(n, grade, f"t{title}") for n, (grade, title) in enumerate(values)]
        books = Paginator(
            BookOut,
            unique=("id",),
            sort=(SortKey("grade", nulls=nulls), "id", "bookTitle"),
            mode="cursor",
            secret=SECRET,
        )
        names = ["-" * down + name.replace("title", "bookTitle") for name, down in sort]
        query = f"limit={limit}" + (f"&sort={','.join(names)}" if names else "")
        pages = walk(books, items, query)
        assert [row for each in pages for row in each.data] == _total(items, sort, nulls)
        back = [pages[-1]]
        while (token := back[-1].prev_cursor) is not None:
            back.append(books.from_items(items, books.parse(f"{query}&cursor={token}")))
        assert [row for each in reversed(back) for row in each.data] == [
            row for each in pages for row in each.data
        ]

    @pytest.mark.parametrize("number", [float, Decimal])
    @pytest.mark.parametrize("sort", ["grade", "-grade", "grade,-id"])
    @pytest.mark.parametrize("limit", [1, 2, 3])
    def test_nan_is_the_greatest(self, number: Callable[[str], Any], sort: str, limit: int) -> None:
        """Python would leave the list unsorted, and a walk would not end."""
        texts = ["1", "nan", "0.5", "inf", "nan", "-inf", "2", "nan"]
        items: list[dict[str, Any]] = [{"id": n, "grade": number(t)} for n, t in enumerate(texts)]
        items.append({"id": len(texts), "grade": None})
        graded = Paginator(
            GradeOut, unique=("id",), sort=("grade", "id"), mode="cursor", secret=SECRET
        )
        order = {"grade": [5, 2, 0, 6, 3, 1, 4, 7, 8], "-grade": [7, 4, 1, 3, 6, 0, 2, 5, 8]}
        order["grade,-id"] = [5, 2, 0, 6, 3, 7, 4, 1, 8]
        pages = walk(graded, items, f"sort={sort}&limit={limit}")
        assert [row["id"] for page in pages for row in page.data] == order[sort]

    @pytest.mark.parametrize("sort", ["at", "-at"])
    @pytest.mark.parametrize("limit", [1, 2, 3])
    def test_instants_stay_in_order_when_clocks_are_set_back(self, sort: str, limit: int) -> None:
        """Summer time ends in Berlin at 1:00 UTC, and the clock goes from 3:00 back to 2:00."""
        start = datetime(2026, 10, 24, 23, tzinfo=UTC)
        times = [start + timedelta(minutes=30 * n) for n in range(10)]
        berlin = ZoneInfo("Europe/Berlin")
        ends = (
            datetime.min.replace(tzinfo=timezone(timedelta(hours=9))),
            datetime.max.replace(tzinfo=timezone(timedelta(hours=-9))),
        )
        times = [ends[0], *(time.astimezone(berlin) for time in times), ends[1]]
        items = [{"id": n, "at": time} for n, time in enumerate(times)]
        timed = Paginator(TimeOut, unique=("id",), sort=("at",), mode="cursor", secret=SECRET)
        pages = walk(timed, items[::-1], f"sort={sort}&limit={limit}")
        ids = [row["id"] for page in pages for row in page.data]
        assert ids == (list(range(12)) if sort == "at" else list(range(11, -1, -1)))

    def test_a_cursor_of_another_order_or_scope_is_refused(self) -> None:
        books = Paginator(BookOut, unique=("id",), sort=("grade",), mode="cursor", secret=SECRET)
        items = [Book(n) for n in range(5)]
        token = books.from_items(items, books.parse("limit=2"), scope="mine").next_cursor
        for query, scope in (
            (f"limit=2&sort=grade&cursor={token}", "mine"),
            (f"cursor={token}", 1),
        ):
            with pytest.raises(InvalidParameter) as caught:
                books.from_items(items, books.parse(query), scope=scope)
            assert caught.value.status == 400

    def test_values_that_cannot_be_compared_are_named(self) -> None:
        books = Paginator(BookOut, sort=("grade",))
        items = [Book(1, 1), Book(2, "two")]  # type: ignore[arg-type]
        with pytest.raises(InvalidOption, match="compared"):
            books.from_items(items, books.parse("sort=grade"))

    @pytest.mark.parametrize(
        ("options", "named"),
        [
            ({"mode": "cursor", "secret": SECRET}, "unique"),
            ({"unique": "id"}, "unique"),
            ({"unique": ("secret",)}, "unique"),
        ],
    )
    def test_cursors_need_unique_fields(self, options: dict[str, Any], named: str) -> None:
        with pytest.raises(InvalidOption) as caught:
            Paginator(BookOut, **options)
        assert caught.value.option == named

    async def test_a_paginator_without_a_model_rejects_selects(self) -> None:
        books = Paginator(BookOut)
        with pytest.raises(UsageError, match="it was created without model="):
            await books.page(None, None, books.parse(""))  # type: ignore[arg-type]

    def test_no_database_library_is_loaded(self) -> None:
        program = (
            "import sys\n"
            "from dataclasses import dataclass\n"
            "from hasten.pagination import Paginator\n"
            "@dataclass\n"
            "class Out: id: int\n"
            "p = Paginator(Out, unique=('id',), mode='cursor', secret='0f1e2d3c4b5a6978')\n"
            "assert p.from_items([{'id': 1}], p.parse('')).data == [{'id': 1}]\n"
            "print('sqlalchemy' in sys.modules)"
        )
        ran = subprocess.run(
            [sys.executable, "-c", program], check=True, capture_output=True, text=True
        )
        assert ran.stdout.strip() == "False"


def _total(items: list[Book], sort: list[Any], nulls: str) -> list[dict[str, Any]]:
    """Sort the rows with a key function, unlike hasten."""
    keys = [*sort]
    if "id" not in [name for name, _ in sort]:
        keys.append(("id", bool(sort) and sort[-1][1]))

    def rank(book: Book) -> list[Any]:
        ranks: list[Any] = []
        for name, down in keys:
            value: Any = getattr(book, name)
            number = 0 if value is None else int(str(value).lstrip("t"))
            ranks += [(value is None) == (nulls == "last"), -number if down else number]
        return ranks

    return [
        {
            "id": each.id,
            "grade": each.grade,
            "bookTitle": each.title,
            "published": "in 2026",
            "tags": [],
        }
        for each in sorted(items, key=rank)
    ]


class Letters:
    """A minimal source: it returns letters in order, and does not know how many there are."""

    def __init__(self, total: int | Count | None = None) -> None:
        self.asked: list[Window] = []
        self.caps: list[int | None] = []
        self._total = total

    async def fetch(self, window: Window, /) -> Sequence[object]:
        self.asked.append(window)
        letters = [{"id": n, "made": datetime(2026, 1, 1, tzinfo=UTC)} for n in range(26)]
        if window.order[-1].descending:
            letters.reverse()
        if window.after is not None:
            at = next(n for n, each in enumerate(letters) if (each["id"],) == window.after)
            letters = letters[at + 1 :]
        return letters[window.offset : window.offset + window.limit]

    async def count(self, cap: int | None, /) -> int | Count | None:
        self.caps.append(cap)
        return self._total


class LetterOut(BaseModel):
    id: int
    made: datetime


class TestSources:
    async def test_pages_with_numbers(self) -> None:
        letters = Paginator(LetterOut, unique=("id",))
        source = Letters(26)
        found = await letters.from_source(source, letters.parse("page=2&limit=10"))
        assert [row["id"] for row in found.data] == list(range(10, 20))
        assert (found.total, found.has_more) == (26, True)
        (window,) = source.asked
        assert (window.limit, window.offset, window.after) == (11, 10, None)

    async def test_pages_by_cursor_forwards_and_backwards(self) -> None:
        letters = Paginator(LetterOut, unique=("id",), mode="cursor", secret=SECRET)
        source = Letters()
        first = await letters.from_source(source, letters.parse("limit=20"))
        q = letters.parse(f"limit=20&cursor={first.next_cursor}")
        last = await letters.from_source(source, q)
        assert [row["id"] for row in last.data] == list(range(20, 26))
        assert (last.next_cursor, last.total, source.caps) == (None, None, [])
        q = letters.parse(f"limit=5&cursor={last.prev_cursor}")
        back = await letters.from_source(source, q)
        assert [row["id"] for row in back.data] == list(range(15, 20))
        assert source.asked[-1].order[-1].descending

    @pytest.mark.parametrize(
        ("total", "count", "expected"),
        [
            (None, "exact", Count(None)),
            (26, "exact", Count(26)),
            (26, Capped(25), Count(25, "gte")),
            (Count(30, "estimate"), "exact", Count(30, "estimate")),
            (26, "none", Count(None)),
            (3, "exact", Count(11)),
        ],
    )
    async def test_totals_of_sources(self, total: Any, count: Any, expected: Count) -> None:
        letters = Paginator(LetterOut, unique=("id",), count=count)
        found = await letters.from_source(Letters(total), letters.parse("limit=10"))
        assert isinstance(found, Page)
        assert found.count == expected
