"""The parent process of `hasten worker --processes`: it keeps worker processes running.

It replaces a process that ends without being asked to, after a pause that grows while the new
processes end soon. At the first SIGTERM or SIGINT it closes the pipes of the processes, which stops
them (see `serve.py`); at the second one it kills them. It checks them ten times a second: that is
cheap, and the same on all systems.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

from hasten._logs import get_logger
from hasten.jobs._stop_signals import handle_stop_signals

logger = get_logger("hasten.cli")

POLL_SECONDS: Final = 0.1

FIRST_PAUSE_SECONDS: Final = 0.5
LAST_PAUSE_SECONDS: Final = 30.0
LONG_LIFE_SECONDS: Final = 60.0  # a process that ran longer has not failed at its start

# How long a process may take after its grace period, to hand jobs back and to end.
HAND_BACK_SECONDS: Final = 20.0


def supervise(commands: Sequence[Sequence[str]], *, grace: float) -> int:
    """Keep a process running for each command until a signal. Returns the exit status."""
    supervisor = _Supervisor([_Slot(n, command) for n, command in enumerate(commands, 1)], grace)
    with handle_stop_signals(supervisor.signals.append):
        return supervisor.run()


def next_pause(lived: float, last_pause: float) -> float:
    """Return how long to wait before replacing a process that ran for so long. All in seconds.

    last_pause is the pause before that process was started, 0 for the first one.
    """
    if lived >= LONG_LIFE_SECONDS:
        return FIRST_PAUSE_SECONDS
    return min(max(FIRST_PAUSE_SECONDS, last_pause * 2), LAST_PAUSE_SECONDS)


class _Slot:
    """A process that is kept running, and its replacements."""

    def __init__(self, number: int, command: Sequence[str]) -> None:
        self._number = number
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._pause = 0.0
        self._due = 0.0  # when the next one starts
        self.stopped_badly = False  # it was asked to stop, and ended with an error

    def start_if_due(self, now: float) -> None:
        if self._process is not None or now < self._due:
            return
        # A group of its own, so that Ctrl+C reaches only the parent.
        group: dict[str, Any] = {"process_group": 0}
        if sys.platform == "win32":
            group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        try:
            self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, **group)  # noqa: S603
        except OSError as error:  # no memory, too many processes: that may be temporary
            self._plan_next(0.0, f"process {self._number} could not be started ({error})", now)
            return
        self._started = now
        logger.info("process %d is pid %d", self._number, self._process.pid)

    def is_running(self, now: float, *, stopping: bool) -> bool:
        """Return whether the process runs. If it has ended, log that and schedule the next one."""
        process = self._process
        if process is None:
            return False
        status = process.poll()
        if status is None:
            return True
        self._close_pipe()
        self._process = None
        how = f"process {self._number} (pid {process.pid}) {describe_exit(status)}"
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

    def request_stop(self) -> None:
        self._close_pipe()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def _close_pipe(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()


class _Supervisor:
    def __init__(self, slots: Sequence[_Slot], grace: float) -> None:
        self._slots = slots
        self._grace = grace
        self.signals: list[int] = []  # the next poll handles them: nothing else is safe

    def run(self) -> int:
        try:
            while not self.signals:
                now = time.monotonic()
                for slot in self._slots:
                    if not slot.is_running(now, stopping=False):
                        slot.start_if_due(now)
                time.sleep(POLL_SECONDS)
            return self._stop()
        finally:
            for slot in self._slots:
                slot.kill()  # they still run only after an unexpected error

    def _stop(self) -> int:
        logger.info("stopping; a second signal ends all processes at once")
        for slot in self._slots:
            slot.request_stop()
        deadline = time.monotonic() + self._grace + HAND_BACK_SECONDS
        while self._any_runs():
            if len(self.signals) > 1:
                return self._kill("second signal", 128 + self.signals[1])
            if time.monotonic() > deadline:
                return self._kill("their grace period is over", 1)
            time.sleep(POLL_SECONDS)
        return int(any(slot.stopped_badly for slot in self._slots))

    def _kill(self, why: str, status: int) -> int:
        logger.warning("killing the processes that are still running: %s", why)
        for slot in self._slots:
            slot.kill()
        while self._any_runs():
            time.sleep(POLL_SECONDS)
        return status

    def _any_runs(self) -> bool:
        now = time.monotonic()
        running = [slot.is_running(now, stopping=True) for slot in self._slots]
        return any(running)


def describe_exit(status: int) -> str:
    """Return how a process has ended, from the status that `Popen.poll` returned."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by signal {-status} ({signal.Signals(-status).name})"
    except ValueError:
        return f"was killed by signal {-status}"
