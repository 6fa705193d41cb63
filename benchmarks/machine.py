"""The facts that a number is worth nothing without."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path


def facts(versions: Sequence[str], others: Mapping[str, str]) -> dict[str, str]:
    """What the table is headed with. versions are those of the contestants' libraries.

    others are what else the numbers of this benchmark depend on.
    """
    return {
        "processor": f"{_processor()}, {os.cpu_count()} CPUs",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "libraries": ", ".join(versions),
        **others,
        "load": f"{os.getloadavg()[0]:.1f} processes wanted to run in the minute before",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown processor"
