"""Ends the processes that a test process has started, and removes their files, however it ends.

The reaper is a process of its own that reads the pids from a pipe. The pipe closes when the test
process ends, `kill -9` included: then the reaper stops what still runs, and removes the folder.
This needs nothing of the system but pipes, so it works the same on Linux and macOS.
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
    """The reaper of this process. folder, if any, is removed in the end."""

    def __init__(self, folder: Path | None = None) -> None:
        self._pipe, self._process = _start(folder)
        os.register_at_fork(after_in_child=self._in_fork)

    def watch(self, pid: int) -> None:
        """Stop this process in the end: its whole group, if it leads one."""
        self._write(f"+{pid}")

    def forget(self, pid: int) -> None:
        """Leave a process alone that has ended: another one may get its pid."""
        self._write(f"-{pid}")

    def reap(self) -> None:
        """Stop and remove everything now. Returns when that is done."""
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            os.close(pipe)
            self._process.wait()

    def _write(self, line: str) -> None:
        if self._pipe is not None:
            os.write(self._pipe, f"{line}\n".encode())

    def _in_fork(self) -> None:
        """A fork of the test process is one more to be stopped, and holds no pipe open."""
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            os.write(pipe, f"+{os.getpid()}\n".encode())
            os.close(pipe)


def watch_all(reaper: Reaper) -> None:
    """Let the reaper watch whatever this process starts from now on."""

    class Popen(subprocess.Popen[Any]):
        _is_watched = False

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            reaper.watch(self.pid)
            self._is_watched = True

        def poll(self) -> int | None:
            return self._noted(super().poll())

        def wait(self, timeout: float | None = None) -> int:
            code = super().wait(timeout)
            self._noted(code)
            return code

        def _noted(self, code: int | None) -> int | None:
            if code is not None and self._is_watched:
                self._is_watched = False
                reaper.forget(self.pid)
            return code

    subprocess.Popen = Popen  # type: ignore[misc]


def _start(folder: Path | None) -> tuple[int | None, subprocess.Popen[bytes]]:
    reads, writes = os.pipe()
    command = [sys.executable, "-I", "-S", __file__, *([] if folder is None else [str(folder)])]
    try:
        # In a session of its own it outlives Ctrl-C.
        return writes, subprocess.Popen(command, stdin=reads, cwd="/", start_new_session=True)
    finally:
        os.close(reads)


def main() -> None:
    pids: set[int] = set()
    for line in sys.stdin:
        (pids.add if line[0] == "+" else pids.discard)(int(line[1:]))
    _stop(pids)
    for folder in map(Path, sys.argv[1:]):
        _remove(folder)


def _stop(pids: set[int]) -> None:
    groups = {pid for pid in pids if _leads_a_group(pid)}
    # By SIGTERM, PostgreSQL would wait until its clients have gone.
    for number in (signal.SIGINT, signal.SIGKILL):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                (os.killpg if pid in groups else os.kill)(pid, number)
        deadline = time.monotonic() + STOP_SECONDS
        while any(map(_runs, pids)) and time.monotonic() < deadline:
            time.sleep(0.01)


def _leads_a_group(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        return os.getpgid(pid) == pid
    return False


def _runs(pid: int) -> bool:
    """Whether a process runs. One that has ended, and that nobody waits for, does not."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}
    if Path("/proc/self/stat").exists():
        return False
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, 0)
        return True
    return False


def _remove(folder: Path) -> None:
    deadline = time.monotonic() + REMOVE_SECONDS
    while folder.exists() and time.monotonic() < deadline:
        for disk in _disks_below(folder):
            subprocess.run(["umount", "--lazy", disk], check=False)
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.01)


def _disks_below(folder: Path) -> list[str]:
    """What a test has mounted."""
    with contextlib.suppress(FileNotFoundError):
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace")
        points = [line.split()[1] for line in mounts.splitlines()]
        return [point for point in points if point.startswith(f"{folder}/")]
    return []


if __name__ == "__main__":
    main()
