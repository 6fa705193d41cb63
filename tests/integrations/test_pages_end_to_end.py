"""From the query of a URL to status and JSON, through FastAPI.

What depends on values of the database is tried with every driver, all else with one.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from typing import Any, Final

import pytest
from sqlalchemy import delete, event, insert, select, update

from hasten.errors import InvalidOption
from hasten.pagination._sql import offset_select
from tests.integrations.pages import DRIVERS, NOTES, Application, Note, rows

# Which index an order has is not what this is about.
pytestmark = pytest.mark.filterwarnings("ignore::hasten.errors.PaginationWarning")

NEW: Final = next(rows())
ONE_DRIVER: Final = pytest.mark.parametrize("api", ["aiosqlite"], indirect=True)


@pytest.fixture(params=DRIVERS)
def api(request: pytest.FixtureRequest) -> Iterator[Application]:
    made = Application(request.param)
    made.fill()
    with made.logging():
        yield made


def ids(answer: Any) -> list[int]:
    return [row["id"] for row in answer["data"]]


def all_ids(pages: list[Any]) -> list[int]:
    return [id for page in pages for id in ids(page)]


def padded(token: str) -> bytes:
    return urlsafe_b64decode(token + "=" * (-len(token) % 4))


def unpadded(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


class TestNumbers:
    async def test_the_highest_offset_is_used_a_higher_one_refused(self, api: Application) -> None:
        assert (await api.refused("/some?page=92233720368547759&limit=100"))["loc"][1] == "page"
        assert (await api.json("/some?page=92233720368547757&limit=100"))["data"] == []

    @ONE_DRIVER
    async def test_an_empty_table_has_an_empty_page(self, api: Application) -> None:
        api.write(delete(Note))
        answer = await api.json("/notes")
        assert answer == {"data": [], "pagination": {"page": 1, "limit": 20, "total": 0}}
        answer = await api.json("/walk")
        assert (answer["data"], answer["pagination"]["has_more"]) == ([], False)

    @ONE_DRIVER
    async def test_writes_move_the_pages_by_number(self, api: Application) -> None:
        """Pages by number count from the start, so rows that are added there move all pages."""
        first = await api.json("/notes?limit=10&sort=-id")
        api.write(insert(Note).values(NEW | {"id": 99}))
        assert ids(await api.json("/notes?limit=10&sort=-id&page=2"))[0] == ids(first)[-1]
        api.write(delete(Note).where(Note.id.in_([NOTES - 1, NOTES])))
        assert ids(await api.json("/notes?limit=10&sort=-id&page=2"))[0] == ids(first)[-1] - 2

    @pytest.mark.parametrize("deep", [False, True])
    @pytest.mark.parametrize("page", [1, 2, 3])
    async def test_a_total_never_contradicts_the_page_if_rows_go_in_between(
        self, api: Application, deep: bool, page: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With one statement it cannot. With two, the page corrects the count."""
        if deep:
            monkeypatch.setattr(offset_select, "DEFER_FROM", 0)
        seen = 0

        def between(*args: Any) -> None:
            nonlocal seen
            seen += 1
            if seen == 2:
                api.write(delete(Note).where(Note.id > 15))

        event.listen(api.engine.sync_engine, "before_cursor_execute", between)
        try:
            answer = await api.json(f"/notes?limit=20&page={page}")
        finally:
            event.remove(api.engine.sync_engine, "before_cursor_execute", between)
        total, found = answer["pagination"]["total"], len(answer["data"])
        assert total >= (page - 1) * 20 + found or not found
        assert 0 <= total <= NOTES
        if seen == 1:
            assert (total, found) == (NOTES, max(0, min(20, NOTES - (page - 1) * 20)))


class TestOrders:
    @ONE_DRIVER
    async def test_rows_without_a_key_raise_before_any_statement(self, api: Application) -> None:
        with pytest.raises(InvalidOption, match="select of Note"):
            await api.get("/grouped")
        assert api.statements == []

    @ONE_DRIVER
    async def test_sort_takes_public_names_and_hides_the_others(self, api: Application) -> None:
        answer = await api.json("/notes?sort=title,-madeAt&limit=100")
        assert ids(answer) == sorted(range(1, NOTES + 1), key=lambda id: (id % 3, -id))
        unknown = await api.refused("/notes?sort=nothing")
        secret = await api.refused("/notes?sort=password_hash")
        assert unknown["msg"].replace("nothing", "X") == secret["msg"].replace("password_hash", "X")


