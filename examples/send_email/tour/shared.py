"""Functions that the parts of the tour share."""

from itertools import count
from typing import Final

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

Row = tuple[str, str, bool | None]
"""What was tried, the result, and whether that is as expected (None: any result is)."""

console: Final = Console()


def progress_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


_numbers: Final = count(1)


def switch_client(client: httpx.Client) -> None:
    """Send the following requests as another client, to which new rate limits apply."""
    number = next(_numbers)
    client.headers["X-Forwarded-For"] = f"198.51.{number // 256}.{number % 256}"


def get_raw(client: httpx.Client, path: str, encoding: str) -> tuple[str | None, bytes]:
    """Return the Content-Encoding and the compressed body of a response."""
    with client.stream("GET", path, headers={"Accept-Encoding": encoding}) as response:
        response.raise_for_status()
        return response.headers.get("Content-Encoding"), b"".join(response.iter_raw())
