"""`CrashReport`: what `JobsTester.crash_everywhere` has found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Compared: TypeAlias = Literal["state", "result", "jobs added", "snapshot"]
"""What is compared at the end of a try."""


@dataclass(frozen=True, slots=True)
class CrashDifference:
    """A difference between a try with a crash and the one without."""

    point: str
    """Where the worker died, such as "after `await charge(order)` (tasks.py:41)"."""
    what: Compared
    """What differs."""
    without_crash: object
    """The value in the try without a crash."""
    with_crash: object
    """The value in this try."""

    def __str__(self) -> str:
        return f"{self.what}: {self.without_crash!r} without a crash, {self.with_crash!r} with it"


@dataclass(frozen=True, slots=True)
class CrashReport:
    """The points at which the worker died, and what differed at the end."""

    task: str
    """The name of the task."""
    points: list[str]
    """Where the worker died, in order: one try for each."""
    differences: list[CrashDifference]
    """What differed, empty if each try ended like the one without a crash."""

    def raise_for_differences(self) -> None:
        """Raise `AssertionError` with all differences, if there are any."""
        __tracebackhide__ = True
        if self.differences:
            raise AssertionError(str(self))

    def __str__(self) -> str:
        by_point: dict[str, list[CrashDifference]] = {}
        for difference in self.differences:
            by_point.setdefault(difference.point, []).append(difference)
        if not by_point:
            return f"task {self.task!r} ends in the same state after {len(self.points)} crashes"
        numbers = f"{len(by_point)} of {len(self.points)} points"
        lines = [f"task {self.task!r} ends in another state if its worker dies ({numbers}):"]
        for point, differences in by_point.items():
            lines.append(f"- {point}")
            lines += [f"    {difference}" for difference in differences]
        return "\n".join(lines)
