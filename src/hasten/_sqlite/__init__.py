"""Access to SQLite databases. Each database has one thread, which owns its connection.

A commit costs one flush to the disk, no matter how many rows it writes. All callers, from any
thread or event loop, therefore put their work into one inbox (`database`). The thread runs all work
that is in the inbox in one transaction, and delivers the results after the commit (group commit).
During the commit, work for the next transaction collects in the inbox.

Work is a function that takes the connection. It may run more than once: again if the database was
locked, or if other work in the same transaction failed. It must therefore have no effects outside
the database.

The `sqlite3` module releases the GIL for every step of a statement and acquires it again
afterwards. While Python code in other threads is running, each acquisition can take up to 5 ms.
Callers therefore use one statement for many rows, and fetch one row of JSON instead of many rows.

A topic is a name for a part of the data, such as a queue. A caller that waits for a change names
the topic (`Database.wait_until`), and so does a caller that writes (`Database.run`). After a commit
the thread checks only the conditions of callers that wait for the written topics (`watches`). It
also notices commits of other processes: on Linux the file system reports writes to the file, on
other systems the thread checks every few milliseconds. One statement then finds the changed topics.

When the database is idle, the thread shortens the write-ahead log and returns free pages to the
file system (`maintenance`), in steps of a few milliseconds.
"""

from hasten._sqlite.database import GROUP_WEIGHT, Database
from hasten._sqlite.files import read_only_uri
from hasten._sqlite.migrations import run_migrations, schema_version, too_new_error
from hasten._sqlite.scripts import load_scripts

__all__ = [
    "GROUP_WEIGHT",
    "Database",
    "load_scripts",
    "read_only_uri",
    "run_migrations",
    "schema_version",
    "too_new_error",
]
