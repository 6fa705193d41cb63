"""Show the progress of a benchmark: a status line, and a progress bar for long preparations."""

from __future__ import annotations

import sys
import time
from typing import Final, Self

WIDTH: Final = 30


class Progress:
    """A context manager that prints each step to stderr.

    On a terminal, each step overwrites the line of the previous one. steps is the number of steps,
    None if it is unknown.
    """

    def __init__(self, steps: int | None = None) -> None:
        self._steps = steps
        self._step = 0
        self._start = time.monotonic()
        self._overwrites = sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._overwrites:
            self._write("")

    def report(self, what: str) -> None:
        self._step += 1
        seconds = int(time.monotonic() - self._start)
        steps = "" if self._steps is None else f"{self._step}/{self._steps}, "
        self._write(f"[{steps}{seconds // 60}:{seconds % 60:02}] {what}")

    def _write(self, line: str) -> None:
        start, end = ("\r\x1b[K", "") if self._overwrites else ("", "\n")
        sys.stderr.write(f"{start}{line}{end}")
        sys.stderr.flush()


class Bar:
    """A progress bar on stderr. If that is not a terminal, a line is printed for each tenth."""

    def __init__(self, title: str, total: int) -> None:
        self._title = title
        self._total = total
        self._done = 0
        self._shown = -1
        self._start = time.monotonic()
        self._overwrites = sys.stderr.isatty()

    def __enter__(self) -> Self:
        self.advance(0)
        return self

    def __exit__(self, *_: object) -> None:
        if self._overwrites:
            sys.stderr.write("\n")

    def advance(self, count: int) -> None:
        self._done += count
        share = self._done / self._total if self._total else 1.0
        shown = int(share * (100 if self._overwrites else 10))
        if shown != self._shown:
            self._shown = shown
            self._show(share)

    def _show(self, share: float) -> None:
        start, end = ("\r\x1b[K", "") if self._overwrites else ("", "\n")
        bar = ("█" * round(share * WIDTH)).ljust(WIDTH, "░")
        seconds = int(time.monotonic() - self._start)
        line = f"{bar} {share:4.0%} {seconds // 60}:{seconds % 60:02} {self._title}"
        sys.stderr.write(f"{start}{line}{end}")
        sys.stderr.flush()
