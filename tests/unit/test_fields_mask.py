"""A mask is parsed into a tree or rejected, in time proportional to its length."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.errors import InvalidParameter
from hasten.fields._mask import MAX_CHARS, FieldMask, parse_field_mask

EMPTY = [
    "", " ", ",", "id,", ",id", "id,,name", "id, ,name", "author()", "author(id,)", "(id)", ".",
    "author.", ".id", "author..id", "author.(id)", "author( )", "a,(b)",
]  # fmt: skip

TREES: st.SearchStrategy[dict[str, object]] = st.recursive(
    st.just({}),
    lambda inner: st.dictionaries(st.sampled_from(["id", "name", "a b", "é"]), inner, max_size=3),
    max_leaves=20,
)


def tree(mask: FieldMask) -> dict[str, object]:
    """Return the names as a tree. Names that were requested alone end with !."""
    return {name + "!" * inner.whole: tree(inner) for name, inner in mask.names.items()}


def refusal(*texts: str, max_depth: int = 3) -> InvalidParameter:
    with pytest.raises(InvalidParameter) as info:
        parse_field_mask(texts, max_depth=max_depth)
    assert info.value.status == 422
    assert info.value.parameter == "fields"
    return info.value


class TestNames:
    def test_names_keep_their_order(self) -> None:
        assert tree(parse_field_mask(["id,name,email"])) == {"id!": {}, "name!": {}, "email!": {}}

    def test_duplicates_and_spaces_are_ignored(self) -> None:
        assert parse_field_mask([" id ,name,id,  name"]) == parse_field_mask(["id,name"])
        assert parse_field_mask(["author ( name , id ) , id"]) == parse_field_mask(
            ["author(name,id),id"]
        )

    def test_several_values_are_merged(self) -> None:
        assert parse_field_mask(["id", "name,author(id)", "author.name"]) == parse_field_mask(
            ["id,name,author(id,name)"]
        )

    @pytest.mark.parametrize("text", EMPTY)
    def test_an_empty_name_is_refused(self, text: str) -> None:
        error = refusal(text)
        assert error.code == "empty_name"
        assert str(error) == "fields: a field name is empty; omit fields for the default fields"

    def test_an_empty_name_in_a_second_value_is_refused(self) -> None:
        assert refusal("id", "").code == "empty_name"

    @pytest.mark.parametrize(
        "name", ["id;drop table users", "'", '"', "--", "\0", "__class__", "\udc80", "*", "%00"]
    )
    def test_any_text_can_be_a_name(self, name: str) -> None:
        assert tree(parse_field_mask([f"id,{name}"])) == {"id!": {}, f"{name}!": {}}


class TestNested:
    @pytest.mark.parametrize("text", ["author(name)", "author.name", "author . name"])
    def test_dots_and_parentheses_write_the_same_tree(self, text: str) -> None:
        assert tree(parse_field_mask([text])) == {"author": {"name!": {}}}

    @pytest.mark.parametrize(
        "text", ["a(b(c),d)", "a.b.c,a.d", "a(b.c,d)", "a(b.c),a.d", "a.b(c),a(d)", "a(b(c)),a(d)"]
    )
    def test_nested_dots_and_parentheses_write_the_same_tree(self, text: str) -> None:
        assert tree(parse_field_mask([text])) == {"a": {"b": {"c!": {}}, "d!": {}}}

    def test_a_relation_named_alone_and_with_fields_is_both(self) -> None:
        assert tree(parse_field_mask(["author,author.name"])) == {"author!": {"name!": {}}}
        assert parse_field_mask(["author.name,author"]) == parse_field_mask(["author,author.name"])

    def test_a_closing_parenthesis_ends_a_group(self) -> None:
        assert tree(parse_field_mask(["a(b),c"])) == {"a": {"b!": {}}, "c!": {}}
        assert tree(parse_field_mask(["a.b,c"])) == {"a": {"b!": {}}, "c!": {}}
        assert tree(parse_field_mask(["a(b.c,d),e"])) == {
            "a": {"b": {"c!": {}}, "d!": {}},
            "e!": {},
        }

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("a(b", "a '(' is never closed"),
            ("a(b(c)", "a '(' is never closed"),
            ("a)", "a ')' has no matching '('"),
            ("a(b))", "a ')' has no matching '('"),
            ("a(b)c", "'c' follows a ')': expected a comma in between"),
            ("a(b).c", "a ')' is followed by '.' or '(': expected a comma in between"),
            ("a(b)(c)", "a ')' is followed by '.' or '(': expected a comma in between"),
        ],
    )
    def test_unbalanced_parentheses_are_refused(self, text: str, reason: str) -> None:
        error = refusal(text)
        assert (error.code, str(error)) == ("malformed", f"fields: {reason}")

    def test_a_group_ends_with_its_value(self) -> None:
        assert refusal("a(b", "c)").code == "malformed"


class TestBounds:
    def test_a_mask_may_be_three_levels_deep(self) -> None:
        assert tree(parse_field_mask(["a(b(c))", "a.b.c"])) == {"a": {"b": {"c!": {}}}}
        for text in ("a(b(c(d)))", "a.b.c.d", "a(b.c.d)", "author(posts(author(name)))"):
            error = refusal(text)
            assert (error.code, error.maximum) == ("too_deep", 3)

    def test_the_maximum_depth_can_be_changed(self) -> None:
        assert tree(parse_field_mask(["a.b.c.d"], max_depth=4)) == {"a": {"b": {"c": {"d!": {}}}}}
        assert refusal("a.b", max_depth=1).code == "too_deep"

    def test_more_than_100_names_are_refused(self) -> None:
        assert len(parse_field_mask([",".join(f"n{n}" for n in range(100))]).names) == 100
        error = refusal(",".join(f"n{n}" for n in range(101)))
        assert (error.code, error.maximum) == ("too_many", 100)
        assert refusal(*["a"] * 101).code == "too_many"

    def test_more_than_2048_characters_are_refused(self) -> None:
        assert len(parse_field_mask(["x" * MAX_CHARS]).names) == 1
        for texts in (["x" * (MAX_CHARS + 1)], ["x" * 1024, "y" * 1025]):
            error = refusal(*texts)
            assert (error.code, error.maximum) == ("too_long", MAX_CHARS)

    @pytest.mark.parametrize("mark", ["(", ")", "a(", "a)", ",", ".", "a.", "((", "(a", " "])
    def test_ten_thousand_repetitions_of_a_mark_are_refused(self, mark: str) -> None:
        refusal(mark * 10_000)
        refusal(mark * (MAX_CHARS // len(mark)))

    @pytest.mark.parametrize(
        "text", ["a(" * 500, "a." * 500 + "a", "a(" * 500 + "a" + ")" * 500], ids=["(", ".", "()"]
    )
    def test_the_parser_does_not_recurse(self, text: str) -> None:
        with few_frames(), pytest.raises(InvalidParameter):
            parse_field_mask([text], max_depth=10_000, max_names=400)

    def test_parsing_takes_time_in_proportion_to_the_length(self) -> None:
        """Counted in lines that run, of which each does a fixed amount of work.

        In an interpreter of its own: a trace slows down whatever else a process does.
        """
        for length, lines in measured_lines():
            assert lines <= 40 * length + 200


@contextmanager
def few_frames() -> Iterator[None]:
    frame, used = sys._getframe(), 0
    while frame.f_back is not None:
        frame, used = frame.f_back, used + 1
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(used + 60)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def measured_lines() -> list[tuple[int, int]]:
    """Return the lengths of texts, and how many lines of code run to parse each."""
    done = subprocess.run(
        [sys.executable, "-c", COUNT_LINES], check=True, capture_output=True, text=True, timeout=60
    )
    return [tuple(pair) for pair in json.loads(done.stdout)]


COUNT_LINES = """
import contextlib, json, sys
from hasten.errors import InvalidParameter
from hasten.fields._mask import MAX_CHARS, parse_field_mask

