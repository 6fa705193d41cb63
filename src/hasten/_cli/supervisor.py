"""A parent that keeps a number of equal processes running.

One that ends unasked is replaced, after a pause that grows while replacements do not live long. The
first SIGTERM or SIGINT is passed on by closing the processes' pipes (`serve.py` says why); a second
one kills them. Looking at them ten times a second costs nothing and is the same on all systems.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any, Final

from hasten._logs import get_logger

logger = get_logger("hasten.cli")

LOOK_SECONDS: Final = 0.1

FIRST_PAUSE_SECONDS: Final = 0.5
LAST_PAUSE_SECONDS: Final = 30.0
LONG_LIFE_SECONDS: Final = 60.0  # whoever lived longer did not die of its start

# What a process may need beyond its grace period to hand jobs back and to end.
HAND_BACK_SECONDS: Final = 20.0


def supervise(commands: Sequence[Sequence[str]], *, grace: float) -> int:
    """Keep a process running for each command until told to stop. Returns the exit status."""
    supervisor = _Supervisor([_Place(n, command) for n, command in enumerate(commands, 1)], grace)
    with supervisor.signals():
        return supervisor.run()


def next_pause(lived: float, last_pause: float) -> float:
    """How long to wait before a process is replaced that lived so long. All in seconds.

    last_pause is the one before it was started, 0 for the first.
    """
    if lived >= LONG_LIFE_SECONDS:
        return FIRST_PAUSE_SECONDS
    return min(max(FIRST_PAUSE_SECONDS, last_pause * 2), LAST_PAUSE_SECONDS)


class _Place:
    """A process to keep running, by number."""

    def __init__(self, number: int, command: Sequence[str]) -> None:
        self._number = number
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._pause = 0.0
        self._due = 0.0  # when the next one starts
        self.stopped_badly = False  # asked to stop, it ended in some other way

    def start_if_due(self, now: float) -> None:
        if self._process is not None or now < self._due:
            return
        # A group of its own: Ctrl+C reaches the parent alone, which passes it on.
        group: dict[str, Any] = {"process_group": 0}
        if sys.platform == "win32":
            group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        try:
            self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, **group)  # noqa: S603
        except OSError as error:  # no memory, too many processes: that may pass
            self._plan_next(0.0, f"process {self._number} could not be started ({error})", now)
            return
        self._started = now
        logger.info("process %d is pid %d", self._number, self._process.pid)

    def is_running(self, now: float, *, stopping: bool) -> bool:
        """Look whether it runs; if it has ended, say so and plan the next one."""
        process = self._process
        if process is None:
            return False
        status = process.poll()
        if status is None:
            return True
        self._let_go()
        self._process = None
        how = f"process {self._number} (pid {process.pid}) {ending(status)}"
        if stopping:
            logger.log(logging.WARNING if status else logging.INFO, "%s", how)
            self.stopped_badly = status != 0
            return False
        self._plan_next(now - self._started, how, now)
        return False

    def _plan_next(self, lived: float, how: str, now: float) -> None:
        self._pause = next_pause(lived, self._pause)
        self._due = now + self._pause
        logger.warning("%s; another one starts in %g s", how, self._pause)

    def ask_to_stop(self) -> None:
        self._let_go()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def _let_go(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()


class _Supervisor:
    def __init__(self, places: Sequence[_Place], grace: float) -> None:
        self._places = places
        self._grace = grace
        self._signals: list[int] = []

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        def take(number: int, _: FrameType | None) -> None:
            self._signals.append(number)  # dealt with at the next look: nothing else is safe here

        numbers = (signal.SIGTERM, signal.SIGINT)
        before = [signal.signal(number, take) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)

    def run(self) -> int:
        try:
            while not self._signals:
                now = time.monotonic()
                for place in self._places:
                    if not place.is_running(now, stopping=False):
                        place.start_if_due(now)
                time.sleep(LOOK_SECONDS)
            return self._stop()
        finally:
            for place in self._places:
                place.kill()  # none is left, unless something unforeseen brought us here

    def _stop(self) -> int:
        logger.info("stopping; a second signal ends all processes at once")
        for place in self._places:
            place.ask_to_stop()
        deadline = time.monotonic() + self._grace + HAND_BACK_SECONDS
        while self._any_runs():
            if len(self._signals) > 1:
                return self._kill("a second signal came", 128 + self._signals[1])
            if time.monotonic() > deadline:
                return self._kill("their time is up", 1)
            time.sleep(LOOK_SECONDS)
        return int(any(place.stopped_badly for place in self._places))

    def _kill(self, why: str, status: int) -> int:
        logger.warning("killing the processes that still run: %s", why)
        for place in self._places:
            place.kill()
        while self._any_runs():
            time.sleep(LOOK_SECONDS)
        return status

    def _any_runs(self) -> bool:
        now = time.monotonic()
        running = [place.is_running(now, stopping=True) for place in self._places]
        return any(running)


def ending(status: int) -> str:
    """Say how a process has ended, from what `Popen.poll` returns."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by signal {-status} ({signal.Signals(-status).name})"
    except ValueError:
        return f"was killed by signal {-status}"
