"""Whether tracing with OpenTelemetry is on.

It is on if `opentelemetry-api` is installed, the application has set a tracer provider, and
HASTEN_TRACING is not 0. `_spans.py` makes the spans.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hasten.jobs._spans import Spans


_modules: Final = sys.modules


def get_spans_if_tracing() -> Spans | None:
    """Return the object that makes the spans, None if tracing is off at present.

    For code that is about to make a span. It is called for every job that is added, so it costs no
    more than a look into a dict if the process has not imported OpenTelemetry.
    """
    if "opentelemetry.trace" not in _modules:
        return None
    spans = make_spans()
    return spans if spans is not None and spans.is_on else None


def get_or_make_spans() -> Spans | None:
    """Return the object that makes the spans, also if no tracer provider is set.

    None if HASTEN_TRACING is 0, or if the process has not imported OpenTelemetry: then no tracer
    provider is set, and the import would delay the first job by 50 ms for nothing.
    """
    return make_spans() if "opentelemetry.trace" in _modules else None


@cache
def make_spans() -> Spans | None:
    """Import OpenTelemetry, and return the object that makes the spans of this process.

    None if HASTEN_TRACING is 0 or OpenTelemetry is not installed.
    """
    if os.environ.get("HASTEN_TRACING") == "0":
        return None
    try:
        from hasten.jobs._spans import Spans  # noqa: PLC0415  # OpenTelemetry is optional
    except ModuleNotFoundError:
        return None
    return Spans()
