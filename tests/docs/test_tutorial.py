"""The tutorial works as it is printed: its files are written, its commands run, its output seen.

The test does what the page tells the reader, in the page's order, in an empty folder. A block of
Python replaces the file that its first line names. A line of a `console` block that begins with
`$` is a command; the lines below it are what it prints. A command is repeated until it prints that,
since jobs take their time. Only the installation is left out: `sh` blocks are not run.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.docs.markdown import ROOT, Block, blocks
from tests.docs.programs import environment, running, wait_until_served
from tests.servers.redis import free_port

PAGE: Final = ROOT / "docs" / "tutorial.md"
PORT_OF_THE_PAGE: Final = "8000"
DEADLINE_SECONDS: Final = 30
TOLERANCE: Final = 0.1

_FILE: Final = re.compile(r"# (\w+\.py)\n")
_MEASURED: Final = re.compile(r"(\d[\d.]*) (s|bytes)$", re.MULTILINE)


def steps() -> Iterator[tuple[str, list[Block]]]:
    """Return the headings of the page, each with the blocks below it."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    starts = [n for n, line in enumerate(lines, 1) if line.startswith("## ")]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        found = [block for block in blocks(PAGE) if start < block.line <= end]
        if found:
            yield lines[start - 1].removeprefix("## "), found


def commands(block: Block) -> list[tuple[str, str]]:
    """Return the commands of a block, each with the output that the page shows."""
    parts = re.split(r"^\$ ", block.code, flags=re.MULTILINE)[1:]
    return [(command, output) for command, _, output in (part.partition("\n") for part in parts)]


def is_alike(shown: str, printed: str) -> bool:
    """Compare two outputs, with some tolerance for measured times and sizes."""
    if _MEASURED.sub(r"\2", shown) != _MEASURED.sub(r"\2", printed):
        return False
    pairs = zip(_MEASURED.findall(shown), _MEASURED.findall(printed), strict=True)
    return all(is_about(float(a), float(b), unit) for (a, unit), (b, _) in pairs)


def is_about(shown: float, measured: float, unit: str) -> bool:
    if unit == "s":  # the machine may be busy: only "at once" and "slow" can be told apart
        return (shown < 1) == (measured < 1)
    return abs(shown - measured) <= TOLERANCE * shown


def module(command: str) -> list[str]:
    """Return the command as a module of this Python, wherever its scripts are installed."""
    return [sys.executable, "-m", *shlex.split(command)]


class Reader:
    """Somebody who follows the tutorial, in a folder and on a port."""

    def __init__(self, folder: Path, programs: ExitStack) -> None:
        self._folder = folder
        self._port = str(free_port())
        self._programs = programs
        self._server = programs.enter_context(ExitStack())
        self._definitions = ""

    def read(self, block: Block) -> None:
        match block.language:
            case "python":
                self._write(block)
            case "console":
                for command, shown in commands(block):
                    self._type(command, shown)

    def _write(self, block: Block) -> None:
        found = _FILE.match(block.code)
        assert found, f"{block}: the first line does not name a file"
        (self._folder / found[1]).write_text(block.code, encoding="utf-8")

    def _type(self, command: str, shown: str) -> None:
        if command.startswith("uvicorn "):
            self._serve(command)
        elif command.startswith("hasten worker "):
            self._programs.enter_context(running(*module(command), folder=self._folder))
        elif "() {" in command:
            self._definitions += command + "\n"
        else:
            self._expect(command, shown)

    def _serve(self, command: str) -> None:
        self._server.close()
        server = running(*module(command), "--port", self._port, folder=self._folder)
        process = self._server.enter_context(server)
        wait_until_served(process, f"http://127.0.0.1:{self._port}")

    def _expect(self, command: str, shown: str) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not is_alike(shown.strip(), printed := self._run(command).strip()):
            assert time.monotonic() < deadline, f"$ {command}\n{printed}\ninstead of\n{shown}"

    def _run(self, command: str) -> str:
        script = (self._definitions + command).replace(f":{PORT_OF_THE_PAGE}", f":{self._port}")
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self._folder,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=True,
        )
        assert done.stderr == ""
        return done.stdout


def test_each_step_does_what_it_shows(tmp_path: Path, subtests: pytest.Subtests) -> None:
    with ExitStack() as programs:
        reader = Reader(tmp_path, programs)
        for heading, found in steps():
            with subtests.test(heading):
                for block in found:
                    reader.read(block)
                continue
            break  # the next steps build on this one


def test_output_is_compared_with_tolerance_for_times_and_sizes() -> None:
    assert is_alike("{}\n0.004 s", "{}\n0.9 s")
    assert not is_alike("{}\n0.004 s", "{}\n3.1 s")
    assert is_alike("1000 bytes", "1050 bytes")
    assert not is_alike("1000 bytes", "700 bytes")
    assert not is_alike('{"id": 1}', '{"id": 2}')
