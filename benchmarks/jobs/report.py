"""What the rounds have shown: tables, ratios, and targets met or missed."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.jobs import contestants
from benchmarks.jobs.contestants import OURS
from benchmarks.jobs.parts import Sizes
from benchmarks.jobs.runner import Results
from benchmarks.jobs.tables import show_table, show_text


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the main table: a number of a part's samples."""

    part: str
    key: str
    title: str
    unit: str
    more_is_better: bool = False


ROWS: Final = (
    Row("enqueue", "per_second", "enqueue, 100 at a time", "jobs/s", more_is_better=True),
    Row("enqueue", "cpu_us", "  processor", "µs/job"),
    Row("bulk", "per_second", "enqueue_many, 1,000 a call", "jobs/s", more_is_better=True),
    Row("bulk", "cpu_us", "  processor", "µs/job"),
    Row("drain", "per_second", "drain, one worker", "jobs/s", more_is_better=True),
    Row("drain", "cpu_us", "  processor", "µs/job"),
    Row("lone", "p50_ms", "lone enqueue, median", "ms"),
    Row("lone", "p95_ms", "  95 of 100", "ms"),
    Row("lone", "p99_ms", "  99 of 100", "ms"),
    Row("pickup_here", "p50_ms", "pick-up, same process, median", "ms"),
    Row("pickup_here", "p95_ms", "  95 of 100", "ms"),
    Row("pickup_here", "p99_ms", "  99 of 100", "ms"),
    Row("pickup", "p50_ms", "pick-up, other process, median", "ms"),
    Row("pickup", "p95_ms", "  95 of 100", "ms"),
    Row("pickup", "p99_ms", "  99 of 100", "ms"),
)


@dataclass(frozen=True, slots=True)
class Ratios:
    """How many times better we were, round by round."""

    by_round: Sequence[float]

    @property
    def median(self) -> float:
        return statistics.median(self.by_round)

    def __str__(self) -> str:
        lowest, highest = min(self.by_round), max(self.by_round)
        return f"{_short(self.median)}× ({_short(lowest)}–{_short(highest)})"


def ratios(results: Results, row: Row, rival: str) -> Ratios | None:
    """None if one of us was not measured."""
    ours = results.values(row.part, OURS, row.key)
    theirs = results.values(row.part, rival, row.key)
    if not ours or not theirs:
        return None
    pairs = zip(ours, theirs, strict=True)
    return Ratios([us / them if row.more_is_better else them / us for us, them in pairs])


# The targets ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verdict:
    target: str
    measured: str
    met: bool


RIVAL: Final = "huey_sqlite"  # the one with our durability
MIN_RATIO: Final = 8.0
# Twice what short runs differ by; a cost that grows with the queue would be 20 or 200 here.
MAX_GROWTH: Final = 1.5
MAX_MS: Final = {"lone": 1.0, "pickup_here": 3.0, "pickup": 25.0}


def verdicts(results: Results) -> list[Verdict]:
    return [
        *_verdicts_on_ratios(results),
        *_verdicts_on_times(results),
        *_verdicts_on_growth(results),
    ]


def _verdicts_on_ratios(results: Results) -> list[Verdict]:
    found: list[Verdict] = []
    for row in ROWS:
        ratio = ratios(results, row, RIVAL)
        if row.key == "per_second" and ratio is not None:
            title = contestants.find(RIVAL).title
            target = f"{row.title}: at least {MIN_RATIO:g} times {title}'s rate"
            found.append(Verdict(target, str(ratio), ratio.median >= MIN_RATIO))
    return found


def _verdicts_on_times(results: Results) -> list[Verdict]:
    found: list[Verdict] = []
    for row in ROWS:
        values = results.values(row.part, OURS, row.key)
        if row.key == "p50_ms" and values:
            median, limit = statistics.median(values), MAX_MS[row.part]
            target = f"{row.title}: under {limit:g} ms"
            found.append(Verdict(target, f"{_short(median)} ms", median < limit))
    return found


