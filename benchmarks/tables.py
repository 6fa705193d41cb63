"""Print tables on a terminal: with rich if it is installed, else as plain text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

MAX_WIDTH: Final = 400


def show_text(text: str) -> None:
    print(text, flush=True)


def show_table(title: str, header: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Print a table. Columns of numbers are aligned to the right."""
    numeric = [_is_numeric([line[column] for line in lines]) for column in range(len(header))]
    try:
        from rich import box
        from rich.console import Console
        from rich.table import Table
    except ModuleNotFoundError:
        _show_plainly(title, header, lines, numeric)
        return
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for name, is_numeric in zip(header, numeric, strict=True):
        table.add_column(name, justify="right" if is_numeric else "left", no_wrap=True)
    for line in lines:
        table.add_row(*line)
    console = Console()
    # Wider than the terminal if necessary: wrapped lines are better than numbers that are cut off.
    needed = console.measure(table, options=console.options.update(max_width=MAX_WIDTH)).maximum
    console.width = max(console.width, needed)
    console.print(table)


def _show_plainly(
    title: str, header: Sequence[str], lines: Sequence[Sequence[str]], numeric: Sequence[bool]
) -> None:
    rows = [header, *lines]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    print(f"\n{title}\n")
    for row in rows:
        cells = [
            cell.rjust(width) if is_numeric else cell.ljust(width)
            for cell, width, is_numeric in zip(row, widths, numeric, strict=True)
        ]
        print("  ".join(cells).rstrip())
    print()


def _is_numeric(cells: Sequence[str]) -> bool:
    return all(not cell or cell[0].isdigit() or cell == "–" for cell in cells)
