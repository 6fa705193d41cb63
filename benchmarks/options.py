"""The command line options of all benchmarks."""

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
    """Return a parser for the options. rounds is the default number of rounds without --quick."""
    parser = argparse.ArgumentParser(prog=program, description=description)
    parser.add_argument(
        "--rounds",
        type=int,
        help=f"how many times to measure (default: $ROUNDS or {rounds}; 1 with --quick)",
    )
    parser.add_argument(
        "--quick", action="store_true",
        help=f"{quick_help}: for a test of the benchmark, its numbers are not reliable",
    )  # fmt: skip
    add_choice(parser, "--parts", parts)
    add_choice(parser, "--only", names)
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write all numbers to a JSON file"
    )
    return parser


def add_choice(parser: argparse.ArgumentParser, option: str, known: Sequence[str]) -> None:
    """Add an option for a list of words, separated by commas. The default is all known words."""

    def words(text: str) -> list[str]:
        given = text.split(",")
        for word in given:
            if word not in known:
                raise argparse.ArgumentTypeError(f"{word!r}: must be one of {', '.join(known)}")
        return [word for word in known if word in given]

    parser.add_argument(
        option,
        type=words,
        default=list(known),
        metavar="NAME,…",
        help=f"some of {', '.join(known)}",
    )
