"""The command line of a comparison."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks import machine
from benchmarks.options import chosen_rounds, standard_parser
from benchmarks.progress import Progress
from benchmarks.queues.comparison import Comparison
from benchmarks.queues.report import Report
from benchmarks.queues.runner import Results, Runner
from benchmarks.queues.stage import Failed

ROUNDS: Final = 5


def main(comparison: Comparison, description: str | None) -> int:
    options = _options(comparison, description)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what we have started has to end
    names = [name for name in options.only if _is_installed(comparison, name)]
    sizes = comparison.quick if options.quick else comparison.full
    rounds = chosen_rounds(options, full=ROUNDS)
    try:
        with comparison.store(options.folder) as store:
            facts = machine.facts(_versions(comparison, names), store.facts())
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
    parser = standard_parser(
        program, description, names=names, parts=parts, rounds=ROUNDS, quick="fewer jobs"
    )
    parser.add_argument(
        "--folder", type=Path, metavar="DIR",
        help="on the disk to measure (default: where temporary files go)",
    )  # fmt: skip
    return parser.parse_args()


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
