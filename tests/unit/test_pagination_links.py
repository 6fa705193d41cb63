"""Links lead to existing pages only."""

from __future__ import annotations

from urllib.parse import parse_qsl, urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.pagination._counts import NOT_COUNTED, Count
from hasten.pagination._links import (
    MAX_LINK_BYTES,
    Query,
    Rel,
    format_link_header,
    make_cursor_links,
    make_page_links,
)
from hasten.pagination._params import PageParams

LINKS: dict[Rel, Query] = {"next": (("page", "2"),)}


def at(page: int | None, *query: tuple[str, str]) -> PageParams:
    return PageParams(page, 20, (), None, query)


def numbers(page: int, count: Count, *, has_more: bool) -> dict[Rel, str]:
    links = make_page_links(at(page), count, has_more=has_more)
    return {rel: dict(query)["page"] for rel, query in links.items()}


class TestPages:
    def test_a_page_in_the_middle_has_all_four_links(self) -> None:
        found = numbers(2, Count(100), has_more=True)
        assert found == {"first": "1", "prev": "1", "next": "3", "last": "5"}

    def test_the_first_page_has_no_previous_link(self) -> None:
        assert numbers(1, Count(41), has_more=True) == {"first": "1", "next": "2", "last": "3"}

    def test_the_last_page_has_no_next_link(self) -> None:
        found = numbers(2, Count(40), has_more=False)
        assert found == {"first": "1", "prev": "1", "last": "2"}

    def test_a_single_page_has_no_links(self) -> None:
        assert numbers(1, Count(20), has_more=False) == {}

    @pytest.mark.parametrize(
        "count", [NOT_COUNTED, Count(10_000, "gte"), Count(10_000, "estimate")]
    )
    def test_the_last_page_is_linked_only_if_the_total_is_exact(self, count: Count) -> None:
        assert numbers(3, count, has_more=True) == {"first": "1", "prev": "2", "next": "4"}

    @pytest.mark.parametrize(("total", "last"), [(0, "1"), (41, "3")])
    def test_past_the_end_the_previous_link_is_the_last_page(self, total: int, last: str) -> None:
        found = numbers(50, Count(total), has_more=False)
        assert found == {"first": "1", "prev": last, "last": last}

    def test_past_the_end_the_previous_link_needs_no_count(self) -> None:
        assert numbers(50, NOT_COUNTED, has_more=False) == {"first": "1", "prev": "49"}


class TestCursors:
    def test_a_page_by_cursor_links_in_both_directions(self) -> None:
        links = make_cursor_links(at(None, ("cursor", "b")), prev_cursor="a", next_cursor="c")
        assert links == {
            "first": (("cursor", ""),),
            "prev": (("cursor", "a"),),
            "next": (("cursor", "c"),),
        }

    def test_a_page_by_cursor_at_an_end_has_one_link_less(self) -> None:
        assert set(make_cursor_links(at(None), prev_cursor=None, next_cursor="c")) == {
            "first",
            "next",
        }
        assert set(make_cursor_links(at(None), prev_cursor="a", next_cursor=None)) == {
            "first",
            "prev",
        }
        assert make_cursor_links(at(None), prev_cursor=None, next_cursor=None) == {}


class TestHeader:
    def test_the_header_follows_rfc_8288(self) -> None:
        links = make_page_links(at(2, ("sort", "-created_at")), Count(60), has_more=True)
        assert format_link_header(links) == (
            '<?sort=-created_at&page=1>; rel="first", '
            '<?sort=-created_at&page=1>; rel="prev", '
            '<?sort=-created_at&page=3>; rel="next", '
            '<?sort=-created_at&page=3>; rel="last"'
        )

    def test_no_links_make_no_header(self) -> None:
        assert format_link_header({}) is None

    def test_other_parameters_are_kept_and_quoted(self) -> None:
        pairs = (("q", 'a b>; rel="x", <é'), ("tag", "1"), ("tag", "2"), ("page", "1"), ("e", ""))
        links = make_page_links(at(1, *pairs), NOT_COUNTED, has_more=True)
        header = format_link_header({"next": links["next"]})
        assert header == (
            '<?q=a%20b%3E%3B%20rel%3D%22x%22%2C%20%3C%C3%A9&tag=1&tag=2&e=&page=2>; rel="next"'
        )
        query = header.partition(">")[0].removeprefix("<?")
        kept = [pair for pair in pairs if pair[0] != "page"]
        assert parse_qsl(query, keep_blank_values=True) == [*kept, ("page", "2")]

    def test_links_are_relative_to_the_request(self) -> None:
        """They keep a prefix that a proxy has removed, and do not depend on Host."""
        request = "https://api.example.org/behind/a/proxy/posts?page=1"
        target = (format_link_header(LINKS) or "").partition(">")[0].removeprefix("<")
        assert urljoin(request, target) == "https://api.example.org/behind/a/proxy/posts?page=2"

    def test_a_path_in_a_link_is_quoted(self) -> None:
        assert format_link_header(LINKS, path="/root/é, <x>/%41") == (
            '</root/%C3%A9%2C%20%3Cx%3E/%2541?page=2>; rel="next"'
        )

    def test_an_origin_makes_links_absolute(self) -> None:
        assert format_link_header(LINKS, path="/posts", origin="https://api.example.org") == (
            '<https://api.example.org/posts?page=2>; rel="next"'
        )

    def test_a_long_query_makes_no_long_header(self) -> None:
        """Proxies refuse responses with headers that exceed their buffer."""
        links = make_page_links(at(2, ("q", "x" * 60_000)), Count(60), has_more=True)
        assert format_link_header(links) is None
        links = make_page_links(at(2, ("q", "é" * 250)), Count(60), has_more=True)
        assert format_link_header(links, path="/posts") == ", ".join(
            f'</posts?q={"%C3%A9" * 250}&page={page}>; rel="{rel}"'
            for rel, page in (("prev", 1), ("next", 3))
        )

    @given(st.integers(0, 5_000), st.integers(0, 5_000))
    def test_what_fits_is_kept(self, query: int, path: int) -> None:
        links = make_page_links(at(2, ("q", "x" * query)), Count(60), has_more=True)
        header = format_link_header(links, path="/" * min(path, 1) + "p" * path)
        assert len(header or "") <= MAX_LINK_BYTES
        if query + path < MAX_LINK_BYTES // 4 - 50:
            assert header is not None
            assert header.count("rel=") == 4
        assert header is None or 'rel="next"' in header

    @pytest.mark.parametrize("path", ["//evil.example/posts", "///evil.example", "//"])
    def test_no_path_can_be_read_as_a_host(self, path: str) -> None:
        target = (format_link_header(LINKS, path=path) or "").partition(">")[0].removeprefix("<")
        joined = urlsplit(urljoin("https://api.example.org/posts", target))
        assert joined.hostname == "api.example.org"


@given(st.lists(st.tuples(st.text(), st.text()), max_size=5), st.text())
def test_a_header_is_printable_ascii(pairs: list[tuple[str, str]], path: str) -> None:
    links = make_page_links(at(2, *pairs), Count(100), has_more=True)
    header = format_link_header(links, path=path) or ""
    assert header.isascii()
    assert header.isprintable()
    assert header.count(", ") == 3
    assert header.count("<") == header.count(">") == 4
