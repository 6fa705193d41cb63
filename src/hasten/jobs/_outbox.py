"""What a worker has to store for one queue: how runs ended, and what handlers reported."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Final, NamedTuple, TypeVar

from hasten._logs import get_logger
from hasten.errors import StoreRejected
from hasten.jobs import _failure_log as failure_log
from hasten.jobs._options import Keep
from hasten.jobs._record import Failed, LogLine, Outcome, Released, RunUpdate

logger = get_logger("hasten.worker")

Item = TypeVar("Item")

# One call keeps all other users of the store waiting. It carries no more jobs or updates than the
# engine's `max_batch`; a large one counts as one more for each so many bytes.
BYTES_LIKE_A_JOB: Final = 10_000


class OutboxPortion(NamedTuple):
    """The items to store in one call.

    is_single: it has only one item, because the store has rejected a portion of several.
    """

    updates: list[RunUpdate]
    outcomes: list[Outcome]
    is_single: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to store."""
        return not self.updates and not self.outcomes


class Outbox:
    """Holds outcomes and updates until the store has them. on_add is called from any thread."""

    def __init__(
        self, queue: str, *, max_batch: int, keep_failed: Keep, on_add: Callable[[], None]
    ) -> None:
        self._queue = queue
        self._max_batch = max_batch
        self._keep_failed = keep_failed
        self._on_add = on_add
        self._updates: list[RunUpdate] = []
        self._outcomes: list[Outcome] = []
        self._released: list[Outcome] | None = None  # held while the worker stops
        self._weights: dict[str, int] = {}  # of outcomes with much data, by job id
        self._singles = 0  # how many of the next items are stored one at a time
        self._replaced: set[tuple[str, str]] = set()  # runs whose outcome the store rejected
        self._maybe_stored: set[str] = set()  # jobs whose outcome an earlier call may have stored

    def __bool__(self) -> bool:
        return bool(self._updates or self._outcomes)

    @property
    def is_behind(self) -> bool:
        """Whether outcomes are left to a later call: more jobs would fill the memory with them."""
        return bool(self._outcomes)

    # Putting in ---------------------------------------------------------------------------------

    def add_update(self, update: RunUpdate) -> None:
        """Add progress or a log line, from any thread."""
        self._updates.append(update)
        self._on_add()

    def add_outcome(self, outcome: Outcome, size: int) -> None:
        """Add how a run ended. size is the length of its data and its result."""
        if self._released is not None and isinstance(outcome, Released):
            self._released.append(outcome)
            return
        if size > BYTES_LIKE_A_JOB:
            self._weights[outcome.id] = 1 + size // BYTES_LIKE_A_JOB
        self._outcomes.append(outcome)

    def hold_released(self) -> None:
        """Hold the jobs that are released from now on together, until `hand_back`."""
        self._released = []

    def hand_back(self, claimed: Iterable[str]) -> None:
        """Release the held jobs in one call of the store, in the order in which they were claimed.

        Released jobs go to the front of their queue. With two calls, the jobs of the second one
        would be in front of those of the first.
        """
        released, self._released = self._released or [], None
        order = {id: number for number, id in enumerate(claimed)}
        self._outcomes += sorted(released, key=lambda outcome: order.get(outcome.id, 0))

    # Taking out ---------------------------------------------------------------------------------

    def take(self) -> OutboxPortion:
        """Take what the next call stores. What is too much for one call is left to a later one."""
        if self._singles:
            self._singles -= 1
            if self._updates:
                return OutboxPortion([self._updates.pop(0)], [], is_single=True)
            if self._outcomes:
                return OutboxPortion([], [self._outcomes.pop(0)], is_single=True)
        updates, self._updates = self._updates, []
        if left := _cut(updates, _weight_of_update, self._max_batch):
            self._updates[:0] = left
            # Updates are stored before the outcomes of their jobs.
            return OutboxPortion(updates, [])
        outcomes, self._outcomes = self._outcomes, []
        if self._weights or len(outcomes) > self._max_batch:
            self._outcomes = _cut(outcomes, self._weight_of_outcome, self._max_batch)
        return OutboxPortion(updates, outcomes)

    def stored(self, outcomes: list[Outcome], lost: Collection[str]) -> None:
        """Remove outcomes that are stored. The store did not accept those whose lease was lost."""
        for id in lost:
            if id in self._maybe_stored:
                logger.info("job %s: outcome stored by an earlier call, or lease lost", id)
            else:
                logger.warning("job %s: outcome discarded, lease lost", id)
        if self._replaced:
            self._replaced.difference_update((outcome.id, outcome.token) for outcome in outcomes)
        if self._maybe_stored:
            self._maybe_stored.difference_update(outcome.id for outcome in outcomes)
        if self._weights:
            for outcome in outcomes:
                self._weights.pop(outcome.id, None)

    def put_back(self, portion: OutboxPortion, *, maybe_stored: bool) -> None:
        """Keep for the next call what could not be stored, or may not have been stored."""
        if maybe_stored:
            self._maybe_stored.update(outcome.id for outcome in portion.outcomes)
        self._singles += portion.is_single and not portion.is_empty
        self._updates[:0] = portion.updates
        self._outcomes[:0] = portion.outcomes

    def reject(self, portion: OutboxPortion, error: StoreRejected) -> list[Outcome]:
        """Find out which item of a portion the store rejects: only its job may be affected by that.

        A larger portion is stored again, one item at a time. A rejected update is dropped. A
        rejected outcome is replaced by a failure of the job. Returns the outcomes that are given
        up, because the store rejects that, too: the leases of these jobs expire.
        """
        if not portion.is_single:
            self._store_one_at_a_time(portion)
            return []
        for update in portion.updates:
            logger.error(
                "queue %s: dropped a log line or the progress of job %s: cannot be stored: %s",
                self._queue, update.id, error.reason,
            )  # fmt: skip
        return [outcome for outcome in portion.outcomes if not self._replace(outcome, error)]

    def _store_one_at_a_time(self, portion: OutboxPortion) -> None:
        self._singles += len(portion.updates) + len(portion.outcomes)
        # Each released job goes to the front of its queue: the first in line must come last.
        released: list[Outcome] = [
            outcome for outcome in portion.outcomes if isinstance(outcome, Released)
        ]
        others: list[Outcome] = [
            outcome for outcome in portion.outcomes if not isinstance(outcome, Released)
        ]
        self._updates[:0] = portion.updates
        self._outcomes[:0] = others + released[::-1]

    def _replace(self, outcome: Outcome, error: StoreRejected) -> bool:
        """Fail the job of a rejected outcome. False if the store has rejected that, too."""
        run = (outcome.id, outcome.token)
        reason = f"its outcome cannot be stored: {error.reason}"
        failure_log.not_stored(self._queue, outcome.id, reason)
        if run in self._replaced:
            self._replaced.discard(run)
            self._weights.pop(outcome.id, None)
            return False
        self._replaced.add(run)
        self._singles += 1
        self._outcomes.insert(0, Failed(outcome.id, outcome.token, reason, None, self._keep_failed))
        return True

    def _weight_of_outcome(self, outcome: Outcome) -> int:
        if isinstance(outcome, Released):
            return 0  # they are stored together, see `hand_back`
        return self._weights.get(outcome.id, 1)


def _cut(items: list[Item], weigh: Callable[[Item], int], most: int) -> list[Item]:
    """Remove what is too much for one call from the end of items, and return it."""
    weight = 0
    for end, item in enumerate(items):
        weight += weigh(item)
        if weight > most and end:
            left = items[end:]
            del items[end : end + len(left)]  # what a thread adds at this moment stays
            return left
    return []


def _weight_of_update(update: RunUpdate) -> int:
    text = update.line if isinstance(update, LogLine) else update.value
    return 1 + len(text) // BYTES_LIKE_A_JOB
