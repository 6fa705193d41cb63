"""What a request gets that is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Final

from hasten._answers import Answer

DETAIL: Final = "Too many requests, please try again later."

_TYPES: Final = "https://iana.org/assignments/http-problem-types#"
QUOTA: Final = _TYPES + "quota-exceeded"
CAPACITY: Final = _TYPES + "temporary-reduced-capacity"
ABNORMAL: Final = _TYPES + "abnormal-usage-detected"


def refusal(
    message: str | Mapping[str, object] | None,
    *,
    status: int,
    limits: Sequence[str],
    kind: str = QUOTA,
    accept: str | None = None,
) -> Answer:
    """The answer to a refused request, without what tells of limits.

    A message is sent as it is: a text as text/plain (as HTML it could be made to run), a mapping
    as JSON. Without one it is a problem (RFC 9457) that names the limits, or its plain text for who
    wants that. Caches must not keep it: RFC 6585, section 4.
    """
    if isinstance(message, Mapping):
        return _answer(status, "application/json", json.dumps(message))
    if message is None and not _prefers_text(accept):
        return _answer(
            status, "application/problem+json", json.dumps(_problem(status, limits, kind))
        )
    return _answer(status, "text/plain; charset=utf-8", DETAIL if message is None else message)


def _answer(status: int, media_type: str, body: str) -> Answer:
    content = body.encode("utf-8", "backslashreplace")
    headers = {
        "content-type": media_type,
        "content-length": str(len(content)),
        "cache-control": "no-store",
    }
    return Answer(content, status, headers)


def _problem(status: int, limits: Sequence[str], kind: str) -> dict[str, object]:
    problem: dict[str, object] = {
        "type": kind,
        "title": _phrase(status),
        "status": status,
        "detail": DETAIL if kind != CAPACITY else "The server is busy, please try again later.",
    }
    if kind == QUOTA:
        problem["violated-policies"] = list(limits)
    return problem


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Refused"


def _prefers_text(accept: str | None) -> bool:
    """Whether a client wants plain text and no JSON, by what it names. RFC 9110, section 12.5.1."""
    if accept is None:
        return False
    named = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    return "text/plain" in named and not named & {
        "application/json", "application/problem+json", "application/*", "*/*",
    }  # fmt: skip
