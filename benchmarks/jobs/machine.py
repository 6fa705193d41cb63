"""The facts that a number is worth nothing without."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

FLUSHES = 100


def facts(packages: Iterable[str], folder: Path | None) -> dict[str, str]:
    """What the table is headed with. folder is where the contestants keep their files."""
    return {
        "processor": f"{_processor()}, {os.cpu_count()} CPUs",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "sqlite": sqlite3.sqlite_version,
        "libraries": ", ".join(f"{package} {version(package)}" for package in packages),
        "flush": f"{flush_ms(folder):.2f} ms to write a page and flush it (fsync)",
        "load": f"{os.getloadavg()[0]:.1f} processes wanted to run in the minute before",
    }


def version(package: str) -> str | None:
    """The installed version, None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def flush_ms(folder: Path | None) -> float:
    """The median time of a commit's floor. Next to nothing means a file system in memory."""
    taken: list[float] = []
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        for _ in range(FLUSHES):
            start = time.perf_counter()
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
            taken.append((time.perf_counter() - start) * 1e3)
    return statistics.median(taken)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown processor"
