"""Values of the right type are returned, and others are refused with a clear message."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal, get_args

import pytest

from hasten._checks import (
    check_aware_datetime,
    check_choice,
    check_flag,
    check_function,
    check_instance,
    check_number,
    check_text,
    check_texts,
    check_whole_number,
    is_async,
)
from hasten._closing import AsyncClosable
from hasten.errors import InvalidOption

Mode = Literal["page", "cursor"]


async def async_function(event: object) -> None: ...


def without_arguments() -> None: ...


class AsyncCallable:
    async def __call__(self, event: object) -> None: ...


def refused(check: Callable[..., object], value: object, *more: Any, **options: Any) -> str:
    with pytest.raises(InvalidOption) as caught:
        check("x", value, *more, **options)
    return str(caught.value).removeprefix(f"x={value!r}: ")


class TestNumbers:
    def test_a_whole_number_within_bounds(self) -> None:
        assert check_whole_number("x", 1, 1) == 1
        assert check_whole_number("x", 5, 1, 5) == 5

    @pytest.mark.parametrize("value", [True, 1.0, "1", None, float("nan")])
    def test_anything_else_is_not_whole(self, value: object) -> None:
        assert refused(check_whole_number, value, 0) == "must be a whole number of at least 0"

    def test_the_bounds_are_in_the_message(self) -> None:
        expected = "must be a whole number from 1 to 1,000"
        assert refused(check_whole_number, 0, 1, 1000) == expected
        assert refused(check_whole_number, 1001, 1, 1000) == expected

    def test_programs_can_tell_a_wrong_size_from_a_wrong_type(self) -> None:
        for value, code in ((0, "out_of_range"), ("1", "invalid"), (0.5, "invalid")):
            with pytest.raises(InvalidOption) as caught:
                check_whole_number("x", value, 1)
            assert caught.value.code == code

    def test_a_number_within_bounds(self) -> None:
        assert check_number("x", 0.5, 0, 1) == 0.5
        for value in (True, -0.1, 1.1, "0.5", None):
            assert refused(check_number, value, 0, 1) == "must be a number from 0 to 1"

    def test_not_a_number(self) -> None:
        assert refused(check_number, float("nan"), 0, 1) == "must be a number from 0 to 1"


class TestTexts:
    def test_a_text_is_not_empty(self) -> None:
        assert check_text("x", "a") == "a"
        for value in ("", b"a", None, 1):
            assert refused(check_text, value) == "must be a string that is not empty"

    def test_texts_in_a_collection(self) -> None:
        assert check_texts("x", ("a", "b"), "a list of names") == ["a", "b"]
        for value in ("ab", b"ab", ["a", 1], None):
            assert refused(check_texts, value, "a list of names") == "must be a list of names"

    def test_one_of_several_choices(self) -> None:
        assert check_choice("x", "page", get_args(Mode)) == "page"
        for value in ("pages", None, ["page"]):
            assert refused(check_choice, value, get_args(Mode)) == "must be one of 'page', 'cursor'"

    def test_a_flag_is_a_bool(self) -> None:
        assert check_flag("x", False) is False
        for value in (0, 1, "yes", None):
            assert refused(check_flag, value) == "must be True or False"


class TestObjects:
    def test_an_instance_or_none(self) -> None:
        assert check_instance("x", None, dict) is None
        assert check_instance("x", {}, dict) == {}
        assert refused(check_instance, [], dict) == "must be dict(…) or None"

    def test_a_time_has_a_time_zone(self) -> None:
        noon = datetime(2030, 1, 1, 12, tzinfo=UTC)
        assert check_aware_datetime("x", noon) is noon
        assert refused(check_aware_datetime, noon.timestamp()) == "must be a datetime"
        assert refused(check_aware_datetime, noon.replace(tzinfo=None)).startswith(
            "must be a datetime with a time zone"
        )


class TestFunctions:
    def test_a_function_or_none(self) -> None:
        assert check_function("x", None) is None
        assert check_function("x", print) is print
        assert refused(check_function, 5) == "must be a function that is not async"

    def test_the_number_of_arguments_is_checked_where_they_are_named(self) -> None:
        assert check_function("x", len, "event") is len
        expected = "must be a function that is not async, that accepts the call x(event)"
        assert refused(check_function, without_arguments, "event") == expected

    @pytest.mark.parametrize(
        "function",
        [async_function, AsyncCallable(), functools.partial(async_function, 1)],
        ids=["function", "object", "partial"],
    )
    def test_an_async_function_is_refused_unless_it_may_be_one(self, function: Any) -> None:
        assert is_async(function)
        assert refused(check_function, function) == "must be a function that is not async"
        assert check_function("x", function, may_be_async=True) is function


class TestConflicts:
    def test_an_option_that_excludes_another_one(self) -> None:
        error = InvalidOption.conflict("hops", 2, "trusted_proxies")
        assert str(error) == "hops=2: cannot be combined with trusted_proxies"
        assert (error.option, error.value, error.code) == ("hops", 2, "conflict")


async def test_async_with_closes() -> None:
    class Connection(AsyncClosable):
        is_open = True

        async def aclose(self) -> None:
            self.is_open = False

    async with Connection() as connection:
        assert connection.is_open
    assert not connection.is_open
