"""Modules that a test writes, as parts of a program."""

from __future__ import annotations

import importlib
import sys
import textwrap
from pathlib import Path
from types import ModuleType

from hasten.jobs import Queue


class Modules:
    """Writes modules into a folder, and imports them with the queue of the test as `queue`."""

    def __init__(self, folder: Path, queue: Queue) -> None:
        self._folder = folder
        holder = ModuleType("the_queue")
        holder.queue = queue  # type: ignore[attr-defined]
        sys.modules["the_queue"] = holder

    def write(self, name: str, code: str) -> None:
        (self._folder / f"{name}.py").write_text(textwrap.dedent(code))
        importlib.invalidate_caches()

    def load(self, name: str, code: str) -> ModuleType:
        self.write(name, f"from the_queue import queue\n{textwrap.dedent(code)}")
        return importlib.import_module(name)
