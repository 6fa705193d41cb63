"""A refused client gets what it can read, and mistakes in what is told are found early."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.errors import InvalidLimit
from hasten.ratelimit.addresses import Addresses
from hasten.ratelimit.answers import MAX_ACCEPT_CHARS, refusal, wants_text
from hasten.ratelimit.fields import Fields, Policy, State

TEXT = "text/plain; charset=utf-8"
PROBLEM = "application/problem+json"


def media_type(accept: str | None) -> str:
    found = refusal(None, status=429, limits=["a"], is_text=wants_text(accept))
    return found.headers["content-type"]


@pytest.mark.parametrize(
    "accept",
    [
        "text/plain, */*;q=0.1", "text/plain, application/json;q=0.5", "text/*",
        "application/json;q=0, text/plain", "TEXT/PLAIN ; Q=1", "text/plain;q=0.1",
        "text/plain;format=flowed", "*/*;q=0.5, application/*;q=0.1",
    ],
)  # fmt: skip
def test_43_text_for_who_wants_it_more(accept: str) -> None:
    assert media_type(accept) == TEXT


@pytest.mark.parametrize(
    "accept",
    [
        None, "", "*/*", "text/plain;q=0", "text/plain;q=0, text/html", "text/plain;q=2",
        "text/plain;q=0.5, application/json", "text/plain, application/problem+json",
        "text/html,application/xhtml+xml,*/*;q=0.8", "text/plain;q=0.5, */*",
        "text/plain" + " " * MAX_ACCEPT_CHARS, "text/plain;q=٠.٥",
    ],
)  # fmt: skip
def test_43_a_problem_for_everyone_else(accept: str | None) -> None:
    assert media_type(accept) == PROBLEM


@given(st.one_of(st.text(max_size=60), st.text("text/plain*;q=.01, ", max_size=60)))
def test_43_whatever_is_accepted_there_is_an_answer(accept: str) -> None:
    assert media_type(accept) in {TEXT, PROBLEM}


@pytest.mark.parametrize("prefix", [56.0, 56.5, "56", None, [56], True, 31, 129])
def test_57_a_prefix_is_a_whole_number(prefix: Any) -> None:
    """Found when it is made, not with the first IPv6 client."""
    with pytest.raises(InvalidLimit, match="IPV6_PREFIX"):
        Addresses(prefix)


@pytest.mark.parametrize("families", [True, None, 5, "legacy", ["draft-9"], [["legacy"]]])
def test_41_families_are_several_names(families: Any) -> None:
    with pytest.raises(InvalidLimit, match="HEADERS"):
        Fields(families, lambda: 0.0)


def test_38_older_drafts_tell_each_set_of_limits_as_it_is() -> None:
    """Lines that are made once are those of their own limits."""
    fields = Fields(["draft-7"], lambda: 0.0)
    short, at_once = Policy("a", 3, 1_500_000), Policy("b", 20, None, "concurrent-requests")
    for policies, line in [
        ([short, at_once], b"3;w=2, 20"),
        ([at_once, short], b"20, 3;w=2"),
        ([short], b"3;w=2"),
    ] * 2:
        states = [State(policy, 1, 1) for policy in policies]
        assert dict(fields.of(states))[b"ratelimit-policy"] == line
