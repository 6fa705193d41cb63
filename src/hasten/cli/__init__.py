"""The command `hasten`: workers, and a look at their jobs, from a shell."""

from __future__ import annotations

import sys

from hasten._extras import require
from hasten.errors import HastenError

__all__ = ["main"]


def main() -> None:
    """Run the command line. Ends the process with its exit status."""
    try:
        require("typer", extra="cli")
        # Late: it imports typer.
        from hasten.cli.commands import app  # noqa: PLC0415

        app(prog_name="hasten")
    except HastenError as error:
        sys.exit(f"hasten: {error}")