def _verdicts_on_growth(results: Results) -> list[Verdict]:
    found: list[Verdict] = []
    for verb in ("enqueue", "drain"):
        for part, title in (("depth:deep", "deep"), ("depth:delayed", "with delayed jobs")):
            growth = _growth(results, part, f"{verb}_us")
            if growth is not None:
                target = f"{verb}, queue {title}: a job costs at most {MAX_GROWTH:g} times as much"
                found.append(Verdict(target, str(growth), growth.median <= MAX_GROWTH))
    return found


def _growth(results: Results, part: str, key: str) -> Ratios | None:
    base, values = results.values("depth:shallow", OURS, key), results.values(part, OURS, key)
    if not base or not values:
        return None
    return Ratios([value / least for value, least in zip(values, base, strict=True)])


# The tables -------------------------------------------------------------------------------------


def show(
    results: Results, facts: Mapping[str, str], names: Sequence[str], sizes: Sizes, rounds: int
) -> None:
    show_text("")
    for name, fact in facts.items():
        show_text(f"{name:>10}: {fact}")
    for name in names:
        show_text(f"{contestants.find(name).title:>10}: {_settings(results, name)}")
    _show_comparison(results, names, rounds)
    _show_depths(results, sizes)
    _show_verdicts(verdicts(results))


def _settings(results: Results, name: str) -> str:
    contestant = contestants.find(name)
    tuned = (f"{part} with {setting}" for part, setting in results.settings[name].items())
    return "; ".join([contestant.remark, *tuned])


def _show_comparison(results: Results, names: Sequence[str], rounds: int) -> None:
    header = ["", ""]
    for name in names:
        header.append(contestants.find(name).title)
        if name != OURS and OURS in names:
            header.append("hasten is better by")
    lines: list[list[str]] = []
    for row in ROWS:
        line = [row.title, row.unit]
        for name in names:
            values = results.values(row.part, name, row.key)
            line.append(_short(statistics.median(values)) if values else "–")
            if name != OURS and OURS in names:
                ratio = ratios(results, row, name)
                line.append("" if ratio is None else str(ratio))
        if row.part in results.samples:
            lines.append(line)
    if lines:
        title = "Medians of one round" if rounds == 1 else f"Medians of {rounds} rounds"
        show_table(f"{title}; ratios: median (lowest–highest)", header, lines)


def _show_depths(results: Results, sizes: Sizes) -> None:
    titles = {
        "depth:shallow": f"{sizes.shallow:,} jobs waiting",
        "depth:deep": f"{sizes.deep:,} jobs waiting",
        "depth:delayed": f"{sizes.shallow:,} waiting, {sizes.delayed:,} delayed",
    }
    lines: list[list[str]] = []
    for part, title in titles.items():
        line = [title]
        for key in ("enqueue_us", "drain_us"):
            values, growth = results.values(part, OURS, key), _growth(results, part, key)
            line.append(_short(statistics.median(values)) if values else "–")
            line.append("" if growth is None else str(growth))
        if part in results.samples:
            lines.append(line)
    if lines:
        header = ["", "enqueue, µs/job", "of the first", "drain, µs/job", "of the first"]
        show_table(f"Cost by depth of the queue, over {sizes.measured:,} jobs", header, lines)


def _show_verdicts(found: Sequence[Verdict]) -> None:
    lines = [
        ["met" if verdict.met else "MISSED", verdict.target, verdict.measured] for verdict in found
    ]
    if lines:
        show_table("Targets", ["", "target", "measured"], lines)


def _short(value: float) -> str:
    """Three digits, for that is more than the measurement is worth."""
    if value >= 100:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}"


def as_json(
    results: Results, facts: Mapping[str, str], names: Sequence[str], rounds: int
) -> dict[str, Any]:
    """All that was measured, for other programs."""
    return {
        "facts": dict(facts),
        "rounds": rounds,
        "settings": results.settings,
        "trials": results.trials,
        "samples": results.samples,
        "ratios": {
            f"{row.part}.{row.key}": {rival: found.by_round}
            for row in ROWS
            for rival in names
            if rival != OURS and (found := ratios(results, row, rival)) is not None
        },
        "targets": [
            {"target": verdict.target, "measured": verdict.measured, "met": verdict.met}
            for verdict in verdicts(results)
        ],
    }
