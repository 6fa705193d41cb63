"""A tracer provider of OpenTelemetry whose spans a test can read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from hasten.jobs._tracing import make_spans

_exporter: Final = InMemorySpanExporter()
provider: Final = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(_exporter))


class Spans:
    """The spans that have ended."""

    def all(self) -> list[ReadableSpan]:
        return list(_exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all() if span.name == name]


@contextmanager
def recorded_spans() -> Iterator[Spans]:
    """Record spans within the block, and none outside of it."""
    with pytest.MonkeyPatch.context() as patch:
        # OpenTelemetry accepts one provider in the life of a process; other tests need none.
        patch.setattr(trace, "_TRACER_PROVIDER", provider)
        make_spans.cache_clear()  # a provider is looked for once a second
        _exporter.clear()
        yield Spans()
        _exporter.clear()
        make_spans.cache_clear()
