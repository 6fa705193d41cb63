"""`python -m benchmarks.jobs`: measure job queues side by side."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.jobs import contestants, machine, report
from benchmarks.jobs.parts import FULL, QUICK, all_parts
from benchmarks.jobs.progress import Progress
from benchmarks.jobs.runner import Runner
from benchmarks.jobs.stage import Failed


def main() -> int:
    options = _options()
    names = [name for name in options.only if _is_installed(name)]
    sizes = QUICK if options.quick else FULL
    rounds = options.rounds or int(os.environ.get("ROUNDS") or (1 if options.quick else 5))
    facts = machine.facts(_packages(names), options.folder)
    runner = Runner(names, options.parts, rounds=rounds, sizes=sizes, folder=options.folder)
    progress = Progress(runner.steps())
    try:
        results = runner.run(progress)
    except Failed as failure:
        progress.end()
        sys.stderr.write(f"{failure}\n")
        return 1
    except KeyboardInterrupt:
        progress.end()
        return 130
    progress.end()
    report.show(results, facts, names, sizes, rounds)
    if options.json is not None:
        text = json.dumps(report.as_json(results, facts, names, rounds), indent=1)
        options.json.write_text(text + "\n", "utf-8")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.jobs", description=__doc__)
    parser.add_argument("--rounds", type=int, help="how often (default: $ROUNDS or 5; 1 if quick)")
    parser.add_argument("--quick", action="store_true", help="fewer jobs: to see that it works")
    parser.add_argument(
        "--parts", type=_choice(list(all_parts(FULL))), default=list(all_parts(FULL)),
        metavar="PART,…", help=f"of {', '.join(all_parts(FULL))}",
    )  # fmt: skip
    parser.add_argument(
        "--only", type=_choice(contestants.names()), default=contestants.names(),
        metavar="NAME,…", help=f"of {', '.join(contestants.names())}",
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


def _is_installed(name: str) -> bool:
    missing = [
        package for package in contestants.find(name).packages if machine.version(package) is None
    ]
    if missing:
        sys.stderr.write(f"{name} is left out: {', '.join(missing)} is not installed\n")
    return not missing


def _packages(names: Sequence[str]) -> list[str]:
    """Of all contestants, each once, in their order."""
    return list(dict.fromkeys(p for name in names for p in contestants.find(name).packages))


if __name__ == "__main__":
    raise SystemExit(main())
