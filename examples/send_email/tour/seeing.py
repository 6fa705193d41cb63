"""What the parts of the tour share."""

from typing import Final

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

Row = tuple[str, str, bool | None]
"""What was looked at, what was seen, and whether it is as promised (None: no promise)."""

console: Final = Console()


def progress_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


def get_raw(client: httpx.Client, path: str, coding: str) -> tuple[str | None, bytes]:
    """Returns the Content-Encoding, and the body as it came."""
    with client.stream("GET", path, headers={"Accept-Encoding": coding}) as response:
        response.raise_for_status()
        return response.headers.get("Content-Encoding"), b"".join(response.iter_raw())
