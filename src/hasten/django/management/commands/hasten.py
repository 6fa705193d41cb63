"""`python manage.py hasten …`: the command line of hasten, with the settings of the project."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from django.core.management.base import BaseCommand

from hasten._cli import main


class Command(BaseCommand):  # type: ignore[misc]  # Django has no types
    help = "Run workers and manage jobs: see its own --help."

    def run_from_argv(self, argv: Sequence[str]) -> None:
        """Pass the arguments to hasten, --help too, except those that Django has used."""
        program, command, *rest = argv
        parser = ArgumentParser(add_help=False, allow_abbrev=False)
        parser.add_argument("--settings")  # it is in the environment now
        parser.add_argument("--pythonpath")
        known, arguments = parser.parse_known_args(rest)
        launch = [*_launch_command(program), command]
        if known.pythonpath:
            launch += ["--pythonpath", known.pythonpath]
        main(arguments, name=f"{Path(program).name} {command}", launch=launch)


def _launch_command(program: str) -> list[str]:
    """How this program was started: `python manage.py` or `python -m django`."""
    spec = sys.modules["__main__"].__spec__
    return [sys.executable, *(["-m", spec.parent] if spec and spec.parent else [program])]
