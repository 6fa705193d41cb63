"""What statements cost SQLite: the instructions that it runs, and the pages that it reads.

Neither tells all. `count(*)` is one instruction and reads a whole index; rows that are compared, or
sorted, lie on few pages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event

PAGE_BYTES: Final = 4096

STEPS_OF_A_PAGE: Final = 30
"""A page that is read counts as much as so many instructions."""

# Reads of this thread. Only Linux reports them, and elsewhere only instructions are counted.
_READ: Final = Path("/proc/thread-self/io")


def file_engine(folder: Path) -> Engine:
    """Open a database in a file, so that page reads are counted. Crashes are not survived."""
    engine = create_engine(f"sqlite:///{folder / 'costs.db'}")

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _: object) -> None:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA journal_mode = MEMORY")
        connection.execute("PRAGMA cache_size = -65536")
        connection.execute("PRAGMA mmap_size = 0")

    return engine


@contextmanager
def counting(connection: Connection) -> Iterator[Callable[[], int]]:
    """Count what the statements within the block cost. The yielded function returns the cost."""
    driver: Any = connection.connection.driver_connection
    steps = 0
    spent = 0

    def note() -> int:
        nonlocal steps
        steps += 1
        return 0

    # So that every page has to be read from the file.
    driver.execute("PRAGMA shrink_memory")
    before = _bytes_read()
    driver.set_progress_handler(note, 1)
    try:
        yield lambda: spent
    finally:
        driver.set_progress_handler(None, 1)
        pages = (_bytes_read() - before) // PAGE_BYTES
        spent = steps + STEPS_OF_A_PAGE * pages


def _bytes_read() -> int:
    if not _READ.exists():
        return 0
    return int(_READ.read_text().split()[1])
