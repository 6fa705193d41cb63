"""`python -m benchmarks.compression`: measure response compression side by side."""

from __future__ import annotations

import argparse
import json
import resource
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks import machine
from benchmarks.compression import corpora, lineup
from benchmarks.compression.overhead import Overhead
from benchmarks.compression.pareto import Pareto
from benchmarks.compression.part import Part, Sizes
from benchmarks.compression.stalls import Stalls
from benchmarks.compression.streams import Streams
from benchmarks.options import chosen_rounds, standard_parser
from benchmarks.progress import Progress
from benchmarks.tables import show_text
from benchmarks.verdicts import show_verdicts

ROUNDS: Final = 3
FULL: Final = Sizes()
QUICK: Final = Sizes(
    pareto_seconds=0.03, overhead_repeats=8, stalls_seconds=1.0,
    streams=300, events=10, interval_seconds=0.1,
)  # fmt: skip
PARTS: Final[dict[str, type[Part]]] = {
    part.name: part for part in (Pareto, Overhead, Stalls, Streams)
}


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what we have started has to end
    _allow_open_files()
    rounds = chosen_rounds(options, full=ROUNDS)
    names = lineup.installed(options.only)
    facts = machine.facts(lineup.versions(names), {})
    with tempfile.TemporaryDirectory(prefix="hasten-bench-") as folder:
        corpora.write(Path(folder))
        sizes = QUICK if options.quick else FULL
        parts = [PARTS[name](names, Path(folder), sizes) for name in options.parts]
        try:
            _measure(parts, rounds)
        except KeyboardInterrupt:
            return 130
        _show(parts, names, facts, rounds)
    if options.json is not None:
        found = _as_json(parts, facts, rounds)
        options.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    return 0


def _options() -> argparse.Namespace:
    parser = standard_parser(
        "benchmarks.compression", __doc__,
        names=lineup.all_names(), parts=list(PARTS), rounds=ROUNDS, quick="shorter",
    )  # fmt: skip
    return parser.parse_args()


def _allow_open_files() -> None:
    """A stream is a file here and one in the server, which inherits the limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _measure(parts: Sequence[Part], rounds: int) -> None:
    progress = Progress(rounds * sum(part.steps() for part in parts))
    try:
        for number in range(1, rounds + 1):
            for part in parts:
                part.round(number, progress.tell)
    finally:
        progress.end()


def _show(parts: Sequence[Part], names: Sequence[str], facts: dict[str, str], rounds: int) -> None:
    titles = {lineup.find(name).title: lineup.find(name).remark for name in names}
    width = max(map(len, [*titles, *facts]))
    show_text("")
    for title, text in [*facts.items(), *titles.items()]:
        show_text(f"{title:>{width}}: {text}")
    heading = "One round;" if rounds == 1 else f"Medians of {rounds} rounds;"
    show_text(f"\n{heading} ratios: median (lowest–highest).")
    for part in parts:
        part.show()
        for name, reason in part.lineup.left_out.items():
            show_text(f"Left out of {part.name}: {lineup.find(name).title}, {reason}")
    show_verdicts([verdict for part in parts for verdict in part.verdicts()])


def _as_json(parts: Sequence[Part], facts: dict[str, str], rounds: int) -> dict[str, object]:
    return {
        "facts": facts,
        "rounds": rounds,
        "samples": {part.name: part.samples() for part in parts},
        "left_out": {part.name: part.lineup.left_out for part in parts},
        "targets": [
            {"target": verdict.target, "measured": verdict.measured, "met": verdict.met}
            for part in parts
            for verdict in part.verdicts()
        ],
    }


if __name__ == "__main__":
    raise SystemExit(main())
