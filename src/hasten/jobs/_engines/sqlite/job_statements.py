"""The SQL statements of this engine: one file per statement in `sql/`, loaded once.

In a file, `<record>` stands for the columns of a `JobRecord`, `<claimed record>` for its first
columns as they are after a claim, `<schedule>` for the columns of a `StoredSchedule`, and
`<pending id>` for the id of its pending job.

A statement for many rows has a group in braces, such as `VALUES {(?, ?)}`. `sql_for_rows("add", n)`
repeats that group n times, separated by commas. `hasten._sqlite` explains why such statements are
faster.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import chain
from sqlite3 import Connection, Cursor
from typing import Any, Final

from hasten._sqlite import load_scripts
from hasten.jobs._engines.sqlite.record_columns import (
    CLAIMED_RECORD,
    PENDING_ID,
    RECORD,
    SCHEDULE,
)

_COLUMNS: Final = {
    "<record>": RECORD,
    "<claimed record>": CLAIMED_RECORD,
    "<schedule>": SCHEDULE,
    "<pending id>": PENDING_ID,
}


def _expand_columns(text: str) -> str:
    """Replace `<record>` and similar names with the columns that they stand for."""
    for name, columns in _COLUMNS.items():
        text = text.replace(name, columns)
    return text


SQL: Final = {
    name: _expand_columns(text) for name, text in load_scripts(__package__, "sql").items()
}

MIGRATIONS: Final = list(load_scripts(__package__, "migrations").values())


@functools.cache
def sql_for_rows(name: str, count: int) -> str:
    """Return the SQL of a statement, with its group in braces repeated count times."""
    head, _, rest = SQL[name].partition("{")
    row, _, tail = rest.partition("}")
    return head + ", ".join([row] * count) + tail


# Each number of rows is a statement of its own, which is compiled at first use and then cached by
# the connection. More rows than this are split, because very long statements are rarely reused.
_PORTION: Final = 256


def execute(connection: Connection, name: str, **parameters: Any) -> Cursor:
    """Run the statement with this name, and named parameters."""
    return connection.execute(SQL[name], parameters)


def execute_rows(
    connection: Connection,
    name: str,
    parameters: Sequence[Sequence[Any]],
    *trailing: Any,
    leading: Sequence[Any] = (),
) -> int:
    """Run a statement for many rows; each item of parameters is bound to one repeated group.

    leading and trailing are bound to the parameters before and after the groups in the statement.
    Returns how many rows of the table were changed.
    """
    changed = 0
    for start in range(0, len(parameters), _PORTION):
        portion = parameters[start : start + _PORTION]
        sql = sql_for_rows(name, len(portion))
        changed += connection.execute(
            sql, [*leading, *chain.from_iterable(portion), *trailing]
        ).rowcount
    return changed
