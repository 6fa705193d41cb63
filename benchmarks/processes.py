"""Run contestants in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.contestants import Failed

ROOT: Final = Path(__file__).parents[1]


def run_json(command: Sequence[str], *, timeout: float) -> Any:
    """Run a command, and return the value of its last line of output, which is JSON.

    Raises `Failed` if the command fails, or does not end within timeout seconds.
    """
    process = Process(command)
    try:
        return process.result(timeout)
    finally:
        process.kill()


class Process:
    """A process in its own group: Ctrl-C does not reach it, and `kill` also ends its children."""

    def __init__(self, command: Sequence[str]) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # until `kill`
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=self._errors, text=True, start_new_session=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        self.output: Final = self._process.stdout
        self.pid: Final = self._process.pid

    def result(self, timeout: float) -> Any:
        """Wait until the process has ended. Return the value of its last line of output, JSON."""
        try:
            output, _ = self._process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise Failed(f"took longer than {timeout:g} s") from None
        if self._process.returncode != 0:
            raise Failed(f"ended with status {self._process.returncode}: {self.last_error()}")
        return json.loads(output.strip().splitlines()[-1])

    def last_error(self) -> str:
        """Return the last line that the process wrote to stderr."""
        self._errors.seek(0)
        lines = [line for line in self._errors.read().splitlines() if line.strip()]
        return lines[-1] if lines else "no message"

    def kill(self) -> None:
        """Kill the process and its children. Safe to call twice."""
        if self._process.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
        self.output.close()
        self._errors.close()
