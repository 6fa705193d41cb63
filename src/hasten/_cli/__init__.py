"""The command `hasten`: run workers and manage jobs from a shell."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hasten._extras import require
from hasten.errors import HastenError

__all__ = ["main"]


def main(
    arguments: Sequence[str] | None = None,
    *,
    name: str = "hasten",
    # -P: a file in the working directory cannot replace a module that hasten imports.
    launch: Sequence[str] = (sys.executable, "-P", "-m", "hasten"),
) -> None:
    """Run the command line, and end the process with its exit status.

    arguments are those of the process unless given. name is the name of the command in messages.
    launch is the command that starts this command line in another process.
    """
    try:
        require("typer", extra="cli")
        # Imported here because it imports typer.
        from hasten._cli.commands import run  # noqa: PLC0415

        run(arguments, name, launch)
    except HastenError as error:
        sys.exit(f"{name}: {error}")
