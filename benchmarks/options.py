"""The options that all benchmarks have."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path


def standard_parser(
    program: str,
    description: str | None,
    *,
    names: Sequence[str],
    parts: Sequence[str],
    rounds: int,
    quick: str,
) -> argparse.ArgumentParser:
    """rounds is how many there are without --quick, quick what that option does."""
    parser = argparse.ArgumentParser(prog=program, description=description)
    parser.add_argument(
        "--rounds", type=int, help=f"how often (default: $ROUNDS or {rounds}; 1 if quick)"
    )
    parser.add_argument("--quick", action="store_true", help=f"{quick}: to see that it works")
    parser.add_argument(
        "--parts", type=choice(parts), default=list(parts),
        metavar="PART,…", help=f"of {', '.join(parts)}",
    )  # fmt: skip
    parser.add_argument(
        "--only", type=choice(names), default=list(names),
        metavar="NAME,…", help=f"of {', '.join(names)}",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers to a file")
    return parser


def chosen_rounds(options: argparse.Namespace, *, full: int) -> int:
    return options.rounds or int(os.environ.get("ROUNDS") or (1 if options.quick else full))


class choice:  # noqa: N801  # argparse shows its name
    """Reads some of the known words, separated by commas."""

    def __init__(self, known: Sequence[str]) -> None:
        self._known = known

    def __call__(self, text: str) -> list[str]:
        words = text.split(",")
        for word in words:
            if word not in self._known:
                raise argparse.ArgumentTypeError(f"{word!r} is not one of {', '.join(self._known)}")
        return [word for word in self._known if word in words]
