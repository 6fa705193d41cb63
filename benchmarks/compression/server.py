"""A contestant's server: one process, whose processor time and memory are read from outside."""

from __future__ import annotations

import ctypes
import json
import select
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from benchmarks.compression.contestant import Contestant

ROOT: Final = Path(__file__).parents[2]
START_SECONDS: Final = 30.0


class Failed(Exception):
    """A contestant did not start, ended, or sent something wrong."""


class Server:
    """A context manager; the process is killed at its end. settings are those of the streams."""

    def __init__(self, contestant: type[Contestant], folder: Path, **settings: Any) -> None:
        self.title = contestant.title
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # until `end`
        self._process = subprocess.Popen(
            [*contestant.command(), str(folder), json.dumps({**NO_STREAMS, **settings})],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,  # Ctrl-C is for us to stop it
        )
        self._clock = 0
        self.port = 0

    def __enter__(self) -> Self:
        try:
            self.port = self._read_port()
            self._clock = _cpu_clock(self._process.pid)
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()

    def _read_port(self) -> int:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], START_SECONDS)
        line = self._process.stdout.readline() if ready else ""
        if not line.strip().isdigit():
            raise Failed(f"did not start: {self.last_words()}")
        return int(line)

    def cpu_seconds(self) -> float:
        """Of all threads, system calls included, to the nanosecond where ticks are 10 ms."""
        return time.clock_gettime(self._clock)

    def rss_bytes(self) -> int:
        return self._status("VmRSS")

    def peak_rss_bytes(self) -> int:
        return self._status("VmHWM")

    def _status(self, name: str) -> int:
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        found = next((line.split() for line in lines if line.startswith(f"{name}:")), None)
        if found is None:
            raise Failed(f"ended: {self.last_words()}")
        return int(found[1]) * 1024

    def last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()


NO_STREAMS: Final = {"streams": 0, "events": 0, "interval_seconds": 0.0}


def _cpu_clock(pid: int) -> int:
    """The clock of another process' processor time (POSIX, clock_getcpuclockid)."""
    clock = ctypes.c_int()
    error = ctypes.CDLL(None).clock_getcpuclockid(pid, ctypes.byref(clock))
    if error:
        raise Failed(f"has no processor time: error {error}")
    return clock.value
