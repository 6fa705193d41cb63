"""A line that says what is being measured."""

from __future__ import annotations

import sys
import time


class Progress:
    """On a terminal one line, written over; elsewhere a line for each step. To stderr."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._step = 0
        self._start = time.monotonic()
        self._overwrites = sys.stderr.isatty()

    def tell(self, what: str) -> None:
        self._step += 1
        seconds = int(time.monotonic() - self._start)
        clock = f"{seconds // 60}:{seconds % 60:02}"
        self._write(f"[{self._step}/{self._steps}, {clock}] {what}")

    def end(self) -> None:
        if self._overwrites:
            self._write("")

    def _write(self, line: str) -> None:
        start, end = ("\r\x1b[K", "") if self._overwrites else ("", "\n")
        sys.stderr.write(f"{start}{line}{end}")
        sys.stderr.flush()
