"""Ends the processes that a test process has started, and removes their files, however it ends.

The reaper is a process of its own that reads their pids from a pipe. The pipe closes when the test
process ends, `kill -9` included: then the reaper stops what still runs, and removes the folder.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

STOP_SECONDS: Final = 3.0
"""How long a process may take to end by SIGINT. SIGKILL follows."""

REMOVE_SECONDS: Final = 20.0
"""How long the folder may stay in use, by processes of another reaper for instance."""


class Reaper:
    """The reaper of this process. It removes folder at the end, if there is one."""

    def __init__(self, folder: Path | None = None) -> None:
        self._pipe: int | None
        reads, self._pipe = os.pipe()
        command = [sys.executable, "-I", "-S", __file__, *([] if folder is None else [str(folder)])]
        # In a session of its own, it outlives Ctrl-C.
        self._process = subprocess.Popen(command, stdin=reads, cwd="/", start_new_session=True)
        os.close(reads)

    def watch_children(self) -> None:
        """Stop all processes at the end that this process starts from now on."""
        reaper = self

        class Popen(subprocess.Popen[Any]):
            def __init__(self, *args: Any, **options: Any) -> None:
                if not options.get("start_new_session"):
                    options.setdefault("process_group", 0)  # to be stopped with its children
                super().__init__(*args, **options)
                reaper._watch(self.pid)

        subprocess.Popen = Popen  # type: ignore[misc]
        os.register_at_fork(after_in_child=self._in_fork)

    def reap(self) -> None:
        """Stop and remove everything now. Returns when it is done."""
        self._close()
        self._process.wait()

    def _watch(self, pid: int) -> None:
        if self._pipe is not None:
            os.write(self._pipe, f"{pid}\n".encode())

    def _in_fork(self) -> None:
        """Register a fork of the test process, and close its copy of the pipe."""
        os.setpgid(0, 0)
        self._watch(os.getpid())
        self._close()

    def _close(self) -> None:
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            os.close(pipe)


def main() -> None:
    births = {pid: _birth(pid) for pid in map(int, sys.stdin)}
    _stop({pid: birth for pid, birth in births.items() if birth is not None})
    for folder in map(Path, sys.argv[1:]):
        _remove(folder)


def _stop(births: dict[int, str]) -> None:
    running = [pid for pid, birth in births.items() if _birth(pid) == birth]
    # By SIGTERM, PostgreSQL would wait until its clients have gone.
    _send(signal.SIGINT, running)
    deadline = time.monotonic() + STOP_SECONDS
    while time.monotonic() < deadline and any(_birth(pid) == births[pid] for pid in running):
        time.sleep(0.01)
    _send(signal.SIGKILL, running)  # also to processes whose group leader has ended


def _send(number: signal.Signals, pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, number)


def _birth(pid: int) -> str | None:
    """When a process was started, as the system tells it; None if it does not run.

    With the pid this says which process it is: pids are used again.
    """
    if not Path("/proc/self/stat").exists():
        command = ["ps", "-o", "lstart=", "-p", str(pid)]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout or None
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *facts = stat.rpartition(")")[2].split()
    return None if state in {"Z", "X"} else facts[18]


def _remove(folder: Path) -> None:
    deadline = time.monotonic() + REMOVE_SECONDS
    while folder.exists() and time.monotonic() < deadline:
        for disk in _disks_below(folder):
            subprocess.run(["umount", "--lazy", disk], check=False)
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.01)


def _disks_below(folder: Path) -> list[str]:
    """Return the file systems that a test has mounted below a folder."""
    with contextlib.suppress(FileNotFoundError):
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace")
        points = [line.split()[1] for line in mounts.splitlines()]
        return [point for point in points if point.startswith(f"{folder}/")]
    return []


if __name__ == "__main__":
    main()
