"""How much memory this process uses."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def resident_memory() -> int | None:
    """Return the resident memory of this process in bytes. None if the system has no /proc."""
    with contextlib.suppress(OSError, ValueError, IndexError, AttributeError):
        pages = Path("/proc/self/statm").read_text("ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    return None
