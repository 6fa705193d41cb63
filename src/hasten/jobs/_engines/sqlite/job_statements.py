"""The SQL of this engine: a file per statement in `sql/`, loaded once.

`<record>` and `<claimed record>` in a file stand for the columns of a `JobRecord`.

A file may have one group in braces. `rows("add", n)` repeats its content n times, separated by
commas: one statement takes many rows. `hasten._sqlite` explains why that matters.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import chain
from sqlite3 import Connection, Cursor
from typing import Any, Final

from hasten._sqlite import load_scripts
from hasten.jobs._engines.sqlite.record_columns import CLAIMED_RECORD, RECORD


def _with_columns(text: str) -> str:
    return text.replace("<record>", RECORD).replace("<claimed record>", CLAIMED_RECORD)


SQL: Final = {name: _with_columns(text) for name, text in load_scripts(__package__, "sql").items()}

MIGRATIONS: Final = list(load_scripts(__package__, "migrations").values())


@functools.cache
def rows(name: str, count: int) -> str:
    """Return the SQL of a statement for this many rows."""
    head, _, rest = SQL[name].partition("{")
    row, _, tail = rest.partition("}")
    return head + ", ".join([row] * count) + tail


# There is a statement for each number of rows, compiled when first used and then cached by the
# connection. More rows than this are split, because the longest statements are rarely reused.
_PORTION: Final = 256


def execute(connection: Connection, name: str, **parameters: Any) -> Cursor:
    """Run a statement with its named parameters."""
    return connection.execute(SQL[name], parameters)


def execute_rows(
    connection: Connection,
    name: str,
    parameters: Sequence[Sequence[Any]],
    *behind: Any,
    before: Sequence[Any] = (),
) -> int:
    """Run a statement for many rows of parameters, with others before and after the rows.

    Returns how many rows of the table it changed.
    """
    changed = 0
    for start in range(0, len(parameters), _PORTION):
        portion = parameters[start : start + _PORTION]
        sql = rows(name, len(portion))
        changed += connection.execute(
            sql, [*before, *chain.from_iterable(portion), *behind]
        ).rowcount
    return changed
