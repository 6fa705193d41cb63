"""What the rounds have shown: tables, ratios, and targets met or missed."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from benchmarks.queues.comparison import MAX_GROWTH, Comparison, Row
from benchmarks.queues.parts import Sizes
from benchmarks.queues.runner import Results
from benchmarks.tables import show_table, show_text
from benchmarks.verdicts import Ratios, Verdict, short, show_verdicts


@dataclass(frozen=True, slots=True)
class Report:
    comparison: Comparison
    results: Results
    facts: Mapping[str, str]
    names: Sequence[str]
    sizes: Sizes
    rounds: int

    def ratios(self, row: Row, name: str, other: str) -> Ratios | None:
        """How many times better the first was. None if one of them was not measured."""
        firsts = self.results.values(row.part, name, row.key)
        others = self.results.values(row.part, other, row.key)
        if not firsts or not others:
            return None
        pairs = zip(firsts, others, strict=True)
        return Ratios([a / b if row.more_is_better else b / a for a, b in pairs])

    def _growth(self, name: str, part: str, key: str) -> Ratios | None:
        base = self.results.values("depth:shallow", name, key)
        values = self.results.values(part, name, key)
        if not base or not values:
            return None
        return Ratios([value / least for value, least in zip(values, base, strict=True)])

    # The targets --------------------------------------------------------------------------------

    def verdicts(self) -> list[Verdict]:
        return [
            *self._verdicts_on_ratios(),
            *self._verdicts_on_times(),
            *self._verdicts_on_growth(),
        ]

    def _verdicts_on_ratios(self) -> Iterable[Verdict]:
        rival = self._title(self.comparison.rival)
        for (part, key), least in self.comparison.ratios.items():
            row = self.comparison.row(part, key)
            ratio = self.ratios(row, self.comparison.ours, self.comparison.rival)
            if ratio is None:
                continue
            if row.more_is_better:
                target = f"at least {least:g} times {rival}'s rate"
            else:
                noise = "" if least >= 1 else f" ({1 - least:.0%} is taken for noise)"
                target = f"no more than {rival}'s{noise}"
            yield Verdict(f"{self._full_title(row)}: {target}", str(ratio), ratio.median >= least)

    def _verdicts_on_times(self) -> Iterable[Verdict]:
        for (part, key), limit in self.comparison.limits.items():
            row = self.comparison.row(part, key)
            values = self.results.values(part, self.comparison.ours, key)
            if values:
                median = statistics.median(values)
                target = f"{self._full_title(row)}: under {limit:g} {row.unit}"
                yield Verdict(target, f"{short(median)} {row.unit}", median < limit)

    def _verdicts_on_growth(self) -> Iterable[Verdict]:
        for verb in ("enqueue", "drain"):
            for part, title in (("depth:deep", "deep"), ("depth:delayed", "with delayed jobs")):
                growth = self._growth(self.comparison.ours, part, f"{verb}_us")
                if growth is not None:
                    target = (
                        f"{verb}, queue {title}: a job costs at most {MAX_GROWTH:g} times as much"
                    )
                    yield Verdict(target, str(growth), growth.median <= MAX_GROWTH)

    def _title(self, name: str) -> str:
        return self.comparison.find(name).title

    def _full_title(self, row: Row) -> str:
        """An indented row belongs to the one that its part begins with."""
        if not row.title.startswith(" "):
            return row.title
        first = next(other for other in self.comparison.rows if other.part == row.part)
        return f"{first.title}, {row.title.strip()}"

    # The tables ---------------------------------------------------------------------------------

    def show(self) -> None:
        show_text("")
        titles = [self._title(name) for name in self.names]
        width = max(len(title) for title in [*titles, *self.facts])
        for title, fact in self.facts.items():
            show_text(f"{title:>{width}}: {fact}")
        for name, title in zip(self.names, titles, strict=True):
            show_text(f"{title:>{width}}: {self._settings(name)}")
        if self.comparison.yardstick == self.comparison.ours:
            self._show_comparison()
        else:
            self._show_parts()
        self._show_depths()
        show_verdicts(self.verdicts())

    def _settings(self, name: str) -> str:
        tuned = (f"{part} with {setting}" for part, setting in self.results.settings[name].items())
        return "; ".join([self.comparison.find(name).remark, *tuned])

    def _heading(self) -> str:
        rounds = "one round" if self.rounds == 1 else f"{self.rounds} rounds"
        return f"Medians of {rounds}; ratios: median (lowest–highest)"

    def _show_comparison(self) -> None:
        """A column for each contestant: where there are few, and we are what ratios compare."""
        ours = self.comparison.ours
        header = ["", ""]
        for name in self.names:
            header.append(self._title(name))
            if name != ours and ours in self.names:
                header.append("hasten is better by")
        lines: list[list[str]] = []
        for row in self.comparison.rows:
            line = [row.title, row.unit]
            for name in self.names:
                line.append(self._median(row, name))
                if name != ours and ours in self.names:
                    line.append(_ratio(self.ratios(row, ours, name)))
            if row.part in self.results.samples:
                lines.append(line)
        if lines:
            show_table(self._heading(), header, lines)

    def _show_parts(self) -> None:
        """A table for each part, a line in it for each contestant and how much better it was."""
        yardstick = self.comparison.yardstick
        show_text(f"\n{self._heading()}: how many times as good as {self._title(yardstick)}")
        for part, grouped in groupby(self.comparison.rows, key=lambda row: row.part):
            rows = list(grouped)
            names = [name for name in self.names if name in self.results.samples.get(part, {})]
            header = [""]
            for row in rows:
                header += [f"{row.title.strip().partition(', ')[2] or row.title.strip()}", ""]
            lines = [[self._title(name), *self._cells(rows, name)] for name in names]
            if lines:
                show_table(rows[0].title, header, lines)

    def _cells(self, rows: Sequence[Row], name: str) -> Iterable[str]:
        yardstick = self.comparison.yardstick
        for row in rows:
            yield f"{self._median(row, name)} {row.unit}"
            yield "" if name == yardstick else _ratio(self.ratios(row, name, yardstick))

    def _median(self, row: Row, name: str) -> str:
        values = self.results.values(row.part, name, row.key)
        return short(statistics.median(values)) if values else "–"

    def _show_depths(self) -> None:
        titles = {
            "depth:shallow": f"{self.sizes.shallow:,} jobs waiting",
            "depth:deep": f"{self.sizes.deep:,} jobs waiting",
            "depth:delayed": f"{self.sizes.shallow:,} waiting, {self.sizes.delayed:,} delayed",
        }
        lines: list[list[str]] = []
        for part, title in titles.items():
            for name in self.results.samples.get(part, {}):
                line = [title, self._title(name)]
                for key in ("enqueue_us", "drain_us"):
                    values = self.results.values(part, name, key)
                    line.append(short(statistics.median(values)))
                    line.append(_ratio(self._growth(name, part, key)))
                lines.append(line)
        if lines:
            header = ["", "", "enqueue, µs/job", "of the first", "drain, µs/job", "of the first"]
            show_table(
                f"Cost by depth of the queue, over {self.sizes.measured:,} jobs", header, lines
            )

    def as_json(self) -> dict[str, Any]:
        """All that was measured, for other programs."""
        return {
            "facts": dict(self.facts),
            "rounds": self.rounds,
            "settings": self.results.settings,
            "trials": self.results.trials,
            "samples": self.results.samples,
            "ratios": {f"{row.part}.{row.key}": self._ratios_by_name(row) for row in self._rows()},
            "targets": [
                {"target": verdict.target, "measured": verdict.measured, "met": verdict.met}
                for verdict in self.verdicts()
            ],
        }

    def _rows(self) -> list[Row]:
        return [row for row in self.comparison.rows if row.part in self.results.samples]

    def _ratios_by_name(self, row: Row) -> dict[str, Sequence[float]]:
        """How many times better than the others we were."""
        ours = self.comparison.ours
        found = {name: self.ratios(row, ours, name) for name in self.names if name != ours}
        return {name: ratios.by_round for name, ratios in found.items() if ratios is not None}


def _ratio(ratios: Ratios | None) -> str:
    return "" if ratios is None else str(ratios)
