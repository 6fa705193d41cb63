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
    # With -P, a file in the working directory cannot hide a module that hasten imports.
    launch: Sequence[str] = (sys.executable, "-P", "-m", "hasten"),
) -> None:
    """Run the command line, and end the process with its exit status.

    - arguments: the arguments of the command line, by default those of this process.
    - name: the name of the command in messages and help texts.
    - launch: the first part of the command that starts a worker process of --processes. The
      arguments of `hasten` are appended to it.
    """
    try:
        require("typer", extra="cli")
        # Imported late, because it imports typer, which is optional.
        from hasten._cli.commands import run_command_line  # noqa: PLC0415

        run_command_line(arguments, name, launch)
    except HastenError as error:
        sys.exit(f"{name}: {error}")
