"""The server process of a contestant, whose processor time and memory are measured."""

from __future__ import annotations

import ctypes
import json
import select
import time
from pathlib import Path
from typing import Any, Final, Self

from benchmarks.compression.contestant import Contestant
from benchmarks.contestants import Failed
from benchmarks.processes import Process

START_SECONDS: Final = 30.0


class Server:
    """A context manager that kills the process at its end. settings are those of the streams."""

    def __init__(self, contestant: type[Contestant], folder: Path, **settings: Any) -> None:
        settings = {"streams": 0, "events": 0, "interval_seconds": 0.0, **settings}
        self._process = Process([*contestant.command(), str(folder), json.dumps(settings)])
        self._clock = 0
        self.port = 0

    def __enter__(self) -> Self:
        try:
            self.port = self._read_port()
            self._clock = _cpu_clock(self._process.pid)
        except BaseException:
            self._process.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()

    def _read_port(self) -> int:
        output = self._process.output
        ready, _, _ = select.select([output], [], [], START_SECONDS)
        line = output.readline() if ready else ""
        if not line.strip().isdigit():
            raise Failed(f"did not start: {self._process.last_error()}")
        return int(line)

    def cpu_seconds(self) -> float:
        """Return the processor time of all threads, including system calls, in seconds."""
        return time.clock_gettime(self._clock)

    def rss_bytes(self) -> int:
        return self._status("VmRSS")

    def peak_rss_bytes(self) -> int:
        return self._status("VmHWM")

    def _status(self, name: str) -> int:
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        found = next((line.split() for line in lines if line.startswith(f"{name}:")), None)
        if found is None:
            raise Failed(f"ended: {self._process.last_error()}")
        return int(found[1]) * 1024


def _cpu_clock(pid: int) -> int:
    """Return the clock for the processor time of another process (clock_getcpuclockid)."""
    clock = ctypes.c_int()
    error = ctypes.CDLL(None).clock_getcpuclockid(pid, ctypes.byref(clock))
    if error:
        raise Failed(f"processor time cannot be read: error {error}")
    return clock.value
