"""What a request gets that is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import Final

from hasten._responses import EncodedResponse

DETAIL: Final = "Too many requests, please try again later."

_TYPES: Final = "https://iana.org/assignments/http-problem-types#"
QUOTA: Final = _TYPES + "quota-exceeded"
CAPACITY: Final = _TYPES + "temporary-reduced-capacity"

MAX_ACCEPT_CHARS: Final = 1024
"""A longer Accept is not parsed."""

# The ranges that hold what can be sent, the most specific one first. Whoever takes JSON of any kind
# can read a problem.
_TEXT: Final = ("text/plain", "text/*", "*/*")
_JSON: Final = (
    ("application/problem+json", "application/*", "*/*"),
    ("application/json", "application/*", "*/*"),
)

# qvalue. RFC 9110, section 12.4.2.
_QVALUE: Final = re.compile(r"0(?:\.\d{0,3})?|1(?:\.0{0,3})?", re.ASCII)


def refusal(
    message: str | Mapping[str, object] | None,
    *,
    status: int,
    limits: Sequence[str],
    kind: str = QUOTA,
    is_text: bool = False,
) -> EncodedResponse:
    """The answer to a refused request, without what tells of limits.

    A message is sent as it is: a text as text/plain (as HTML it could be made to run), a mapping
    as JSON. Without one it is a problem (RFC 9457) that names the limits, or with is_text its plain
    text. Caches must not keep it: RFC 6585, section 4.
    """
    if isinstance(message, Mapping):
        return _answer(status, "application/json", json.dumps(message))
    if message is None and not is_text:
        return _answer(status, "application/problem+json", _problem(status, tuple(limits), kind))
    return _answer(status, "text/plain; charset=utf-8", DETAIL if message is None else message)


def wants_text(accept: str | None) -> bool:
    """Whether a client wants plain text more than a problem. RFC 9110, section 12.5.1."""
    return accept is not None and len(accept) <= MAX_ACCEPT_CHARS and _prefers_text(accept)


def _answer(status: int, media_type: str, body: str) -> EncodedResponse:
    content = body.encode("utf-8", "backslashreplace")
    headers = {
        "content-type": media_type,
        "content-length": str(len(content)),
        "cache-control": "no-store",
    }
    return EncodedResponse(content, status, headers)


@lru_cache(maxsize=256)
def _problem(status: int, limits: tuple[str, ...], kind: str) -> str:
    problem: dict[str, object] = {
        "type": kind,
        "title": _phrase(status),
        "status": status,
        "detail": DETAIL if kind != CAPACITY else "The server is busy, please try again later.",
    }
    if kind == QUOTA:
        problem["violated-policies"] = list(limits)
    return json.dumps(problem)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Refused"


# Clients send what they always send: to refuse one should cost next to nothing.
@lru_cache(maxsize=256)
def _prefers_text(accept: str) -> bool:
    weights = _weights(accept)
    return _weight(weights, _TEXT) > max(_weight(weights, names) for names in _JSON)


def _weight(weights: Mapping[str, int], names: Sequence[str]) -> int:
    """The weight of the first name that is given: that of the most specific range."""
    return next((weights[name] for name in names if name in weights), 0)


def _weights(accept: str) -> dict[str, int]:
    """The weights in thousandths, by media range in lower case. What makes no sense is refused."""
    weights: dict[str, int] = {}
    for member in accept.split(","):
        name, *parameters = member.split(";")
        weights[name.strip(" \t").lower()] = _quality(parameters)
    return weights


def _quality(parameters: Sequence[str]) -> int:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip(" \t").lower() == "q":
            value = value.strip(" \t")
            return round(float(value) * 1000) if _QVALUE.fullmatch(value) else 0
    return 1000