count = 0

def trace(frame, event, argument):
    global count
    count += 1
    return trace

found = []
for part in ("a(", "a.", "a,", "a)", " ", "(", "é", "a(b),"):
    for times in (1, 10, 100, 300, 1000):
        text = (part * times)[:MAX_CHARS]
        count = 0
        sys.settrace(trace)
        with contextlib.suppress(InvalidParameter):
            parse_field_mask([text], max_depth=10_000, max_names=10_000)
        sys.settrace(None)
        found.append((len(text), count))
print(json.dumps(found))
"""


@given(st.lists(st.text(alphabet="ab,.() *\0é") | st.text(), max_size=3))
def test_any_text_is_parsed_or_rejected(texts: list[str]) -> None:
    try:
        mask = parse_field_mask(texts)
    except InvalidParameter as refused:
        error = refused
    else:
        assert parse_field_mask([str(mask)]) == mask if texts else mask == FieldMask()
        return
    assert error.status == 422
    assert len(str(error).encode()) < 400


@given(TREES)
def test_a_written_tree_parses_to_itself(names: dict[str, object]) -> None:
    def written(inner: dict[str, object]) -> str:
        parts = [
            f"{name}({written(more)})" if more else name
            for name, more in inner.items()
            if isinstance(more, dict)
        ]
        return ",".join(parts)

    def expected(inner: dict[str, object]) -> dict[str, object]:
        return {
            name if more else f"{name}!": expected(more)
            for name, more in inner.items()
            if isinstance(more, dict)
        }

    if names:
        assert tree(parse_field_mask([written(names)], max_depth=99)) == expected(names)
