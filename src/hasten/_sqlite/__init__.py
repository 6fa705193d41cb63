"""SQLite databases, each with one thread that owns its connection.

A commit costs a flush to the disk, however many rows it has. So all callers, from any thread or
event loop, put their work into one inbox (`database`). The thread takes everything that waits
there, runs it in one transaction, and delivers the results after the commit (group commit). While
it commits, the next group gathers.

Work is a function of the connection. It may run more than once (if the database was locked, or if
other work of its group failed), so it must only read, write and return.

The `sqlite3` module releases the interpreter's lock around every step of a statement and acquires
it again afterwards. If handlers keep the interpreter busy, each acquisition takes up to 5 ms.
Callers therefore use few statements for many rows, and fetch one row of JSON instead of many rows.

A caller that waits for a change names its topic (`Database.until`), and so does a caller that
writes (`Database.run`). After a commit the thread probes only the watches of its topics
(`watches`). One statement finds the topics that other processes have changed. On Linux the file
system reports their writes; on other systems the thread checks every few milliseconds.

When the database is idle, the thread shortens the write-ahead log and returns free pages to the
file system (`maintenance`), in steps of a few milliseconds.
"""

from hasten._sqlite.database import GROUP_WEIGHT, Database
from hasten._sqlite.files import read_only_address
from hasten._sqlite.migrations import run_migrations, schema_version
from hasten._sqlite.scripts import load_scripts

__all__ = [
    "GROUP_WEIGHT",
    "Database",
    "load_scripts",
    "read_only_address",
    "run_migrations",
    "schema_version",
]
