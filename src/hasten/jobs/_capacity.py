"""Divide a worker's capacity, the number of jobs that it runs at once, among its queues.

Each job takes one place. The cost of a call does not depend on the number of queues.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

# A queue whose jobs take less than `SHORT_SECONDS` may reserve up to this many places in one turn.
# A claim of several jobs costs the store hardly more than a claim of one, and the other queues do
# not wait long.
MAX_TURN: Final = 16
SHORT_SECONDS: Final = 0.1


class QueueShare:
    """The part of a worker's capacity that one queue uses.

    wake is called when the queue may reserve places again, after `WorkerCapacity.reserve` has
    returned 0.
    """

    __slots__ = ("claims", "in_use", "may_have_work", "offered", "started_at", "turn", "wake")

    def __init__(self, wake: Callable[[], None]) -> None:
        self.wake = wake
        self.in_use = 0  # places of running jobs, and places reserved for claims
        self.claims = 0  # claims that have reserved places and are not finished
        self.may_have_work = False
        self.turn = 1  # how many places the queue may reserve in its next turn
        self.offered = 0  # free places that only this queue may reserve, because it is its turn
        self.started_at = 0.0  # when its latest jobs started, by the clock of the capacity


class WorkerCapacity:
    """The places for the jobs that a worker runs at once, for which its queues take turns.

    A single queue gets all places. If several queues may have work, each may use an equal share of
    the places, or as many as its turn allows, if these are more. A turn is the chance to reserve
    free places, at most `QueueShare.turn` of them; the queue that has waited longest is next.
    """

    def __init__(self, size: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.size = size
        self.claims = 0  # claims of all queues that have reserved places and are not finished
        self._clock = clock
        self._in_use = 0
        self._offered = 0
        self._ready = 0  # how many queues may have work
        self._waiting: dict[QueueShare, None] = {}  # for a free place, the next one first
        # Use their whole share, and get no more until another queue is empty.
        self._at_limit: dict[QueueShare, None] = {}

    def mark_may_have_work(self, share: QueueShare) -> None:
        """Record that this queue may have jobs, and so needs a share of the capacity.

        Its consumer then calls `reserve` whenever it is woken.
        """
        if not share.may_have_work:
            share.may_have_work = True
            self._ready += 1

    def mark_empty(self, share: QueueShare) -> None:
        """Record that this queue has no jobs. The other queues get its share of the capacity."""
        if not share.may_have_work:
            return
        before = self._places_per_queue()
        share.may_have_work = False
        self._ready -= 1
        self._waiting.pop(share, None)
        self._at_limit.pop(share, None)
        self._give_up_kept_places(share)
        if self._places_per_queue() > before:
            self._waiting |= self._at_limit
            self._at_limit.clear()
        self._keep_places_for_waiting_queues()

    def reserve(self, share: QueueShare, at_most: int) -> int:
        """Reserve up to at_most places for a claim, and return how many were reserved.

        If none was reserved, the queue has to wait until its `wake` is called. Otherwise
        `finish_claim` must end the reservation.
        """
        free = self.size - self._in_use
        if share.offered:
            self._give_up_kept_places(share)
        else:
            free -= self._offered + len(self._waiting) - (share in self._waiting)
        limit = max(self._places_per_queue(), share.turn)
        if share.in_use >= limit:
            self._waiting.pop(share, None)
            self._at_limit[share] = None
            self._keep_places_for_waiting_queues()
            return 0
        count = min(free, limit - share.in_use, at_most)
        if count <= 0:
            self._waiting[share] = None
            self._keep_places_for_waiting_queues()
            return 0
        self._waiting.pop(share, None)
        self._in_use += count
        share.in_use += count
        self.claims += 1
        share.claims += 1
        self._keep_places_for_waiting_queues()
        return count

    def finish_claim(self, share: QueueShare, reserved: int, used: int) -> None:
        """Turn used of the reserved places into places of running jobs, and free the others."""
        self.claims -= 1
        share.claims -= 1
        if used:
            share.started_at = self._clock()
        if used < reserved:
            self.release(share, reserved - used)
        elif used > reserved:  # includes jobs of an earlier claim whose response was lost
            self._in_use += used - reserved
            share.in_use += used - reserved

    def skip_turn(self, share: QueueShare) -> None:
        """Let the other queues reserve the places that were kept free for this queue.

        Call it if this queue cannot claim jobs now.
        """
        if share.offered:
            self._give_up_kept_places(share)
            self._keep_places_for_waiting_queues()

    def release(self, share: QueueShare, count: int = 1) -> None:
        """Free the places of jobs of this queue that have ended.

        `finish_claim` also calls it, for reserved places for which the claim returned no jobs.
        """
        self._in_use -= count
        share.in_use -= count
        if self._ready > 1:
            is_short = self._clock() - share.started_at < SHORT_SECONDS
            share.turn = min(2 * share.turn, MAX_TURN) if is_short else 1
        self._at_limit.pop(share, None)
        self._keep_places_for_waiting_queues()

    def _places_per_queue(self) -> int:
        """Return the number of places divided by the number of queues with work, rounded up."""
        return self.size if self._ready <= 1 else -(-self.size // self._ready)

    def _give_up_kept_places(self, share: QueueShare) -> None:
        """Stop keeping places free for this queue."""
        self._offered -= share.offered
        share.offered = 0

    def _keep_places_for_waiting_queues(self) -> None:
        """Keep free places for the queues that wait, in their order, and wake these queues."""
        while self._waiting and self.size - self._in_use > self._offered:
            share = next(iter(self._waiting))
            del self._waiting[share]
            share.offered = share.turn
            self._offered += share.offered
            share.wake()
