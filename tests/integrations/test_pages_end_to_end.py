"""From the query of a URL to status and JSON, on every driver, one rule a test."""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

import pytest
from sqlalchemy import delete, event, insert, select, update

from hasten.errors import InvalidOption
from hasten.pagination.cursor import Cursor, Keys
from hasten.pagination.sql import paging
from tests.integrations.pages import (
    DRIVERS,
    NOTES,
    SECRET,
    SELECTS,
    Application,
    Note,
    rows,
)

# Which index an order has is not what this is about.
pytestmark = pytest.mark.filterwarnings("ignore::hasten.errors.PaginationWarning")

NEW: Final = next(rows())


@pytest.fixture(params=DRIVERS)
def api(request: pytest.FixtureRequest) -> Iterator[Application]:
    made = Application(request.param)
    made.fill()
    with made.logging():
        yield made


@pytest.fixture
def before_sql() -> Iterator[Application]:
    """For what is refused before any driver is asked: on one of them."""
    made = Application("aiosqlite")
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
    async def test_1_nothing_is_page_1_of_20(self, api: Application) -> None:
        answer = await api.json("/notes")
        assert ids(answer) == list(range(1, 21))
        assert answer["pagination"] == {"page": 1, "limit": 20, "total": NOTES}
        assert list(answer) == ["data", "pagination"]

    @pytest.mark.parametrize("number", ["0", "-1"])
    async def test_2_below_one(self, before_sql: Application, number: str) -> None:
        error = await before_sql.refused(f"/notes?page={number}")
        assert error["loc"] == ["query", "page"]
        assert "from 1" in error["msg"]

    @pytest.mark.parametrize("number", ["abc", "1.5", "1e3", ""])
    async def test_3_no_whole_number(self, before_sql: Application, number: str) -> None:
        assert (await before_sql.refused(f"/notes?page={number}"))["type"] == "not_a_number"

    @pytest.mark.parametrize("number", ["1_0", "%201", "%2B1", "+1"])
    async def test_4_what_python_would_read_as_a_number(
        self, before_sql: Application, number: str
    ) -> None:
        assert (await before_sql.refused(f"/notes?page={number}"))["type"] == "not_a_number"

    @pytest.mark.parametrize("number", ["\u0661", "\uff11"])
    async def test_5_digits_of_other_scripts(self, before_sql: Application, number: str) -> None:
        assert (await before_sql.refused(f"/notes?page={quote(number)}"))["type"] == "not_a_number"

    async def test_6_a_page_beyond_int64(self, before_sql: Application) -> None:
        error = await before_sql.refused("/walk?limit=99999999999999999999999")
        assert error["loc"] == ["query", "limit"]
        assert (await before_sql.refused("/some?page=99999999999999999999999"))[
            "type"
        ] == "out_of_range"

    async def test_7_an_offset_beyond_int64_by_multiplication(self, api: Application) -> None:
        assert (await api.refused("/some?page=92233720368547759&limit=100"))["loc"][1] == "page"
        assert (await api.json("/some?page=92233720368547757&limit=100"))["data"] == []

    async def test_8_past_the_end(self, api: Application) -> None:
        answer = await api.json("/notes?page=9")
        assert answer == {"data": [], "pagination": {"page": 9, "limit": 20, "total": NOTES}}

    async def test_9_past_the_end_the_page_is_not_read(self, api: Application) -> None:
        before = len(api.statements)
        await api.json("/notes?page=50&limit=100")
        asked = api.statements[before:]
        assert len(asked) == 1
        assert "count(" in asked[0]

    async def test_10_an_offset_over_the_maximum(self, api: Application) -> None:
        error = await api.refused("/notes?page=502")
        assert "501" in error["msg"]
        assert (await api.json("/notes?page=501"))["data"] == []

    @pytest.mark.parametrize("limit", ["0", "-5", "abc"])
    async def test_11_a_limit_that_is_none(self, before_sql: Application, limit: str) -> None:
        assert (await before_sql.refused(f"/notes?limit={limit}"))["loc"] == ["query", "limit"]

    async def test_12_a_limit_over_the_maximum_by_number(self, before_sql: Application) -> None:
        assert "100" in (await before_sql.refused("/notes?limit=101"))["msg"]

    async def test_13_a_limit_over_the_maximum_by_cursor(self, before_sql: Application) -> None:
        assert "100" in (await before_sql.refused("/walk?limit=101"))["msg"]

    async def test_14_a_limit_of_the_maximum(self, api: Application) -> None:
        assert len((await api.json("/notes?limit=100"))["data"]) == NOTES

    @pytest.mark.parametrize("query", ["page=1&page=2", "limit=5&limit=5", "sort=id&sort=id"])
    async def test_15_twice(self, before_sql: Application, query: str) -> None:
        assert (await before_sql.refused(f"/notes?{query}"))["type"] == "duplicate"

    async def test_16_page_and_cursor(self, api: Application) -> None:
        token = (await api.json("/both?cursor=&limit=5"))["pagination"]["next_cursor"]
        assert (await api.refused(f"/both?page=1&cursor={token}"))["type"] == "conflict"

    async def test_17_an_exact_multiple(self, api: Application) -> None:
        answer = await api.get("/notes?page=2&limit=20")
        assert len(answer.json()["data"]) == 20
        assert 'rel="next"' not in answer.headers["link"]
        last = (await api.walk("/walk?limit=20"))[-1]
        assert (len(last["data"]), last["pagination"]["has_more"]) == (20, False)

    async def test_18_an_empty_table(self, api: Application) -> None:
        api.write(delete(Note))
        answer = await api.json("/notes")
        assert answer == {"data": [], "pagination": {"page": 1, "limit": 20, "total": 0}}
        answer = await api.json("/walk")
        assert (answer["data"], answer["pagination"]["has_more"]) == ([], False)

    async def test_19_by_number_rows_may_repeat_or_be_skipped(self, api: Application) -> None:
        """Numbers count rows from the start, so what is written there moves all pages."""
        first = await api.json("/notes?limit=10&sort=-id")
        api.write(insert(Note).values(NEW | {"id": 99}))
        assert ids(await api.json("/notes?limit=10&sort=-id&page=2"))[0] == ids(first)[-1]
        api.write(delete(Note).where(Note.id.in_([NOTES - 1, NOTES])))
        assert ids(await api.json("/notes?limit=10&sort=-id&page=2"))[0] == ids(first)[-1] - 2

    async def test_19_by_cursor_they_may_not(self, api: Application) -> None:
        first = await api.json("/walk?limit=10&sort=-id")
        api.write(insert(Note).values(NEW | {"id": 99}), delete(Note).where(Note.id > NOTES - 2))
        rest = await api.walk("/walk?limit=10&sort=-id", first["pagination"]["next_cursor"])
        assert ids(first) + all_ids(rest) == list(range(NOTES, 0, -1))

    @pytest.mark.parametrize("deep", [False, True])
    @pytest.mark.parametrize("page", [1, 2, 3])
    async def test_20_rows_that_go_between_count_and_page(
        self, api: Application, deep: bool, page: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In one statement there is no between; in two, what is on the page corrects the count."""
        if deep:
            monkeypatch.setattr(paging, "DEFER_FROM", 0)
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

    async def test_22_other_parameters_are_kept_in_links(self, api: Application) -> None:
        link = (await api.get("/notes?x=a%26b&limit=5&y=%C3%A9")).headers["link"]
        assert '<?x=a%26b&limit=5&y=%C3%A9&page=2>; rel="next"' in link


class TestOrders:
    async def test_23_without_one_it_is_the_primary_key(self, api: Application) -> None:
        assert ids(await api.json("/notes?limit=3&page=2")) == [4, 5, 6]

    @pytest.mark.parametrize("sign", ["", "-"])
    async def test_24_ties_go_in_the_direction_of_the_last_key(
        self, api: Application, sign: str
    ) -> None:
        last = -1 if sign else 1
        wanted = sorted(range(1, NOTES + 1), key=lambda id: (last * (id % 3), last * id))
        assert ids(await api.json(f"/notes?limit=100&sort={sign}title")) == wanted
        assert all_ids(await api.walk(f"/walk?limit=7&sort={sign}title")) == wanted

    async def test_25_a_unique_key_at_the_end_needs_nothing_more(self, api: Application) -> None:
        before = len(api.statements)
        answer = await api.json("/walk?sort=title,-id&limit=100")
        assert ids(answer) == sorted(range(1, NOTES + 1), key=lambda id: (id % 3, -id))
        (statement,) = api.statements[before:]
        assert "ORDER BY e_notes.title ASC, e_notes.id DESC" in " ".join(statement.split())
        assert statement.partition("ORDER BY")[2].count("e_notes.id") == 1

    async def test_26_rows_without_a_key_are_an_error_of_the_programmer(
        self, api: Application
    ) -> None:
        with pytest.raises(InvalidOption, match="select of Note"):
            await api.get("/grouped")
        assert api.statements == []

    async def test_27_a_join_to_many_is_paged_and_counted_once(self, api: Application) -> None:
        answer = await api.json("/joined?limit=2")
        assert (ids(answer), answer["pagination"]["total"]) == ([1, 2], 3)
        assert ids(await api.json("/joined?limit=2&page=2")) == [3]

    async def test_28_a_limit_is_one_of_parents(self, api: Application) -> None:
        answer = await api.json("/eager?limit=3")
        assert (ids(answer), answer["pagination"]["total"]) == ([1, 2, 3], 4)

    @pytest.mark.parametrize("kind", SELECTS)
    async def test_29_the_total_is_what_a_full_read_returns(
        self, api: Application, kind: str
    ) -> None:
        full = api.read(SELECTS[kind])
        pages = [await api.json(f"/selects/{kind}?limit=9&page={n}") for n in range(1, 6)]
        assert sorted(all_ids(pages)) == sorted(row.id for row in full)
        assert {page["pagination"]["total"] for page in pages} == {len(full)}

    async def test_30_what_does_not_matter_is_not_counted_with(self, api: Application) -> None:
        """Neither ORDER BY nor what entities would load; a join that is not sure to is kept."""
        await api.json("/eager?limit=1&page=50&sort=-id")
        counted = api.statements[-1]
        count = counted[counted.lower().index("count(") :].partition("WHERE")[0]
        assert "ORDER BY" not in count.partition("FROM")[2].partition(")")[0]
        assert "title" not in counted

    async def test_31_a_capped_total(self, api: Application) -> None:
        answer = await api.get("/some?limit=5")
        assert answer.json()["pagination"] == {
            "page": 1, "limit": 5, "total": 10, "total_relation": "gte",
        }  # fmt: skip
        assert 'rel="last"' not in answer.headers["link"]
        api.write(delete(Note).where(Note.id > 10))
        assert (await api.json("/some?limit=5"))["pagination"] == {
            "page": 1, "limit": 5, "total": 10,
        }  # fmt: skip

    async def test_32_an_estimate_never_denies_what_was_seen(self, api: Application) -> None:
        answer = await api.json("/guessed?limit=15&page=2")
        assert len(answer["data"]) == 15
        assert answer["pagination"]["total"] >= 31
        assert (await api.json("/guessed?limit=15&page=3"))["pagination"]["total"] == NOTES

    async def test_33_names_and_directions(self, api: Application) -> None:
        answer = await api.json("/notes?sort=title,-madeAt&limit=100")
        assert ids(answer) == sorted(range(1, NOTES + 1), key=lambda id: (id % 3, -id))
        unknown = await api.refused("/notes?sort=nothing")
        secret = await api.refused("/notes?sort=password_hash")
        assert unknown["msg"].replace("nothing", "X") == secret["msg"].replace("password_hash", "X")

    @pytest.mark.parametrize("name", ["owner", "metadata", "__table__", "owner.email", "made"])
    async def test_34_no_attribute_of_the_class_is_a_name(
        self, before_sql: Application, name: str
    ) -> None:
        assert (await before_sql.refused(f"/notes?sort={name}"))["type"] == "unknown_name"

    @pytest.mark.parametrize(
        "text", ["id desc", "id asc,(case when 1=1 then 1 end)", "id;--", "id'", "--id", "%2Bid"]
    )
    async def test_35_a_direction_is_no_text(self, before_sql: Application, text: str) -> None:
        assert (await before_sql.refused(f"/notes?sort={quote(text)}"))["loc"] == ["query", "sort"]

    @pytest.mark.parametrize("text", ["id,id", "id,-id", "title,id,title"])
    async def test_36_a_key_named_twice(self, before_sql: Application, text: str) -> None:
        assert (await before_sql.refused(f"/notes?sort={text}"))["type"] == "duplicate"


class TestCursors:
    @pytest.mark.parametrize("sort", ["title", "-title", "title,-rank"])
    async def test_37_ties_across_borders(self, api: Application, sort: str) -> None:
        pages = await api.walk(f"/walk?limit=3&sort={sort}")
        assert sorted(all_ids(pages)) == list(range(1, NOTES + 1))

    @pytest.mark.parametrize("sort", ["rank", "-rank", "title,rank", "-rank,title"])
    async def test_38_rows_without_a_value(self, api: Application, sort: str) -> None:
        pages = await api.walk(f"/walk?limit=3&sort={sort}")
        assert all_ids(pages) == ids(await api.json(f"/notes?limit=100&sort={sort}"))
        assert len(all_ids(pages)) == NOTES

    async def test_39_inserts_before_and_behind(self, api: Application) -> None:
        first = await api.json("/walk?limit=10&sort=title")
        api.write(insert(Note).values([NEW | {"id": 98, "title": ""}, NEW | {"id": 99}]))
        rest = all_ids(await api.walk("/walk?limit=10&sort=title", cursor_of(first)))
        assert 99 in rest
        assert 98 not in rest
        assert sorted({*ids(first), *rest} - {99}) == list(range(1, NOTES + 1))
        assert len(rest) == NOTES - 10 + 1

    async def test_40_the_row_at_the_position_is_gone(self, api: Application) -> None:
        first = await api.json("/walk?limit=10&sort=rank")
        api.write(delete(Note).where(Note.id == ids(first)[-1]))
        rest = all_ids(await api.walk("/walk?limit=10&sort=rank", cursor_of(first)))
        assert sorted(ids(first) + rest) == list(range(1, NOTES + 1))

    @pytest.mark.parametrize(("moved", "times"), [(3, 2), (NOTES, 0), (20, 1)])
    async def test_41_a_row_whose_key_changes_is_seen_once_twice_or_never(
        self, api: Application, moved: int, times: int
    ) -> None:
        """Where it goes decides. All others are seen once."""
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
    async def test_42_forward_then_back(self, api: Application, sort: str) -> None:
        path = f"/walk?limit=7&sort={sort}"
        there = await api.walk(path)
        back = await api.walk(path, there[-1]["pagination"]["prev_cursor"], "prev_cursor")
        assert [page["data"] for page in back] == [page["data"] for page in there[-2::-1]]

    async def test_43_the_ends(self, api: Application) -> None:
        first = await api.get("/walk?limit=30")
        assert first.json()["pagination"]["prev_cursor"] is None
        assert 'rel="prev"' not in first.headers["link"]
        last = await api.get(f"/walk?limit=30&cursor={cursor_of(first.json())}")
        assert last.json()["pagination"]["next_cursor"] is None
        assert 'rel="next"' not in last.headers["link"]
        back = await api.get(f"/walk?limit=30&cursor={last.json()['pagination']['prev_cursor']}")
        assert back.json()["pagination"]["prev_cursor"] is None

    @pytest.mark.parametrize("token", ["%25", "junk", "a===", unpadded(b"\x00" * 50), "%F0%9F%98"])
    async def test_44_junk(self, before_sql: Application, token: str) -> None:
        assert (await before_sql.refused(f"/walk?cursor={token}", 400))["type"] == "invalid_cursor"

    async def test_45_changed_cut_and_continued(self, api: Application) -> None:
        token = cursor_of(await api.json("/walk?limit=5"))
        for other in (token[:-1], token + "A", "A" + token, token[:20] + "!" + token[21:]):
            await api.refused(f"/walk?limit=5&cursor={quote(other)}", 400)
        raw = padded(token)
        for place in range(0, len(raw), 5):
            changed = raw[:place] + bytes((raw[place] ^ 1,)) + raw[place + 1 :]
            await api.refused(f"/walk?limit=5&cursor={unpadded(changed)}", 400)

    async def test_46_a_forged_type_is_400(self, api: Application) -> None:
        """Text where there was a number, by one who knows the format and not the secret."""
        for value in ("foo", 1.5, datetime(2026, 1, 1), b"\1", True):  # noqa: DTZ001
            await api.refused(f"/walk?cursor={forged(await a_token(api), value)}", 400)

    async def test_47_a_forged_value_is_400(self, api: Application) -> None:
        for values in ((10**26,), ("a\0b",), ("2026-99-99",), (), (1, 2, 3), (None,)):
            await api.refused(f"/walk?cursor={forged(await a_token(api), *values)}", 400)

    @pytest.mark.parametrize("sort", ["-rank", "rank,id", "rank,-id", "title", ""])
    async def test_48_of_another_sort(self, api: Application, sort: str) -> None:
        token = cursor_of(await api.json("/walk?limit=5&sort=rank"))
        query = f"sort={sort}&" if sort else ""
        error = await api.refused(f"/walk?{query}limit=5&cursor={token}", 400)
        assert error["type"] == "cursor_mismatch"
        assert "sort" in error["msg"]

    @pytest.mark.parametrize(
        "query", ["title=t1&tenant=a", "tenant=a", "title=t2", "title=t2&tenant=b"]
    )
    async def test_49_of_another_filter_or_tenant(self, api: Application, query: str) -> None:
        token = cursor_of(await api.json("/walk?limit=5&title=t2&tenant=a"))
        assert await api.json(f"/walk?limit=5&title=t2&tenant=a&cursor={token}")
        await api.refused(f"/walk?limit=5&{query}&cursor={token}", 400)

    async def test_50_another_limit(self, api: Application) -> None:
        token = cursor_of(await api.json("/walk?limit=5"))
        assert ids(await api.json(f"/walk?limit=8&cursor={token}")) == list(range(6, 14))

    async def test_51_other_fields(self, api: Application) -> None:
        token = cursor_of(await api.json("/walk?limit=5&sort=id&fields=id"))
        answer = await api.json(f"/walk?limit=2&sort=id&fields=size&cursor={token}")
        assert answer["data"] == [{"size": 2**53 + 6}, {"size": 2**53 + 7}]

    @pytest.mark.parametrize("version", [0, 2, 255])
    async def test_52_of_another_version(self, api: Application, version: int) -> None:
        """As an older hasten would have signed it."""
        raw = padded(await a_token(api))
        body = bytes((version,)) + raw[1:-16]
        mac = hmac.digest(SECRET.encode(), b"hasten.pagination.cursor\0" + body, hashlib.sha256)
        error = await api.refused(f"/walk?cursor={unpadded(body + mac[:16])}", 400)
        assert error["type"] == "cursor_expired"
        assert "start from the first page" in error["msg"]

    async def test_54_over_two_kilobytes(self, before_sql: Application) -> None:
        error = await before_sql.refused(f"/walk?cursor={'A' * 2049}", 400)
        assert "2048" in error["msg"]

    async def test_55_of_a_secret_nothing_is_in_a_token(self, api: Application) -> None:
        await api.refused("/walk?sort=password_hash")
        for page in await api.walk("/walk?limit=9&sort=title"):
            for key in ("next_cursor", "prev_cursor"):
                assert b"hidden" not in padded(page["pagination"][key] or "")

    async def test_56_microseconds_and_fractions(self, api: Application) -> None:
        for sort in ("madeAt", "-madeAt", "ratio", "-ratio"):
            seen = all_ids(await api.walk(f"/walk?limit=3&sort={sort}"))
            assert seen == sorted(range(1, NOTES + 1), reverse=sort[0] == "-")

    async def test_57_infinities_and_no_numbers_are_where_the_database_puts_them(
        self, api: Application
    ) -> None:
        """SQLite keeps no NaN: it writes NULL."""
        values = {1: "nan", 2: "inf", 3: "-inf", 4: "nan", 5: "inf", 6: "-inf"}
        api.write(delete(Note).where(Note.id > 10))
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

    async def test_58_an_empty_one_is_the_first_page(self, api: Application) -> None:
        assert await api.json("/walk?cursor=&limit=5") == await api.json("/walk?limit=5")

    async def test_59_text_is_compared_by_the_database_alone(self, api: Application) -> None:
        """In its collation, of which Python knows nothing."""
        titles = ["b", "B", "a", "A", "é", "e", "Z", "z", "_", "", "10", "9", "ß", "ss", "Ä", "ä"]
        for id, title in enumerate(titles, 1):
            api.write(update(Note).where(Note.id == id).values(title=title))
        wanted = [row.id for row in api.read(select(Note.id).order_by(Note.title, Note.id))]
        assert all_ids(await api.walk("/walk?limit=2&sort=title")) == wanted
        assert all_ids(await api.walk("/walk?limit=2&sort=-title")) == wanted[::-1]


class TestFields:
    async def test_61_absent(self, api: Application) -> None:
        assert await api.json("/notes/1") == {"id": 1, "title": "t1"}

    @pytest.mark.parametrize("text", ["", "id,,title", "id,", ",", "owner()", "owner(id,)"])
    async def test_62_an_empty_name(self, before_sql: Application, text: str) -> None:
        error = await before_sql.refused(f"/notes/1?fields={quote(text)}")
        assert "empty" in error["msg"]

    async def test_63_unknown_names(self, before_sql: Application) -> None:
        error = await before_sql.refused("/notes/1?fields=id,bogus,title,owner(fake)")
        assert "bogus" in error["msg"]
        assert "owner.fake" in error["msg"]
        assert "madeAt" in error["msg"]

    async def test_64_a_hidden_name_is_as_unknown(self, api: Application) -> None:
        hidden = await api.get("/notes/1?fields=password_hash")
        unknown = await api.get("/notes/1?fields=password_hush")
        assert (hidden.status_code, api.statements) == (422, [])
        assert hidden.text.replace("password_hash", "password_hush") == unknown.text

    async def test_65_duplicates_and_spaces(self, api: Application) -> None:
        assert await api.json("/notes/1?fields=id,%20id%20,id+") == {"id": 1}

    async def test_66_two_parameters_are_their_union(self, api: Application) -> None:
        both = await api.json("/notes/1?fields=title&fields=id")
        assert both == await api.json("/notes/1?fields=id,title")

    async def test_67_the_order_of_names_is_nothing(self, api: Application) -> None:
        one = await api.get("/notes/1?fields=size,title,id")
        other = await api.get("/notes/1?fields=id,size,title")
        assert one.content == other.content
        assert list(one.json()) == ["id", "title", "size"]

    async def test_68_a_star(self, before_sql: Application) -> None:
        await before_sql.refused("/notes/1?fields=*")
        await before_sql.refused("/notes/1?fields=owner(*)")

    async def test_69_a_relation_alone(self, api: Application) -> None:
        answer = await api.json("/notes/1?fields=owner")
        assert answer == {"owner": {"id": 1, "email": "1@example.org"}}

    async def test_70_two_notations(self, api: Application) -> None:
        one = await api.json("/notes/1?fields=id,owner(email)")
        assert len(api.statements) == 1
        assert one == await api.json("/notes/1?fields=id,owner.email")

    @pytest.mark.parametrize("text", ["owner(password_hash)", "team", "owner.password_hash"])
    async def test_71_within_a_relation(self, before_sql: Application, text: str) -> None:
        assert (await before_sql.refused(f"/notes/1?fields={text}"))["type"] == "unknown_name"

    async def test_72_of_a_plain_value(self, before_sql: Application) -> None:
        await before_sql.refused("/notes/1?fields=title(first)")
        await before_sql.refused("/notes/1?fields=title.first")

    async def test_73_too_deep(self, api: Application) -> None:
        assert await api.json("/notes/1?fields=owner(notes(id))")
        await api.refused("/notes/1?fields=owner(notes(owner(id)))")

    @pytest.mark.parametrize(
        "text",
        [
            "(" * 900,
            ")" * 900,
            "owner(" * 300,
            "owner(id",
            "id)",
            ",".join(["id"] * 101),
            "x" * 2049,
        ],
    )  # fmt: skip
    async def test_74_too_much_or_not_balanced(self, before_sql: Application, text: str) -> None:
        await before_sql.refused(f"/notes/1?fields={text}")

    @pytest.mark.parametrize(
        "text",
        ["id;drop table e_notes", "'", '"', "id--", "id\0", "__class__", "_sa_instance_state",
         "metadata", "registry"],
    )  # fmt: skip
    async def test_75_names_are_no_text_of_sql(self, before_sql: Application, text: str) -> None:
        await before_sql.refused(f"/notes/1?fields={quote(text)}")

    async def test_76_the_public_name(self, api: Application) -> None:
        answer = await api.json("/notes/1?fields=madeAt")
        assert answer == {"madeAt": "2026-01-01T00:00:00.000001"}
        await api.refused("/notes/1?fields=made")
        await api.refused("/notes/1?fields=MADEAT")

    async def test_78_keys_that_were_not_asked_for_are_not_shown(self, api: Application) -> None:
        for page in await api.walk("/walk?limit=9&sort=rank,-title&fields=size,owner(email)"):
            assert all(list(row) == ["size", "owner"] for row in page["data"])

    async def test_79_null_and_absent(self, api: Application) -> None:
        assert await api.json("/notes/5?fields=rank") == {"rank": None}
        assert await api.json("/notes/4?fields=id,owner") == {"id": 4, "owner": None}

    async def test_80_what_a_role_lacks_is_unknown(self, api: Application) -> None:
        lacking = await api.refused("/read/1?fields=size")
        unknown = await api.refused("/read/1?fields=bogus")
        assert lacking["msg"].replace("size", "bogus") == unknown["msg"]
        answer = await api.get("/read/1?fields=size", headers={"role": "editor"})
        assert answer.json() == {"size": 2**53 + 1}
        await api.refused("/read/1?fields=owner.email")

    async def test_81_fields_change_no_rows(self, api: Application) -> None:
        totals = [
            (await api.json(f"/notes?limit=100&fields={text}"))["pagination"]["total"]
            for text in ("id", "owner(id)", "owner.email", "title,rank,size")
        ]
        assert totals == [NOTES] * 4

    async def test_82_a_missing_row(self, api: Application) -> None:
        assert (await api.get("/notes/999?fields=id")).status_code == 404
        await api.refused("/notes/999?fields=bogus")

    async def test_83_a_relation_to_many_is_capped(self, api: Application) -> None:
        answer = await api.json("/owners/1?fields=notes(id)")
        assert answer == {"notes": [{"id": 1}, {"id": 5}, {"id": 9}], "notes_has_more": True}
        api.write(delete(Note).where(Note.id > 9))
        answer = await api.json("/owners/1?fields=notes(id)")
        assert answer == {"notes": [{"id": 1}, {"id": 5}, {"id": 9}]}


class TestHttp:
    async def test_86_links(self, api: Application) -> None:
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

    async def test_89_nothing_is_said_of_shared_caches(self, api: Application) -> None:
        assert "cache-control" not in (await api.get("/notes")).headers

    async def test_90_large_numbers_are_exact(self, api: Application) -> None:
        """As digits: who reads them as floats must ask for text."""
        answer = await api.get("/notes/1?fields=size")
        assert answer.content == b'{"size":9007199254740993}'


def cursor_of(answer: Any) -> str:
    token = answer["pagination"]["next_cursor"]
    assert isinstance(token, str)
    return token


async def a_token(api: Application) -> str:
    return cursor_of(await api.json("/walk?limit=5"))


def forged(token: str, *values: object) -> str:
    """The token with other values, signed with another secret."""
    return Keys("not the secret, but as long").sign(Cursor(values), padded(token)[2:18])
