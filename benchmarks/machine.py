"""Facts about the machine and the software that the numbers of a benchmark depend on."""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Sequence
from pathlib import Path


def facts(versions: Sequence[str]) -> dict[str, str]:
    """Return facts about the machine, Python and the libraries, whose versions are given."""
    return {
        "processor": f"{_processor()}, {os.cpu_count()} CPUs",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "libraries": ", ".join(versions),
    }


def load() -> dict[str, str]:
    """Return how busy the machine is. Call this before the benchmark starts."""
    return {"load": f"{os.getloadavg()[0]:.1f} runnable processes in the minute before"}


def allow_open_files() -> None:
    """Raise the limit of open files to the maximum, for this process and its children."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown processor"
