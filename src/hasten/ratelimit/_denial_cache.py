"""Denials that need no asking.

Nothing but a reset lets a check pass before the time that a certain denial tells. So whoever keeps
asking is answered from here, and costs the store next to nothing, which is when it matters. Once a
second the store is asked again: another process may have reset the key. While the store is not
available a denial is repeated until its time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from hasten.ratelimit._counter_store import Check, CheckGroup, Outcome, is_denied

MAX_DENIALS: Final = 10_000

TRUSTED_US: Final = 1_000_000
"""For so long a denial is repeated without asking a store that is available."""


class Denial(NamedTuple):
    """What became of a group that one of its checks denied, until when, and for which cost.

    A lower cost may pass; a higher one is denied, too, but for longer.
    """

    until_us: int
    cost: int
    asked_us: int
    outcomes: list[Outcome]


class Denials:
    """So many of them; times are microseconds on the caller's clock, which is never set back."""

    def __init__(self, max_denials: int = MAX_DENIALS) -> None:
        self._max = max_denials
        self._denials: dict[tuple[str, bytes], Denial] = {}

    def __len__(self) -> int:
        return len(self._denials)

    def learn(
        self, groups: Sequence[CheckGroup], answer: Sequence[Sequence[Outcome]], asked_us: int
    ) -> None:
        """Keep what a store has answered to what it was asked then, if it is a certain denial."""
        if self._denials:
            self._forget_passed(groups, answer)
        group, outcomes = groups[len(answer) - 1], answer[-1]
        if not is_denied(group, outcomes):
            return
        for check, outcome in zip(group, outcomes, strict=True):
            if outcome.certain and not (check.forced or check.shadow):
                # From the time of asking on: the store's own time lies behind that.
                denial = Denial(asked_us + outcome.retry_us, check.cost, asked_us, list(outcomes))
                self._keep(check, denial)

    def _forget_passed(
        self, groups: Sequence[CheckGroup], answer: Sequence[Sequence[Outcome]]
    ) -> None:
        """What passes was reset."""
        for group, outcomes in zip(groups, answer, strict=False):
            for check, outcome in zip(group, outcomes, strict=True):
                if outcome.ok:
                    denial = self._denials.get((check.bucket, check.key))
                    if denial is not None and denial.cost <= check.cost:
                        del self._denials[check.bucket, check.key]

    def _keep(self, check: Check, denial: Denial) -> None:
        if len(self._denials) >= self._max:
            now_us = denial.asked_us
            alive = [item for item in self._denials.items() if item[1].until_us > now_us]
            # If there are too many all the same, the older ones are asked for again.
            self._denials = dict(alive[max(0, len(alive) - self._max // 2) :])
        self._denials[check.bucket, check.key] = denial

    def find(
        self, groups: Sequence[CheckGroup], now_us: int, *, may_ask: bool = True
    ) -> tuple[int, list[Outcome]] | None:
        """The first group that is known to be denied, by its place, and its outcomes now.

        may_ask: whether the store is available, so that what was denied long ago is left to it.
        """
        if self._denials:
            for place, group in enumerate(groups):
                for check in group:
                    denial = self._denials.get((check.bucket, check.key))
                    if denial is None or check.cost != denial.cost or check.forced or check.shadow:
                        continue
                    if may_ask and now_us - denial.asked_us >= TRUSTED_US:
                        continue
                    if denial.until_us > now_us and len(group) == len(denial.outcomes):
                        return place, _told_now(denial, now_us - denial.asked_us)
                    if denial.until_us <= now_us:
                        del self._denials[check.bucket, check.key]
        return None

    def forget(self, bucket: str, key: bytes) -> None:
        self._denials.pop((bucket, key), None)

    def clear(self) -> None:
        self._denials.clear()


def _told_now(denial: Denial, passed_us: int) -> list[Outcome]:
    return [
        outcome._replace(
            reset_us=max(0, outcome.reset_us - passed_us),
            retry_us=max(1, outcome.retry_us - passed_us) if outcome.retry_us else 0,
        )
        for outcome in denial.outcomes
    ]
