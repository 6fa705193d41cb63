"""Responses to requests that a limit or load shedding has refused.

The body is a problem document (RFC 9457), plain text, or a message of the application.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import Final

from hasten._quality import parse_weights_in_thousandths
from hasten._responses import EncodedResponse
from hasten.errors import _limit_problem

MAX_ACCEPT_CHARS: Final = 1024
"""A longer Accept header is not parsed: its client gets a problem document."""

# The media ranges of an Accept header that include a response type, the most specific one first. A
# client that accepts any JSON can read a problem document.
_TEXT_RANGES: Final = ("text/plain", "text/*", "*/*")
_JSON_RANGES: Final = (
    ("application/problem+json", "application/*", "*/*"),
    ("application/json", "application/*", "*/*"),
)


def make_refusal_response(
    message: str | Mapping[str, object] | None,
    *,
    status: int,
    exceeded_limits: Sequence[str],
    server_lacks_capacity: bool = False,
    is_text: bool = False,
) -> EncodedResponse:
    """Return the response to a refused request, without RateLimit and Retry-After headers.

    A message is the whole body: a string is sent as text/plain (as HTML it could inject scripts), a
    mapping as JSON. Without a message, the body is a problem document (RFC 9457) with the names of
    exceeded_limits, or a short plain text if is_text is set. With server_lacks_capacity, it does
    not say that the client has exceeded a limit, but that the server lacks capacity. Caches must
    not store the response (RFC 6585, section 4).
    """
    if isinstance(message, Mapping):
        return _make_response(status, "application/json", json.dumps(message))
    if message is None:
        message = _default_body(status, tuple(exceeded_limits), server_lacks_capacity, is_text)
        if not is_text:
            return _make_response(status, "application/problem+json", message)
    return _make_response(status, "text/plain; charset=utf-8", message)


def prefers_text(accept: str | None) -> bool:
    """Return whether a client prefers plain text to a problem document in JSON.

    accept is the Accept header, None if the request has none. RFC 9110, section 12.5.1.
    """
    return accept is not None and len(accept) <= MAX_ACCEPT_CHARS and _prefers_text(accept)


def _make_response(status: int, media_type: str, body: str) -> EncodedResponse:
    content = body.encode("utf-8", "backslashreplace")
    headers = {
        "content-type": media_type,
        "content-length": str(len(content)),
        "cache-control": "no-store",
    }
    return EncodedResponse(content, status, headers)


@lru_cache(maxsize=256)
def _default_body(
    status: int, exceeded_limits: tuple[str, ...], server_lacks_capacity: bool, is_text: bool
) -> str:
    problem = _limit_problem(status, _title_of(status), exceeded_limits, server_lacks_capacity)
    return str(problem["detail"]) if is_text else json.dumps(problem)


def _title_of(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Refused"


# A client that is refused again and again sends the same header each time: parse it only once.
@lru_cache(maxsize=256)
def _prefers_text(accept: str) -> bool:
    weights = parse_weights_in_thousandths(accept)
    return _get_most_specific_weight(weights, _TEXT_RANGES) > max(
        _get_most_specific_weight(weights, ranges) for ranges in _JSON_RANGES
    )


def _get_most_specific_weight(weights: Mapping[str, int], ranges: Sequence[str]) -> int:
    """Return the weight of the first media range that is in weights, or 0 if none is.

    weights are those of the Accept header. ranges begin with the most specific one.
    """
    return next((weights[name] for name in ranges if name in weights), 0)
