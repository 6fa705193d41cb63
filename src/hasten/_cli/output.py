"""Print the output of commands: as a table, as lines with tabs, or as JSON."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Sequence

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hasten._escapes import escape_unprintable, to_printable_json


def make_stdout_escape_unencodable() -> None:
    r"""Escape characters that the encoding of standard output lacks: print `\u20ac` for "€".

    Without this, printing such a character raises `UnicodeEncodeError`.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def is_stdout_terminal() -> bool:
    """Return whether standard output is a terminal, not a pipe or a file.

    Unlike rich, this does not treat a pipe as a terminal if FORCE_COLOR is set.
    """
    return sys.stdout.isatty()


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, right_align_after_first: bool = False
) -> None:
    """Print a table that fits the width of the terminal. The first column is never wrapped.

    With right_align_after_first, all other columns are aligned to the right.
    """
    rows = [[escape_unprintable(cell) for cell in row] for row in rows]
    first, *others = map(escape_unprintable, columns)
    widest = max(cell_len(text) for text in [first, *(row[0] for row in rows)])
    table = Table()
    table.add_column(Text(first), no_wrap=True, min_width=widest)
    for name in others:
        table.add_column(
            Text(name), justify="right" if right_align_after_first else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*map(Text, row))  # Text: rich would interpret "[…]" in a str as markup
    Console().print(table, crop=False)


def print_tab_separated(rows: Iterable[Sequence[str]]) -> None:
    """Print each row as a line of tab-separated fields, for programs that read the output."""
    lines = ["\t".join(map(escape_unprintable, row)) + "\n" for row in rows]
    typer.echo("".join(lines), nl=False)


def print_json(value: object) -> None:
    """Print a value as JSON."""
    typer.echo(to_printable_json(value))
