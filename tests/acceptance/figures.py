"""Measurements of scenarios that take minutes: shown as they run, and in a table."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest

# The size of the scenarios, as a share of the whole: HASTEN_SCALE=0.01 takes seconds.
SCALE: Final = float(os.environ.get("HASTEN_SCALE", "1"))


def scaled(number: int) -> int:
    """Return the number at the configured scale."""
    return max(100, round(number * SCALE))


class Figures:
    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._rows: list[tuple[str, str, str, str]] = []

    def progress(self, text: str) -> None:
        """Print the progress of a scenario, although pytest captures output."""
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.ensure_newline()
            reporter.write_line(f"  {time.strftime('%H:%M:%S')} {text}", flush=True)

    def add(self, scenario: str, engine: str, what: str, value: str) -> None:
        self._rows.append((scenario, engine, what, value))
        self.progress(f"{scenario}, {engine}: {what}: {value}")

    @contextmanager
    def timed(self, scenario: str, engine: str, what: str, count: int) -> Iterator[None]:
        """Measure how long the block takes for that many jobs."""
        began = time.monotonic()
        yield
        seconds = time.monotonic() - began
        self.add(scenario, engine, what, f"{seconds:,.1f} s, {count / seconds:,.0f} jobs/s")

    def table(self) -> list[str]:
        """Return a table in Markdown, or nothing if there are no measurements."""
        if not self._rows:
            return []
        head = ("scenario", "store", "what", "measured")
        rows = [head, ("---",) * 4, *self._rows]
        return ["", *(f"| {' | '.join(row)} |" for row in rows)]
