"""The management command `python manage.py hasten …`: the tool `hasten` with Django settings."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from django.core.management.base import BaseCommand

from hasten._cli import main


class Command(BaseCommand):  # type: ignore[misc]  # Django has no types
    """Runs the command line of hasten within a Django project."""

    help = "Run workers and manage jobs. For all options, run: manage.py hasten --help"

    def run_from_argv(self, argv: Sequence[str]) -> None:
        """Pass all arguments to the command line of hasten, except those that Django handles.

        Django handles --settings and --pythonpath. --help is passed on.
        """
        program, command, *rest = argv
        parser = ArgumentParser(add_help=False, allow_abbrev=False)
        parser.add_argument("--settings")  # Django has stored it in the environment
        parser.add_argument("--pythonpath")
        known, arguments = parser.parse_known_args(rest)
        launch = [*_make_launch_command(program), command]
        if known.pythonpath:
            launch += ["--pythonpath", known.pythonpath]
        main(arguments, name=f"{Path(program).name} {command}", launch=launch)


def _make_launch_command(program: str) -> list[str]:
    """Return the command that starts this program: `python manage.py` or `python -m django`."""
    spec = sys.modules["__main__"].__spec__
    return [sys.executable, *(["-m", spec.parent] if spec and spec.parent else [program])]
