"""Parse the quality values of headers such as Accept-Encoding: RFC 9110, section 12.4.2."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

_QVALUE: Final = re.compile(r"0(?:\.\d{0,3})?|1(?:\.0{0,3})?", re.ASCII)


def parse_weights_in_thousandths(
    header: str, normalize_name: Callable[[str], str] = str.lower
) -> dict[str, int]:
    """Return the weight of each member of a header, in thousandths: {"gzip": 500}.

    The keys are the names of the members without parameters, converted by normalize_name. A
    malformed weight counts as 0. A member that is listed twice gets the lower weight, so that a
    weight of 0, which means "not acceptable", always wins. ``text/html;level=1`` is more specific
    than ``text/html``: its weight is used for ``text/html`` only if that is not listed itself.
    """
    weights: dict[str, int] = {}
    specific: dict[str, int] = {}
    for member in header.split(","):
        name, *parameters = member.split(";")
        key = normalize_name(name.strip(" \t"))
        if key:
            weight = _parse_weight(parameters)
            found = specific if _has_parameters(parameters) else weights
            found[key] = min(weight, found.get(key, weight))
    return specific | weights if specific else weights


def _has_parameters(parameters: Sequence[str]) -> bool:
    """Return whether a member of the header has parameters, such as level=1, before its weight."""
    return bool(parameters) and parameters[0].partition("=")[0].strip(" \t").lower() != "q"


def _parse_weight(parameters: Sequence[str]) -> int:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip(" \t").lower() == "q":
            value = value.strip(" \t")  # RFC 9110 allows no space here, but the value is clear
            return round(float(value) * 1000) if _QVALUE.fullmatch(value) else 0
    return 1000
