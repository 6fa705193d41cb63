"""The outcomes, progress and log lines that a worker has not stored yet, for one queue."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Final, NamedTuple, TypeVar

from hasten._logs import get_logger
from hasten.errors import StoreRejected
from hasten.jobs import _failure_log as failure_log
from hasten.jobs._options import Keep
from hasten.jobs._record import Failed, LogLine, Outcome, Parked, Released, RunUpdate

logger = get_logger("hasten.worker")

Item = TypeVar("Item")

# While one call is processed, all other users of the store wait. So the total weight of its items
# is limited to the engine's `max_jobs_per_settle`. An item weighs 1, plus 1 for this many bytes.
BYTES_PER_WEIGHT: Final = 10_000


class OutboxPortion(NamedTuple):
    """The items of an outbox that one call stores: updates (progress, log lines) and outcomes.

    is_single: the portion has only one item, because the store has rejected a larger one and the
    worker is finding out which of its items was the reason.
    """

    updates: list[RunUpdate]
    outcomes: list[Outcome]
    is_single: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether the portion has no items."""
        return not self.updates and not self.outcomes


class Outbox:
    """Holds the outcomes and updates of one queue until the store has accepted them.

    on_add is called after each `add_update`, in the thread of the caller.
    """

    def __init__(
        self, queue: str, *, max_jobs_per_settle: int, keep_failed: Keep, on_add: Callable[[], None]
    ) -> None:
        self._queue = queue
        self._max_batch = max_jobs_per_settle
        self._keep_failed = keep_failed
        self._on_add = on_add
        self._updates: list[RunUpdate] = []
        self._outcomes: list[Outcome] = []
        # A list while the worker stops: see `hold_released_jobs`.
        self._released: list[Outcome] | None = None
        self._weights: dict[str, int] = {}  # by job id, for outcomes that weigh more than 1
        self._singles = 0  # how many of the next items must be stored one at a time
        # (job id, token) of runs whose outcome was rejected.
        self._replaced: set[tuple[str, str]] = set()
        # Ids of jobs whose outcome an earlier call may have stored.
        self._maybe_stored: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._updates or self._outcomes)

    @property
    def has_waiting_outcomes(self) -> bool:
        """Whether outcomes are left after `take_portion`, because they were too many for one call.

        The consumer claims no jobs then, so that outcomes do not pile up in memory.
        """
        return bool(self._outcomes)

    # Adding items -------------------------------------------------------------------------------

    def add_update(self, update: RunUpdate) -> None:
        """Add progress or a log line. May be called in any thread."""
        self._updates.append(update)
        self._on_add()

    def add_outcome(self, outcome: Outcome, length: int) -> None:
        """Add the outcome of a run. length is that of the job's data and result in characters."""
        if self._released is not None and isinstance(outcome, Released):
            self._released.append(outcome)
            return
        if isinstance(outcome, Parked):  # a child costs as much as an outcome
            length += sum(BYTES_PER_WEIGHT + len(child.data) for child in outcome.children)
        if length > BYTES_PER_WEIGHT:
            self._weights[outcome.id] = 1 + length // BYTES_PER_WEIGHT
        self._outcomes.append(outcome)

    def hold_released_jobs(self) -> None:
        """Keep the jobs that are released from now on out of the portions until `add_held_jobs`.

        Called when the worker begins to stop.
        """
        self._released = []

    def add_held_jobs(self, claim_order: Iterable[str]) -> None:
        """Add the released jobs that were kept back, so that the next call stores them together.

        claim_order has the ids of all jobs in the order in which they were claimed. A call puts its
        released jobs in front of the queue, so two calls would reverse this order.
        """
        released, self._released = self._released or [], None
        order = {id: number for number, id in enumerate(claim_order)}
        self._outcomes += sorted(released, key=lambda outcome: order.get(outcome.id, 0))

    # Storing items ------------------------------------------------------------------------------

    def take_portion(self) -> OutboxPortion:
        """Remove the items for the next call from the outbox, and return them.

        If the items weigh too much for one call, the rest stays in the outbox.
        """
        if self._singles:
            self._singles -= 1
            if self._updates:
                return OutboxPortion([self._updates.pop(0)], [], is_single=True)
            if self._outcomes:
                return OutboxPortion([], [self._outcomes.pop(0)], is_single=True)
        updates, self._updates = self._updates, []
        if left := _remove_excess(updates, _weigh_update, self._max_batch):
            self._updates[:0] = left
            # No outcomes: the remaining updates must be stored before the outcomes of their jobs.
            return OutboxPortion(updates, [])
        outcomes, self._outcomes = self._outcomes, []
        if self._weights or len(outcomes) > self._max_batch:
            self._outcomes = _remove_excess(outcomes, self._weigh_outcome, self._max_batch)
        return OutboxPortion(updates, outcomes)

    def mark_stored(self, outcomes: list[Outcome], lost_ids: Collection[str]) -> None:
        """Record that a call has stored these outcomes, except those of the jobs in lost_ids.

        lost_ids are the ids of jobs whose lease this worker has lost. This is logged.
        """
        for id in lost_ids:
            if id in self._maybe_stored:
                logger.info(
                    "job %s: outcome not stored again: an earlier call stored it, or the lease was "
                    "lost",
                    id,
                )
            else:
                logger.warning("job %s: outcome discarded, because its lease was lost", id)
        if self._replaced:
            self._replaced.difference_update((outcome.id, outcome.token) for outcome in outcomes)
        if self._maybe_stored:
            self._maybe_stored.difference_update(outcome.id for outcome in outcomes)
        if self._weights:
            for outcome in outcomes:
                self._weights.pop(outcome.id, None)

    def put_back(self, portion: OutboxPortion, *, maybe_stored: bool) -> None:
        """Put a portion whose call failed back at the beginning of the outbox.

        maybe_stored is whether the store may have stored it nevertheless. If it has, the jobs have
        no leases when the portion is stored again, and `mark_stored` does not log that as a loss.
        """
        if maybe_stored:
            self._maybe_stored.update(outcome.id for outcome in portion.outcomes)
        self._singles += portion.is_single and not portion.is_empty
        self._updates[:0] = portion.updates
        self._outcomes[:0] = portion.outcomes

    def handle_rejected_portion(
        self, portion: OutboxPortion, error: StoreRejected
    ) -> list[Outcome]:
        """Handle a portion that the store has rejected because it cannot store one of the items.

        The items of a larger portion are stored again one at a time, so that only the job of the
        bad item is affected. A single update is dropped. A single outcome is replaced by a failure
        of its job.

        Returns the outcomes that are given up, because the store has rejected that failure, too.
        The leases of these jobs expire.
        """
        if not portion.is_single:
            self._put_back_as_singles(portion)
            return []
        for update in portion.updates:
            logger.error(
                "queue %s: job %s: progress or log line dropped, the store rejects it: %s",
                self._queue, update.id, error.reason,
            )  # fmt: skip
        return [
            outcome
            for outcome in portion.outcomes
            if not self._try_replace_by_failure(outcome, error)
        ]

    def _put_back_as_singles(self, portion: OutboxPortion) -> None:
        """Put a portion back, so that each of its items is stored in a portion of its own."""
        self._singles += len(portion.updates) + len(portion.outcomes)
        # Each released job is put in front of its queue: the one to run first must be stored last.
        released: list[Outcome] = [
            outcome for outcome in portion.outcomes if isinstance(outcome, Released)
        ]
        others: list[Outcome] = [
            outcome for outcome in portion.outcomes if not isinstance(outcome, Released)
        ]
        self._updates[:0] = portion.updates
        self._outcomes[:0] = others + released[::-1]

    def _try_replace_by_failure(self, outcome: Outcome, error: StoreRejected) -> bool:
        """Replace a rejected outcome by a failure of its job, to be stored next.

        Returns False if the outcome was such a failure already.
        """
        run = (outcome.id, outcome.token)
        reason = f"the outcome of the job cannot be stored: {error.reason}"
        failure_log.log_outcome_not_stored(self._queue, outcome.id, reason)
        if run in self._replaced:
            self._replaced.discard(run)
            self._weights.pop(outcome.id, None)
            return False
        self._replaced.add(run)
        self._singles += 1
        self._outcomes.insert(0, Failed(outcome.id, outcome.token, reason, None, self._keep_failed))
        return True

    def _weigh_outcome(self, outcome: Outcome) -> int:
        """Return the weight of an outcome: 1, or more if it is large."""
        if isinstance(outcome, Released):
            return 0  # never split: `add_held_jobs` explains why
        return self._weights.get(outcome.id, 1)


def _remove_excess(items: list[Item], weigh: Callable[[Item], int], max_weight: int) -> list[Item]:
    """Remove the items beyond a total weight from the end of a list, and return them."""
    weight = 0
    for end, item in enumerate(items):
        weight += weigh(item)
        if weight > max_weight and end:
            left = items[end:]
            # Keeps an item that another thread adds at this moment.
            del items[end : end + len(left)]
            return left
    return []


def _weigh_update(update: RunUpdate) -> int:
    """Return the weight of progress or a log line: 1, or more if it is large."""
    text = update.line if isinstance(update, LogLine) else update.value
    return 1 + len(text) // BYTES_PER_WEIGHT
