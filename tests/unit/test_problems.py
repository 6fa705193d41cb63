"""Refusals match the Accept header, and invalid header options are refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten._problems import MAX_ACCEPT_CHARS, make_refusal_response, prefers_text
from hasten.errors import InvalidOption
from hasten.ratelimit._http.addresses import AddressKeys
from hasten.ratelimit._http.policy_headers import HeaderWriter, PolicyState, RateLimitPolicy

TEXT = "text/plain; charset=utf-8"
PROBLEM = "application/problem+json"


def media_type(accept: str | None) -> str:
    found = make_refusal_response(
        None, status=429, exceeded_limits=["a"], is_text=prefers_text(accept)
    )
    return found.headers["content-type"]


@pytest.mark.parametrize(
    "accept",
    [
        "text/plain, */*;q=0.1", "text/plain, application/json;q=0.5", "text/*",
        "application/json;q=0, text/plain", "TEXT/PLAIN ; Q=1", "text/plain;q=0.1",
        "text/plain;format=flowed", "*/*;q=0.5, application/*;q=0.1",
        "text/html;q=0.9, text/plain;level=1;q=0.1, text/plain;q=0.8, */*;q=0.5",
    ],
)  # fmt: skip
def test_text_is_sent_to_clients_that_prefer_it(accept: str) -> None:
    assert media_type(accept) == TEXT


@pytest.mark.parametrize(
    "accept",
    [
        None, "", "*/*", "text/plain;q=0", "text/plain;q=0, text/html", "text/plain;q=2",
        "text/plain;q=0.5, application/json", "text/plain, application/problem+json",
        "text/html,application/xhtml+xml,*/*;q=0.8", "text/plain;q=0.5, */*",
        "text/plain" + " " * MAX_ACCEPT_CHARS, "text/plain;q=٠.٥",
        "application/json;v=1;q=0.1, application/json, text/plain;q=0.5",
    ],
)  # fmt: skip
def test_a_problem_document_is_sent_to_all_other_clients(accept: str | None) -> None:
    assert media_type(accept) == PROBLEM


@given(st.one_of(st.text(max_size=60), st.text("text/plain*;q=.01, ", max_size=60)))
def test_any_accept_header_gets_a_media_type(accept: str) -> None:
    assert media_type(accept) in {TEXT, PROBLEM}


@pytest.mark.parametrize("prefix", [56.0, 56.5, "56", None, [56], True, 31, 129])
def test_an_ipv6_prefix_must_be_a_whole_number(prefix: Any) -> None:
    """At construction, not at the first IPv6 client."""
    with pytest.raises(InvalidOption, match=r"^ipv6_prefix="):
        AddressKeys(prefix)


@pytest.mark.parametrize("families", [True, None, 5, "legacy", ["draft-9"], [["legacy"]]])
def test_families_of_headers_must_be_a_list_of_known_names(families: Any) -> None:
    with pytest.raises(InvalidOption, match=r"^headers="):
        HeaderWriter(families, lambda: 0.0)


def test_draft_7_describes_exactly_the_limits_of_the_request() -> None:
    """A cached header belongs to its own limits."""
    writer = HeaderWriter(["draft-7"], lambda: 0.0)
    short, at_once = (
        RateLimitPolicy("a", 3, 1_500_000),
        RateLimitPolicy("b", 20, None, "concurrent-requests"),
    )
    for policies, line in [
        ([short, at_once], b"3;w=2, 20"),
        ([at_once, short], b"20, 3;w=2"),
        ([short], b"3;w=2"),
    ] * 2:
        states = [PolicyState(policy, 1, 1) for policy in policies]
        assert dict(writer.make_headers(states))[b"ratelimit-policy"] == line
