"""`python -m benchmarks.ratelimit`: measure rate limiting side by side."""

from __future__ import annotations

import argparse
import json
import resource
import signal
from collections.abc import Sequence
from typing import Final

from benchmarks import machine
from benchmarks.options import chosen_rounds, standard_parser
from benchmarks.progress import Progress
from benchmarks.queues.store import RedisServer
from benchmarks.ratelimit import lineup
from benchmarks.ratelimit.correctness import Correctness
from benchmarks.ratelimit.hits import Hits
from benchmarks.ratelimit.memory import Memory
from benchmarks.ratelimit.on_redis import OnRedis
from benchmarks.ratelimit.overhead import Overhead
from benchmarks.ratelimit.overload import Overload
from benchmarks.ratelimit.part import Part, Sizes
from benchmarks.tables import show_text
from benchmarks.verdicts import show_verdicts

ROUNDS: Final = 3
FULL: Final = Sizes()
QUICK: Final = Sizes(
    repeats=3, redis_seconds=0.5, keys=20_000, many_keys=100_000, redis_keys=2_000,
    overload_seconds=4,
)  # fmt: skip
PARTS: Final[dict[str, type[Part]]] = {
    part.name: part for part in (Hits, Overhead, OnRedis, Memory, Correctness, Overload)
}


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what we have started has to end
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # some open a connection for each call
    rounds = chosen_rounds(options, full=ROUNDS)
    names = lineup.installed(options.only)
    sizes = QUICK if options.quick else FULL
    with RedisServer(None) as server, server.new_place() as url:
        facts = machine.facts(lineup.versions(names), server.facts())
        parts = [PARTS[name](names, url, sizes) for name in options.parts]
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
        "benchmarks.ratelimit", __doc__,
        names=lineup.all_names(), parts=list(PARTS), rounds=ROUNDS, quick="shorter",
    )  # fmt: skip
    return parser.parse_args()


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
