"""Facts about the machine and the software: a number means nothing without them."""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Sequence
from pathlib import Path


def facts(versions: Sequence[str]) -> dict[str, str]:
    """Return what the numbers of every benchmark depend on. versions are those of libraries."""
    return {
        "processor": f"{_processor()}, {os.cpu_count()} CPUs",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "libraries": ", ".join(versions),
    }


def load() -> dict[str, str]:
    """Return how busy the machine is. To be called before the benchmark adds to it."""
    return {"load": f"{os.getloadavg()[0]:.1f} runnable processes in the minute before"}


def allow_open_files() -> None:
    """Let this process and its children open as many files as the system allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown processor"
