"""The headers that describe limits can be parsed by the rules of structured fields."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.errors import InvalidOption
from hasten.ratelimit._http.policy_headers import (
    NAMES,
    HeaderWriter,
    PolicyState,
    RateLimitPolicy,
    round_up_to_seconds,
    to_retry_after_seconds,
)

GENERAL = RateLimitPolicy("100-in-15min", 100, 900_000_000)
LOGIN = RateLimitPolicy("5-in-1hr", 5, 3_600_000_000)


def lines(styles: Any, *states: PolicyState, shown: int | None = None) -> dict[str, str]:
    found = HeaderWriter(styles, lambda: 1_000.2).make_headers(states, shown)
    names = [name for name, _ in found]
    assert len(names) == len(set(names))
    assert NAMES.issuperset(names)
    return {name.decode(): value.decode() for name, value in found}


_ITEM = re.compile(
    r'"((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"((?:;[a-z]+=(?:\d{1,15}|"[^"]*"))*)'
)


def parse(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Parse a list of strings with parameters, strictly. RFC 9651, section 4.2.1."""
    found = []
    while True:
        item = _ITEM.match(text)
        assert item is not None, text
        parameters: dict[str, Any] = {}
        for parameter in filter(None, item[2].split(";")):
            key, _, value = parameter.partition("=")
            parameters[key] = value.strip('"') if value.startswith('"') else int(value)
        found.append((re.sub(r"\\(.)", r"\1", item[1]), parameters))
        text = text[item.end() :]
        if not text:
            return found
        assert text.startswith(", ")
        text = text[2:]


names = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1)
policies = st.builds(
    RateLimitPolicy,
    names,
    st.integers(0, 2**31),
    st.one_of(st.none(), st.integers(1_000, 10**14)),
    st.sampled_from([None, "concurrent-requests", "content-bytes"]),
)
states = st.builds(PolicyState, policies, st.integers(0, 2**31), st.integers(0, 10**14))


@given(st.lists(states, min_size=1, max_size=4))
def test_the_newest_draft_parses_as_structured_fields(given_states: list[PolicyState]) -> None:
    headers = lines(["standard"], *given_states)
    for (name, parameters), state in zip(parse(headers["ratelimit"]), given_states, strict=True):
        assert name == state.policy.name
        assert parameters == {"r": state.remaining, "t": round_up_to_seconds(state.reset_us)}
    for (name, parameters), state in zip(
        parse(headers["ratelimit-policy"]), given_states, strict=True
    ):
        assert (name, parameters["q"]) == (state.policy.name, state.policy.quota)
        assert parameters.get("qu") == state.policy.unit
        assert ("w" in parameters) == (state.policy.window_us is not None)
        assert parameters.get("w", 1) >= 1


@given(
    st.lists(states, min_size=1, max_size=4),
    st.sampled_from(
        [
            ("standard",),
            ("standard", "legacy"),
            ("draft-7",),
            ("draft-7", "legacy"),
            ("legacy",),
            (),
        ]
    ),
)
def test_every_style_writes_its_headers(given_states: list[PolicyState], styles: Any) -> None:
    writer = HeaderWriter(styles, lambda: 77.5)
    found = [name.decode() for name, _ in writer.make_headers(given_states)]
    described = ["ratelimit-policy", "ratelimit"] * (styles[:1] != ("legacy",) and bool(styles))
    legacy = ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"]
    assert found == described + legacy * ("legacy" in styles)


@given(st.integers(0, 10**14), st.integers(0, 10**14))
def test_retry_after_is_never_too_short(retry_us: int, reset_us: int) -> None:
    """A client that waits as long as Retry-After has waited long enough."""
    assert to_retry_after_seconds(retry_us) >= 1
    assert to_retry_after_seconds(retry_us) * 1_000_000 >= retry_us
    assert to_retry_after_seconds(max(retry_us, reset_us)) >= round_up_to_seconds(reset_us)


def test_each_style_of_headers_shows_both_limits() -> None:
    two = PolicyState(GENERAL, 99, 900_000_000), PolicyState(LOGIN, 4, 3_600_000_000)
    structured = {
        "ratelimit-policy": '"100-in-15min";q=100;w=900, "5-in-1hr";q=5;w=3600',
        "ratelimit": '"100-in-15min";r=99;t=900, "5-in-1hr";r=4;t=3600',
    }
    old = {"ratelimit-policy": "100;w=900, 5;w=3600"}
    legacy = {
        "x-ratelimit-limit": "5", "x-ratelimit-remaining": "4", "x-ratelimit-reset": "4601",
    }  # fmt: skip
    assert lines(["standard"], *two) == structured
    assert lines(["draft-7"], *two) == {
        **old, "ratelimit": "limit=5, remaining=4, reset=3600",
    }  # fmt: skip
    assert lines(["legacy"], *two) == legacy
    assert lines(["standard", "legacy"], *two) == {**structured, **legacy}
    assert lines((), *two) == lines(["legacy"]) == {}


def test_a_header_for_one_limit_describes_the_limit_that_refuses() -> None:
    tight, refusing = PolicyState(LOGIN, 0, 1), PolicyState(GENERAL, 50, 2_000_000)
    assert lines(["legacy"], tight, refusing)["x-ratelimit-limit"] == "5"
    assert lines(["legacy"], tight, refusing, shown=1)["x-ratelimit-limit"] == "100"


@pytest.mark.parametrize(
    "styles", ["legacy", ["draft-6"], ["draft-8"], ["draft-10"], ["draft-7", "standard"]]
)
def test_an_unknown_style_is_refused(styles: Any) -> None:
    with pytest.raises(InvalidOption, match=r"^headers="):
        HeaderWriter(styles, lambda: 0.0)
