"""Weights of Accept and Accept-Encoding are parsed, whatever a client sends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten._quality import parse_weights_in_thousandths
from hasten.compression._negotiation import normalize_coding

QVALUES = {"0": 0, "0.": 0, "0.000": 0, "0.001": 1, "0.05": 50, "0.5": 500, "0.999": 999, "1": 1000}
INVALID = ["", "abc", "1.5", "-1", "1.0001", "0.1234", "1e0", "+1", ".5", "½", "nan", "0 .5", "0_1"]


@pytest.mark.parametrize("q", QVALUES)
def test_a_weight_is_in_thousandths(q: str) -> None:
    assert parse_weights_in_thousandths(f"gzip;q={q}") == {"gzip": QVALUES[q]}


def test_all_thousandths_are_exact() -> None:
    for weight in range(1000):
        assert parse_weights_in_thousandths(f"br;q=0.{weight:03}") == {"br": weight}


@pytest.mark.parametrize("q", INVALID)
def test_a_malformed_weight_is_a_refusal(q: str) -> None:
    assert parse_weights_in_thousandths(f"gzip;q={q}") == {"gzip": 0}


@pytest.mark.parametrize("member", ["gzip;q =0", "gzip; q\t=0", "gzip;q = 0", "gzip;q= 0"])
def test_a_refusal_with_forbidden_spaces_is_a_refusal(member: str) -> None:
    assert parse_weights_in_thousandths(member) == {"gzip": 0}


def test_a_member_that_is_listed_twice_has_the_lower_weight() -> None:
    header = "gzip;q=0.5, br, gzip;q=0.7, x-gzip;q=0.2"
    assert parse_weights_in_thousandths(header, normalize_coding) == {"gzip": 200, "br": 1000}


def test_names_are_in_lower_case_and_without_parameters() -> None:
    assert parse_weights_in_thousandths("Text/HTML;level=1;Q=0.5, *") == {
        "text/html": 500,
        "*": 1000,
    }


@given(st.text())
def test_any_header_is_parsed(header: str) -> None:
    weights = parse_weights_in_thousandths(header)
    assert all(name and 0 <= weight <= 1000 for name, weight in weights.items())
