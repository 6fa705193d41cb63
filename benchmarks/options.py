"""The options that all benchmarks have."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def parser_of(
    program: str,
    description: str | None,
    *,
    names: Sequence[str],
    parts: Sequence[str],
    rounds: int,
    quick_help: str,
) -> argparse.ArgumentParser:
    """Return the parser. rounds is how many there are without --quick."""
    parser = argparse.ArgumentParser(prog=program, description=description)
    parser.add_argument(
        "--rounds", type=int, help=f"how often (default: $ROUNDS or {rounds}; 1 with --quick)"
    )
    parser.add_argument(
        "--quick", action="store_true",
        help=f"{quick_help}: to see that it works, not for its numbers",
    )  # fmt: skip
    add_choice(parser, "--parts", parts)
    add_choice(parser, "--only", names)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers to a file")
    return parser


def add_choice(parser: argparse.ArgumentParser, option: str, known: Sequence[str]) -> None:
    """Add an option that takes some of the known words, separated by commas; all by default."""

    def words(text: str) -> list[str]:
        given = text.split(",")
        for word in given:
            if word not in known:
                raise argparse.ArgumentTypeError(f"{word!r}: expected some of {', '.join(known)}")
        return [word for word in known if word in given]

    parser.add_argument(
        option, type=words, default=list(known), metavar="NAME,…", help=f"of {', '.join(known)}"
    )
