"""The parent process of `hasten worker --processes`, which keeps the worker processes running.

If a worker process ends unexpectedly, the parent starts another one after a pause. The pause grows
while the new processes end soon after their start. At the first SIGTERM or SIGINT, the parent
closes its pipes to the processes, which stops them (see `serve.py`). At the second one, it kills
them. The parent checks the processes ten times a second, which is cheap and works in the same way
on all operating systems.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any, Final, Protocol

from hasten._cli.reporting import ReportClient
from hasten._logs import get_logger
from hasten.jobs._stop_signals import handle_stop_signals

logger = get_logger("hasten.cli")

POLL_SECONDS: Final = 0.1

FIRST_PAUSE_SECONDS: Final = 0.5
LAST_PAUSE_SECONDS: Final = 30.0
LONG_LIFE_SECONDS: Final = 60.0  # after this time, a process counts as started successfully

# How long a process may take after its grace period to return jobs to their queue and to end.
HAND_BACK_SECONDS: Final = 20.0


class Observer(Protocol):
    """Gets the connection with a child, to request reports over it. See `sources.py`."""

    def on_started(self, client: ReportClient) -> None:
        """A process was started. client is connected with its standard input."""

    def on_stopping(self) -> None:
        """The process was asked to stop."""

    def on_ended(self, problem: str | None) -> None:
        """The process has ended. problem says how, None if it was asked to stop."""


def supervise(
    commands: Sequence[Sequence[str]], *, grace: float, observers: Sequence[Observer] = ()
) -> int:
    """Run each command in a process, and restart it when it ends, until a signal stops all.

    grace is the grace period of the workers, in seconds. If there are observers, there is one for
    each command.

    Returns the exit status for this process: 0 if all processes stopped with status 0, 1 if one
    had another status or was killed after the grace period, and 128 + the number of the signal if a
    second signal ended them.
    """
    slots = [
        _ProcessSlot(n, command, observer)
        for n, (command, observer) in enumerate(zip_longest(commands, observers), 1)
    ]
    supervisor = _Supervisor(slots, grace)
    with handle_stop_signals(supervisor.signals.append):
        return supervisor.run()


def next_restart_pause(lived: float, last_pause: float) -> float:
    """Return the pause, in seconds, before a process that has ended is replaced.

    lived is how long the process ran, and last_pause the pause before it was started, both in
    seconds. last_pause is 0 for the first process.
    """
    if lived >= LONG_LIFE_SECONDS:
        return FIRST_PAUSE_SECONDS
    return min(max(FIRST_PAUSE_SECONDS, last_pause * 2), LAST_PAUSE_SECONDS)


class _ProcessSlot:
    """Runs a command in a process, and replaces the process when it ends unexpectedly."""

    def __init__(self, number: int, command: Sequence[str], observer: Observer | None) -> None:
        self._number = number
        self._command = command
        self._observer = observer
        self._client: ReportClient | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._pause = 0.0
        self._due = 0.0  # when the next process is to be started, in time.monotonic()
        self.stopped_with_error = False  # the process was asked to stop, and its status was not 0

    def start_if_due(self, now: float) -> None:
        """Start a process if none is running and the pause after the last one is over."""
        if self._process is not None or now < self._due:
            return
        # In a process group of its own, so that Ctrl+C sends SIGINT only to the parent.
        popen_options: dict[str, Any] = {"process_group": 0}
        if sys.platform == "win32":
            popen_options = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        try:
            self._process = self._start(popen_options)
        except OSError as error:  # such as no memory or too many processes, which may be temporary
            self._schedule_restart(
                0.0, f"process {self._number} could not be started ({error})", now
            )
            return
        self._started = now
        logger.info("process %d started with pid %d", self._number, self._process.pid)

    def _start(self, popen_options: Mapping[str, Any]) -> subprocess.Popen[bytes]:
        """Start a process whose standard input is a pipe, or a socket if there is an observer.

        popen_options are the arguments of `Popen` that create a process group.
        """
        if self._observer is None:
            return subprocess.Popen(self._command, stdin=subprocess.PIPE, **popen_options)  # noqa: S603
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = subprocess.Popen(self._command, stdin=theirs.fileno(), **popen_options)  # noqa: S603
            except BaseException:
                ours.close()
                raise
        self._client = ReportClient(ours)
        self._observer.on_started(self._client)
        return process

    def poll_and_handle_exit(self, now: float, *, is_stopping: bool) -> bool:
        """Return whether the process is running. If it has just ended, log how.

        Unless is_stopping is set, which means that it was asked to stop, also schedule its restart.
        """
        process = self._process
        if process is None:
            return False
        status = process.poll()
        if status is None:
            return True
        self._close_pipe()
        self._process = None
        how = f"process {self._number} (pid {process.pid}) {describe_exit(status)}"
        if self._observer is not None:
            self._observer.on_ended(
                None if is_stopping else f"{describe_exit(status)}, is restarted"
            )
        if is_stopping:
            logger.log(logging.WARNING if status else logging.INFO, "%s", how)
            self.stopped_with_error = status != 0
            return False
        self._schedule_restart(now - self._started, how, now)
        return False

    def _schedule_restart(self, lived: float, what_happened: str, now: float) -> None:
        self._pause = next_restart_pause(lived, self._pause)
        self._due = now + self._pause
        logger.warning("%s; another one starts in %g s", what_happened, self._pause)

    def request_stop(self) -> None:
        """Let the process stop gracefully, by closing the pipe to it, or with a request."""
        if self._client is not None:
            if self._observer is not None:
                self._observer.on_stopping()
            self._client.request_stop()
        else:
            self._close_pipe()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def _close_pipe(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        if self._client is not None:
            self._client.close()
            self._client = None


class _Supervisor:
    """Checks all processes at short intervals, and stops them when a signal arrives."""

    def __init__(self, slots: Sequence[_ProcessSlot], grace: float) -> None:
        self._slots = slots
        self._grace = grace
        # The signals that have arrived. The signal handler only appends to this list, and the next
        # poll reacts: logging, for example, is not safe in a signal handler.
        self.signals: list[int] = []

    def run(self) -> int:
        try:
            while not self.signals:
                now = time.monotonic()
                for slot in self._slots:
                    if not slot.poll_and_handle_exit(now, is_stopping=False):
                        slot.start_if_due(now)
                time.sleep(POLL_SECONDS)
            return self._stop_all()
        finally:
            for slot in self._slots:
                slot.kill()  # does nothing unless an unexpected error has left processes running

    def _stop_all(self) -> int:
        logger.info("stopping; a second signal ends all processes at once")
        for slot in self._slots:
            slot.request_stop()
        deadline = time.monotonic() + self._grace + HAND_BACK_SECONDS
        while self._is_any_running():
            if len(self.signals) > 1:
                return self._kill_all("second signal", 128 + self.signals[1])
            if time.monotonic() > deadline:
                return self._kill_all("the grace period is over", 1)
            time.sleep(POLL_SECONDS)
        return int(any(slot.stopped_with_error for slot in self._slots))

    def _kill_all(self, why: str, status: int) -> int:
        logger.warning("killing the processes that are still running: %s", why)
        for slot in self._slots:
            slot.kill()
        while self._is_any_running():
            time.sleep(POLL_SECONDS)
        return status

    def _is_any_running(self) -> bool:
        now = time.monotonic()
        running = [slot.poll_and_handle_exit(now, is_stopping=True) for slot in self._slots]
        return any(running)


def describe_exit(status: int) -> str:
    """Return a text for the log that says how a process has ended.

    status is the return value of `Popen.poll`: the exit status, or a negative signal number.
    """
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by signal {-status} ({signal.Signals(-status).name})"
    except ValueError:
        return f"was killed by signal {-status}"
