"""The tables, ratios and targets of a comparison of job queues."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from benchmarks.contestants import Contestants
from benchmarks.queues.comparison import MAX_GROWTH, Comparison, Row
from benchmarks.queues.contestant import Contestant
from benchmarks.queues.measures import Sample, Sizes
from benchmarks.tables import show_table
from benchmarks.verdicts import Ratios, Verdict, short, to_text


@dataclass(frozen=True, slots=True)
class Tables:
    """Prints the tables of a comparison.

    samples are the samples of all rounds, by part and contestant.
    """

    comparison: Comparison
    contestants: Contestants[Contestant]
    names: Sequence[str]
    sizes: Sizes
    samples: Mapping[str, Mapping[str, Sequence[Sample]]]

    def values(self, part: str, name: str, key: str) -> list[float]:
        """Return the number with this key of a contestant, for each round."""
        return [sample[key] for sample in self.samples.get(part, {}).get(name, [])]

    def ratios(self, row: Row, name: str, other: str) -> Ratios | None:
        """Return how many times better name was than other. None if one was not measured."""
        ours = self.values(row.part, name, row.key)
        others = self.values(row.part, other, row.key)
        return Ratios.of(ours, others) if row.more_is_better else Ratios.of(others, ours)

    def ratios_by_row(self) -> dict[str, dict[str, Sequence[float]]]:
        """Return how many times better hasten was than each other contestant, for each round."""
        ours = self.comparison.ours
        found: dict[str, dict[str, Sequence[float]]] = {}
        for row in self.comparison.rows:
            if row.part in self.samples:
                ratios = {name: self.ratios(row, ours, name) for name in self.names if name != ours}
                found[f"{row.part}.{row.key}"] = {
                    name: each.by_round for name, each in ratios.items() if each is not None
                }
        return found

    def _growth(self, name: str, part: str, key: str) -> Ratios | None:
        return Ratios.of(self.values(part, name, key), self.values("depth:shallow", name, key))

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
                noise = "" if least >= 1 else f" ({1 - least:.0%} counts as noise)"
                target = f"no more than {rival}'s{noise}"
            yield Verdict(f"{self._full_title(row)}: {target}", str(ratio), ratio.median >= least)

    def _verdicts_on_times(self) -> Iterable[Verdict]:
        for (part, key), limit in self.comparison.limits.items():
            row = self.comparison.row(part, key)
            values = self.values(part, self.comparison.ours, key)
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
        return self.contestants.title(name)

    def _full_title(self, row: Row) -> str:
        """Return the title of a row, with that of the first row of its part if it is indented."""
        if not row.title.startswith(" "):
            return row.title
        first = next(other for other in self.comparison.rows if other.part == row.part)
        return f"{first.title}, {row.title.strip()}"

    # The tables ---------------------------------------------------------------------------------

    def show(self) -> None:
        if self.comparison.baseline == self.comparison.ours:
            self._show_comparison()
        else:
            self._show_parts()
        self._show_depths()

    def _show_comparison(self) -> None:
        """Print one table with a column for each contestant."""
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
                    line.append(to_text(self.ratios(row, ours, name)))
            if row.part in self.samples:
                lines.append(line)
        if lines:
            show_table("All parts", header, lines)

    def _show_parts(self) -> None:
        """Print a table for each part, with a line for each contestant."""
        for part, grouped in groupby(self.comparison.rows, key=lambda row: row.part):
            rows = list(grouped)
            names = [name for name in self.names if name in self.samples.get(part, {})]
            header = [""]
            for row in rows:
                header += [f"{row.title.strip().partition(', ')[2] or row.title.strip()}", ""]
            lines = [[self._title(name), *self._cells(rows, name)] for name in names]
            if lines:
                show_table(rows[0].title, header, lines)

    def _cells(self, rows: Sequence[Row], name: str) -> Iterable[str]:
        baseline = self.comparison.baseline
        for row in rows:
            yield f"{self._median(row, name)} {row.unit}"
            yield "" if name == baseline else to_text(self.ratios(row, name, baseline))

    def _median(self, row: Row, name: str) -> str:
        values = self.values(row.part, name, row.key)
        return short(statistics.median(values)) if values else "–"

    def _show_depths(self) -> None:
        titles = {
            "depth:shallow": f"{self.sizes.shallow:,} jobs waiting",
            "depth:deep": f"{self.sizes.deep:,} jobs waiting",
            "depth:delayed": f"{self.sizes.shallow:,} waiting, {self.sizes.delayed:,} delayed",
        }
        lines: list[list[str]] = []
        for part, title in titles.items():
            for name in self.samples.get(part, {}):
                line = [title, self._title(name)]
                for key in ("enqueue_us", "drain_us"):
                    values = self.values(part, name, key)
                    line.append(short(statistics.median(values)))
                    line.append(to_text(self._growth(name, part, key)))
                lines.append(line)
        if lines:
            header = ["", "", "enqueue, µs/job", "of the first", "drain, µs/job", "of the first"]
            show_table(
                f"Cost by depth of the queue, over {self.sizes.measured:,} jobs", header, lines
            )
