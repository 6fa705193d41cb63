"""A cache of denials, so that a denied client is denied again without a call of the store.

Only a reset of the key can end a certain denial (`Outcome.certain`) before its retry time. So the
denial is cached, and a client that keeps sending requests costs the store almost nothing. After a
second the store is called again, because another process may have reset the key. While the store is
unavailable, a cached denial is used until its retry time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

from hasten.ratelimit._counter_store import Check, CheckGroup, Outcome, is_group_denied

MAX_DENIALS: Final = 10_000

TRUSTED_US: Final = 1_000_000
"""How long a cached denial is used while the store is available. After that, it is called again."""


GroupIndex: TypeAlias = int


class Denial(NamedTuple):
    """A cached denial of a group of checks.

    - until_us: when the denial ends.
    - cost: the cost of the denied check. The denial is used for this cost only: a lower cost might
      pass, and a higher cost is denied for longer.
    - called_us: when the call of the store began that returned the denial.
    - outcomes: the outcomes of all checks of the group.
    """

    until_us: int
    cost: int
    called_us: int
    outcomes: list[Outcome]


class DenialCache:
    """A cache of at most max_denials denials, by the bucket and the key of the denied check.

    Times are microseconds on a clock that is never set back.
    """

    def __init__(self, max_denials: int = MAX_DENIALS) -> None:
        self._max = max_denials
        self._denials: dict[tuple[str, bytes], Denial] = {}

    def __len__(self) -> int:
        return len(self._denials)

    def update_from_outcomes(
        self,
        groups: Sequence[CheckGroup],
        outcomes_by_group: Sequence[Sequence[Outcome]],
        call_began_us: int,
    ) -> None:
        """Cache the denial of a group if it is certain. Delete the denials of checks that passed.

        outcomes_by_group is the result of `CounterStore.hit` for these groups. call_began_us is the
        time when that call began.
        """
        if self._denials:
            self._delete_denials_of_passed_checks(groups, outcomes_by_group)
        group, outcomes = groups[len(outcomes_by_group) - 1], outcomes_by_group[-1]
        if not is_group_denied(group, outcomes):
            return
        for check, outcome in zip(group, outcomes, strict=True):
            if outcome.certain and not (check.forced or check.shadow):
                # Counted from the beginning of the call. The store decided later, so the cached
                # denial does not outlast the real one.
                until_us = call_began_us + outcome.retry_us
                self._store_denial(
                    check, Denial(until_us, check.cost, call_began_us, list(outcomes))
                )

    def _delete_denials_of_passed_checks(
        self, groups: Sequence[CheckGroup], outcomes_by_group: Sequence[Sequence[Outcome]]
    ) -> None:
        """Delete the cached denials of checks that the store let pass: their keys were reset."""
        for group, outcomes in zip(groups, outcomes_by_group, strict=False):
            for check, outcome in zip(group, outcomes, strict=True):
                if outcome.ok:
                    denial = self._denials.get((check.bucket, check.key))
                    if denial is not None and denial.cost <= check.cost:
                        del self._denials[check.bucket, check.key]

    def _store_denial(self, check: Check, denial: Denial) -> None:
        if len(self._denials) >= self._max:
            now_us = denial.called_us
            alive = [item for item in self._denials.items() if item[1].until_us > now_us]
            # If too many denials have not ended, the older half is dropped. The store decides
            # about their keys again.
            self._denials = dict(alive[max(0, len(alive) - self._max // 2) :])
        self._denials[check.bucket, check.key] = denial

    def find_denied_group(
        self, groups: Sequence[CheckGroup], now_us: int, *, is_store_available: bool = True
    ) -> tuple[GroupIndex, list[Outcome]] | None:
        """Return the index of the first group with a cached denial, and its outcomes as of now.

        Returns None if there is no such group. is_store_available: whether the store can be called.
        If so, denials older than `TRUSTED_US` are not used.
        """
        if self._denials:
            for i, group in enumerate(groups):
                for check in group:
                    denial = self._denials.get((check.bucket, check.key))
                    if denial is None or check.cost != denial.cost or check.forced or check.shadow:
                        continue
                    if is_store_available and now_us - denial.called_us >= TRUSTED_US:
                        continue
                    if denial.until_us > now_us and len(group) == len(denial.outcomes):
                        return i, _subtract_elapsed_time(denial, now_us - denial.called_us)
                    if denial.until_us <= now_us:
                        del self._denials[check.bucket, check.key]
        return None

    def delete(self, bucket: str, key: bytes) -> None:
        """Delete the cached denial of a key."""
        self._denials.pop((bucket, key), None)

    def clear(self) -> None:
        """Delete all cached denials."""
        self._denials.clear()


def _subtract_elapsed_time(denial: Denial, elapsed_us: int) -> list[Outcome]:
    """Return the outcomes of a denial with their times shortened by the time since the call."""
    return [
        outcome._replace(
            reset_us=max(0, outcome.reset_us - elapsed_us),
            retry_us=max(1, outcome.retry_us - elapsed_us) if outcome.retry_us else 0,
        )
        for outcome in denial.outcomes
    ]
