"""The command `hasten`: run workers and look after their jobs from a shell."""

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
    # -P: what is in the working directory cannot stand in for what hasten itself imports.
    launch: Sequence[str] = (sys.executable, "-P", "-m", "hasten"),
) -> None:
    """Run the command line. Ends the process with its exit status.

    arguments are those of the process unless given. name is the command, for messages. launch
    starts this command line in another process.
    """
    try:
        require("typer", extra="cli")
        # Late: it imports typer.
        from hasten._cli.commands import run  # noqa: PLC0415

        run(arguments, name, launch)
    except HastenError as error:
        sys.exit(f"{name}: {error}")
