"""Whatever ends a run of the tests, nothing of it is left; and a test that fails, fails alone."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.acceptance.site import is_alive

ROOT: Final = Path(__file__).parent.parent
DEADLINE_SECONDS: Final = 100.0

BUSY: Final = """
import multiprocessing, os, pathlib, subprocess, tempfile, time
from tests.servers.redis import shared_redis

def test_that_is_busy(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").touch()
    pathlib.Path(tempfile.mkdtemp(), "file").touch()
    shell = subprocess.Popen(
        ["sh", "-c", "trap '' INT; sleep 600 & echo $!; wait"], stdout=subprocess.PIPE, text=True
    )
    sleep = subprocess.Popen(["sleep", "600"], start_new_session=True)
    started = [shared_redis().pid, shell.pid, int(shell.stdout.readline()), sleep.pid]
    fork = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
    fork.start()
    told = pathlib.Path(os.environ["TOLD"])
    told.with_suffix(".part").write_text(f"{os.getpid()} {fork.pid} {' '.join(map(str, started))}")
    told.with_suffix(".part").rename(told)
    time.sleep(600)
"""

TROUBLED: Final = """
import os, signal, threading

def test_that_passes() -> None:
    pass

def test_that_hangs() -> None:
    threading.Event().wait()

def test_that_crashes() -> None:
    os.kill(os.getpid(), signal.SIGKILL)

def test_that_says_what_is_no_text() -> None:
    print(chr(0xD800))
"""


class Run:
    """Run a test in a subprocess, with the settings of this repository."""

    def __init__(self, folder: Path, text: str, *options: str) -> None:
        test = folder / "test_inner.py"
        test.write_text(text)
        self._told = folder / "told"
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self._output = folder / "output"
        with self._output.open("w") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"),
                 "-p", "tests.conftest", "-p", "no:cacheprovider", "-p", "no:hypothesispytest",
                 *options, str(test)],
                cwd=ROOT,
                env={**os.environ, "TMPDIR": str(self.temporary), "TOLD": str(self._told)},
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip

    @property
    def output(self) -> str:
        return self._output.read_text()

    def pids(self) -> list[int]:
        """Return the pids of the process of the test and of its children."""
        self.until(self._told.exists)
        return [int(pid) for pid in self._told.read_text().split()]

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def status(self) -> int:
        return self._process.wait(DEADLINE_SECONDS)

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, self.output
            time.sleep(0.02)

    def until_nothing_is_left(self, pids: list[int]) -> None:
        self.until(lambda: not any(map(is_alive, pids)))
        self.until(lambda: not list(self.temporary.iterdir()))


@pytest.mark.parametrize(
    ("number", "processes"),
    [
        (signal.SIGINT, "-n1"),
        (signal.SIGTERM, "-n1"),
        (signal.SIGKILL, "-n1"),
        (signal.SIGKILL, "-n0"),
    ],
)
def test_leaves_no_process_nor_file(number: signal.Signals, processes: str, tmp_path: Path) -> None:
    run = Run(tmp_path, BUSY, processes)
    pids = run.pids()
    run.send(number)
    run.status()
    run.until_nothing_is_left(pids)


def test_a_process_of_the_run_that_crashes_leaves_no_process(tmp_path: Path) -> None:
    run = Run(tmp_path, BUSY, "-n1", "--max-worker-restart=0")
    pids = run.pids()
    os.kill(pids[0], signal.SIGKILL)
    assert run.status() == pytest.ExitCode.TESTS_FAILED
    run.until_nothing_is_left(pids)


def test_a_test_that_hangs_or_crashes_fails_alone(tmp_path: Path) -> None:
    run = Run(tmp_path, TROUBLED, "-n1", "-o", "faulthandler_timeout=1")
    assert run.status() == pytest.ExitCode.TESTS_FAILED
    assert "2 failed, 2 passed" in run.output
    assert re.search("crashed while running '.*::test_that_hangs'", run.output)
    assert ", line 8 in test_that_hangs" in run.output  # the stacks of all threads
    run.until_nothing_is_left([])
