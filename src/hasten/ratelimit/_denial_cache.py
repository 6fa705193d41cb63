"""Denials that are repeated without the store.

Nothing but a reset lets a check pass before the time that a certain denial states. So a client that
keeps sending requests is refused from this cache, and costs the store almost nothing. Once a second
the store is called again, because another process may have reset the key. While the store is
unavailable, a denial is repeated until its time is over.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from hasten.ratelimit._counter_store import Check, CheckGroup, Outcome, is_group_denied

MAX_DENIALS: Final = 10_000

TRUSTED_US: Final = 1_000_000
"""How long a denial is repeated while the store is available."""


class Denial(NamedTuple):
    """The outcomes of a group that one of its checks denied, until when, and for which cost.

    A lower cost might pass. A higher one is denied as well, but for longer.
    """

    until_us: int
    cost: int
    called_us: int
    outcomes: list[Outcome]


class DenialCache:
    """A bounded cache of denials. Times are microseconds on a clock that is never set back."""

    def __init__(self, max_denials: int = MAX_DENIALS) -> None:
        self._max = max_denials
        self._denials: dict[tuple[str, bytes], Denial] = {}

    def __len__(self) -> int:
        return len(self._denials)

    def add(
        self, groups: Sequence[CheckGroup], answer: Sequence[Sequence[Outcome]], called_us: int
    ) -> None:
        """Keep what the store returned for a call at a time, if it is a certain denial."""
        if self._denials:
            self._delete_denials_of_passed_checks(groups, answer)
        group, outcomes = groups[len(answer) - 1], answer[-1]
        if not is_group_denied(group, outcomes):
            return
        for check, outcome in zip(group, outcomes, strict=True):
            if outcome.certain and not (check.forced or check.shadow):
                # From the time of the call: the store decided later than that.
                until_us = called_us + outcome.retry_us
                self._store(check, Denial(until_us, check.cost, called_us, list(outcomes)))

    def _delete_denials_of_passed_checks(
        self, groups: Sequence[CheckGroup], answer: Sequence[Sequence[Outcome]]
    ) -> None:
        """Delete the denials of checks that passed: their keys were reset."""
        for group, outcomes in zip(groups, answer, strict=False):
            for check, outcome in zip(group, outcomes, strict=True):
                if outcome.ok:
                    denial = self._denials.get((check.bucket, check.key))
                    if denial is not None and denial.cost <= check.cost:
                        del self._denials[check.bucket, check.key]

    def _store(self, check: Check, denial: Denial) -> None:
        if len(self._denials) >= self._max:
            now_us = denial.called_us
            alive = [item for item in self._denials.items() if item[1].until_us > now_us]
            # If too many are alive, the older half is dropped: the store decides those again.
            self._denials = dict(alive[max(0, len(alive) - self._max // 2) :])
        self._denials[check.bucket, check.key] = denial

    def find(
        self, groups: Sequence[CheckGroup], now_us: int, *, is_available: bool = True
    ) -> tuple[int, list[Outcome]] | None:
        """Return the index of the first group with a known denial, and its outcomes now.

        is_available: whether the store can be called, so that it decides about older denials.
        """
        if self._denials:
            for i, group in enumerate(groups):
                for check in group:
                    denial = self._denials.get((check.bucket, check.key))
                    if denial is None or check.cost != denial.cost or check.forced or check.shadow:
                        continue
                    if is_available and now_us - denial.called_us >= TRUSTED_US:
                        continue
                    if denial.until_us > now_us and len(group) == len(denial.outcomes):
                        return i, _subtract_elapsed_time(denial, now_us - denial.called_us)
                    if denial.until_us <= now_us:
                        del self._denials[check.bucket, check.key]
        return None

    def delete(self, bucket: str, key: bytes) -> None:
        """Delete the denial of a key."""
        self._denials.pop((bucket, key), None)

    def clear(self) -> None:
        """Delete all denials."""
        self._denials.clear()


def _subtract_elapsed_time(denial: Denial, passed_us: int) -> list[Outcome]:
    return [
        outcome._replace(
            reset_us=max(0, outcome.reset_us - passed_us),
            retry_us=max(1, outcome.retry_us - passed_us) if outcome.retry_us else 0,
        )
        for outcome in denial.outcomes
    ]
