"""The command line of a comparison."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.queues import machine
from benchmarks.queues.comparison import Comparison
from benchmarks.queues.progress import Progress
from benchmarks.queues.report import Report
from benchmarks.queues.runner import Results, Runner
from benchmarks.queues.stage import Failed


def main(comparison: Comparison, description: str | None) -> int:
    options = _options(comparison, description)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what we have started has to end
    names = [name for name in options.only if _is_installed(comparison, name)]
    sizes = comparison.quick if options.quick else comparison.full
    rounds = options.rounds or int(os.environ.get("ROUNDS") or (1 if options.quick else 5))
    try:
        with comparison.store(options.folder) as store:
            facts = machine.facts(_versions(comparison, names), store)
            runner = Runner(
                comparison, names, options.parts, rounds=rounds, sizes=sizes, store=store
            )
            results = _run(runner)
    except Failed as failure:
        sys.stderr.write(f"{failure}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    report = Report(comparison, results, facts, names, sizes, rounds)
    report.show()
    if options.json is not None:
        options.json.write_text(json.dumps(report.as_json(), indent=1) + "\n", "utf-8")
    return 0


def _run(runner: Runner) -> Results:
    progress = Progress(runner.steps())
    try:
        return runner.run(progress)
    finally:
        progress.end()


def _options(comparison: Comparison, description: str | None) -> argparse.Namespace:
    names, parts = comparison.names(), list(comparison.parts(comparison.full))
    program = comparison.package.removesuffix(".contestants")
    parser = argparse.ArgumentParser(prog=program, description=description)
    parser.add_argument("--rounds", type=int, help="how often (default: $ROUNDS or 5; 1 if quick)")
    parser.add_argument("--quick", action="store_true", help="fewer jobs: to see that it works")
    parser.add_argument(
        "--parts", type=_choice(parts), default=parts,
        metavar="PART,…", help=f"of {', '.join(parts)}",
    )  # fmt: skip
    parser.add_argument(
        "--only", type=_choice(names), default=names,
        metavar="NAME,…", help=f"of {', '.join(names)}",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers to a file")
    parser.add_argument(
        "--folder", type=Path, metavar="DIR",
        help="on the disk to measure (default: where temporary files go)",
    )  # fmt: skip
    return parser.parse_args()


class _choice:  # noqa: N801  # argparse shows its name
    """Reads some of the known words, separated by commas."""

    def __init__(self, known: Sequence[str]) -> None:
        self._known = known

    def __call__(self, text: str) -> list[str]:
        words = text.split(",")
        for word in words:
            if word not in self._known:
                raise argparse.ArgumentTypeError(f"{word!r} is not one of {', '.join(self._known)}")
        return [word for word in self._known if word in words]


def _is_installed(comparison: Comparison, name: str) -> bool:
    contestant = comparison.find(name)
    missing = [package for package in contestant.packages if contestant.version(package) is None]
    if missing:
        sys.stderr.write(f"{name} is left out: {', '.join(missing)} is not installed\n")
    return not missing


def _versions(comparison: Comparison, names: Sequence[str]) -> list[str]:
    """Of the packages of all contestants, each once, in their order."""
    found = [
        f"{package} {contestant.version(package)}"
        for contestant in map(comparison.find, names)
        for package in contestant.packages
    ]
    return list(dict.fromkeys(found))