class TestCursors:
    @ONE_DRIVER
    @pytest.mark.parametrize(("moved", "times"), [(3, 2), (NOTES, 0), (20, 1)])
    async def test_a_row_whose_key_changes_is_seen_once_twice_or_never(
        self, api: Application, moved: int, times: int
    ) -> None:
        """Its new place decides. All other rows are seen once."""
        path = "/walk?limit=10&sort=ratio"
        first = await api.json(path)
        to = {3: 100.0, NOTES: -1.0, 20: 50.0}[moved]
        api.write(update(Note).where(Note.id == moved).values(ratio=to))
        seen = ids(first) + all_ids(await api.walk(path, cursor_of(first)))
        assert seen.count(moved) == times
        assert [id for id in seen if id != moved] == [
            id for id in range(1, NOTES + 1) if id != moved
        ]

    @pytest.mark.parametrize("sort", ["id", "-rank,title", "ratio"])
    async def test_both_ways_return_every_row_once(self, api: Application, sort: str) -> None:
        path = f"/walk?limit=7&sort={sort}"
        there = await api.walk(path)
        assert all_ids(there) == ids(await api.json(f"/notes?limit=100&sort={sort}"))
        back = await api.walk(path, there[-1]["pagination"]["prev_cursor"], "prev_cursor")
        assert [page["data"] for page in back] == [page["data"] for page in there[-2::-1]]

    @ONE_DRIVER
    async def test_a_cursor_contains_no_hidden_value(self, api: Application) -> None:
        await api.refused("/walk?sort=password_hash")
        for page in await api.walk("/walk?limit=9&sort=title"):
            for key in ("next_cursor", "prev_cursor"):
                assert b"hidden" not in padded(page["pagination"][key] or "")

    async def test_a_walk_sorts_infinities_and_nan_as_the_database(self, api: Application) -> None:
        """SQLite stores NaN as NULL."""
        api.write(delete(Note).where(Note.id > 12))
        values = {1: "nan", 2: "inf", 3: "-inf", 4: "nan", 5: "inf", 6: "-inf"}
        for id, value in values.items():
            api.write(update(Note).where(Note.id == id).values(ratio=float(value)))
        for sort in ("ratio", "-ratio"):
            term = Note.ratio.desc() if sort[0] == "-" else Note.ratio.asc()
            last = Note.id.desc() if sort[0] == "-" else Note.id.asc()
            wanted = api.read(select(Note.id).order_by(term.nulls_last(), last))
            pages = await api.walk(f"/walk?limit=1&sort={sort}&fields=id")
            assert all_ids(pages) == [row.id for row in wanted]
            back = await api.walk(
                f"/walk?limit=1&sort={sort}&fields=id", pages[-1]["pagination"]["prev_cursor"],
                "prev_cursor",
            )  # fmt: skip
            assert [ids(page) for page in back] == [ids(page) for page in pages[-2::-1]]

    async def test_a_walk_keeps_the_collation_of_the_database(self, api: Application) -> None:
        """Python does not know the collation."""
        titles = ["b", "B", "a", "A", "é", "e", "Z", "z", "_", "", "10", "9", "ß", "ss", "Ä", "ä"]
        for id, title in enumerate(titles, 1):
            api.write(update(Note).where(Note.id == id).values(title=title))
        api.write(delete(Note).where(Note.id > len(titles)))
        wanted = [row.id for row in api.read(select(Note.id).order_by(Note.title, Note.id))]
        assert all_ids(await api.walk("/walk?limit=2&sort=title")) == wanted
        assert all_ids(await api.walk("/walk?limit=2&sort=-title")) == wanted[::-1]


class TestFields:
    @ONE_DRIVER
    async def test_unknown_fields_are_refused_with_the_allowed_ones(self, api: Application) -> None:
        error = await api.refused("/notes/1?fields=id,bogus,title,owner(fake)")
        assert "bogus" in error["msg"]
        assert "owner.fake" in error["msg"]
        assert "madeAt" in error["msg"]

    @ONE_DRIVER
    async def test_a_hidden_field_is_refused_like_an_unknown_one(self, api: Application) -> None:
        hidden = await api.get("/notes/1?fields=password_hash")
        unknown = await api.get("/notes/1?fields=password_hush")
        assert (hidden.status_code, api.statements) == (422, [])
        assert hidden.text.replace("password_hash", "password_hush") == unknown.text

    @ONE_DRIVER
    async def test_a_field_a_role_lacks_is_refused_like_an_unknown(self, api: Application) -> None:
        lacking = await api.refused("/read/1?fields=size")
        unknown = await api.refused("/read/1?fields=bogus")
        assert lacking["msg"].replace("size", "bogus") == unknown["msg"]
        answer = await api.get("/read/1?fields=size", headers={"role": "editor"})
        assert answer.json() == {"size": 2**53 + 1}
        await api.refused("/read/1?fields=owner.email")


class TestHttp:
    @ONE_DRIVER
    async def test_links_keep_the_query_and_ignore_the_host(self, api: Application) -> None:
        answer = await api.get("/notes?limit=10&page=2&sort=-id", headers={"host": "evil.example"})
        link = answer.headers["link"]
        assert [part.partition("; ")[2] for part in link.split(", ")] == [
            'rel="first"', 'rel="prev"', 'rel="next"', 'rel="last"',
        ]  # fmt: skip
        assert "evil" not in link
        assert '<?limit=10&sort=-id&page=3>; rel="next"' in link
        assert 'page=4>; rel="last"' in link
        following = link.partition("<")[2].partition(">")[0]
        assert (await api.get(f"/notes{following}", root_path="/deep")).status_code == 200

    @ONE_DRIVER
    async def test_no_cache_control_is_sent(self, api: Application) -> None:
        assert "cache-control" not in (await api.get("/notes")).headers

    @ONE_DRIVER
    async def test_a_large_integer_is_sent_exactly(self, api: Application) -> None:
        """As digits. Clients that read numbers as floats need strings."""
        answer = await api.get("/notes/1?fields=size")
        assert answer.content == b'{"size":9007199254740993}'


def cursor_of(answer: Any) -> str:
    token = answer["pagination"]["next_cursor"]
    assert isinstance(token, str)
    return token
