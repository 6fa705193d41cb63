"""Responses to refused requests: problem details (RFC 9457), plain text, or a message as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import Final

from hasten._quality import parse_weights
from hasten._responses import EncodedResponse

DETAIL: Final = "Too many requests, please try again later."

_TYPES: Final = "https://iana.org/assignments/http-problem-types#"
QUOTA: Final = _TYPES + "quota-exceeded"
CAPACITY: Final = _TYPES + "temporary-reduced-capacity"

MAX_ACCEPT_CHARS: Final = 1024
"""A longer Accept header is not parsed."""

# The media ranges that include each type, the most specific first. A client that accepts any JSON
# can read a problem.
_TEXT: Final = ("text/plain", "text/*", "*/*")
_JSON: Final = (
    ("application/problem+json", "application/*", "*/*"),
    ("application/json", "application/*", "*/*"),
)


def refusal(
    message: str | Mapping[str, object] | None,
    *,
    status: int,
    limits: Sequence[str],
    kind: str = QUOTA,
    is_text: bool = False,
) -> EncodedResponse:
    """Return the response to a refused request, without the headers of limits.

    A message is sent as it is: a string as text/plain (as HTML it could inject scripts), a mapping
    as JSON. Without one, the body is a problem (RFC 9457) that names the limits, or with is_text
    its plain text. Caches must not store it: RFC 6585, section 4.
    """
    if isinstance(message, Mapping):
        return _response(status, "application/json", json.dumps(message))
    if message is None and not is_text:
        return _response(status, "application/problem+json", _problem(status, tuple(limits), kind))
    return _response(status, "text/plain; charset=utf-8", DETAIL if message is None else message)


def prefers_text(accept: str | None) -> bool:
    """Return whether a client prefers plain text to a problem. RFC 9110, section 12.5.1."""
    return accept is not None and len(accept) <= MAX_ACCEPT_CHARS and _prefers_text(accept)


def _response(status: int, media_type: str, body: str) -> EncodedResponse:
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


# Clients repeat the same header: refusing them should cost next to nothing.
@lru_cache(maxsize=256)
def _prefers_text(accept: str) -> bool:
    weights = parse_weights(accept)
    return _weight(weights, _TEXT) > max(_weight(weights, ranges) for ranges in _JSON)


def _weight(weights: Mapping[str, int], ranges: Sequence[str]) -> int:
    """Return the weight of the first range that the header names, which is the most specific."""
    return next((weights[name] for name in ranges if name in weights), 0)
