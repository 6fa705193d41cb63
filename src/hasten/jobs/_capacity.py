"""How the queues of a worker share its capacity. A call costs the same for any number of queues."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

# A queue with short jobs takes up to this many places in one turn: a claim of several jobs costs
# the store hardly more than a claim of one, and the other queues do not wait long.
MAX_TURN: Final = 16
SHORT_SECONDS: Final = 0.1


class QueueShare:
    """The part of a worker's capacity that one queue uses. wake is called when it may get more."""

    __slots__ = ("claims", "in_use", "may_have_work", "offered", "started_at", "turn", "wake")

    def __init__(self, wake: Callable[[], None]) -> None:
        self.wake = wake
        self.in_use = 0  # running jobs, and places reserved for a claim
        self.claims = 0  # under way: reserved and not finished
        self.may_have_work = False
        self.turn = 1  # how many places the queue may take in its turn
        self.offered = 0  # places kept free for the queue, whose turn it is, until it reserves them
        self.started_at = 0.0  # when its latest jobs started, by the clock of the capacity


class Capacity:
    """A number of jobs that run at once. Queues that want more than is free take turns.

    A single queue gets all of the capacity. Of several queues that may have work, none uses more
    than an equal share (or one turn) while another uses less, and the one that has waited longest
    is next.
    """

    def __init__(self, size: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.size = size
        self.claims = 0  # under way, of all queues
        self._clock = clock
        self._in_use = 0
        self._offered = 0
        self._ready = 0  # how many queues may have work
        self._waiting: dict[QueueShare, None] = {}  # in the order in which they are served
        self._at_limit: dict[QueueShare, None] = {}  # use all that they may

    def mark_ready(self, share: QueueShare) -> None:
        """Count a queue that may have jobs: it calls `reserve` whenever it is awake."""
        if not share.may_have_work:
            share.may_have_work = True
            self._ready += 1

    def mark_empty(self, share: QueueShare) -> None:
        """Give the share of a queue without jobs to the other queues."""
        if not share.may_have_work:
            return
        before = self._equal_share()
        share.may_have_work = False
        self._ready -= 1
        self._waiting.pop(share, None)
        self._at_limit.pop(share, None)
        self._end_turn(share)
        if self._equal_share() > before:
            self._waiting |= self._at_limit
            self._at_limit.clear()
        self._offer()

    def reserve(self, share: QueueShare, at_most: int) -> int:
        """Reserve up to at_most places for a claim. Returns 0 if the queue has to wait for `wake`.

        `finish_claim` ends the reservation.
        """
        free = self.size - self._in_use
        if share.offered:
            self._end_turn(share)
        else:
            free -= self._offered + len(self._waiting) - (share in self._waiting)
        limit = max(self._equal_share(), share.turn)
        if share.in_use >= limit:
            self._waiting.pop(share, None)
            self._at_limit[share] = None
            self._offer()
            return 0
        count = min(free, limit - share.in_use, at_most)
        if count <= 0:
            self._waiting[share] = None
            self._offer()
            return 0
        self._waiting.pop(share, None)
        self._in_use += count
        share.in_use += count
        self.claims += 1
        share.claims += 1
        self._offer()
        return count

    def finish_claim(self, share: QueueShare, reserved: int, used: int) -> None:
        """Keep the places that the jobs of a claim use now, and free the other reserved ones."""
        self.claims -= 1
        share.claims -= 1
        if used:
            share.started_at = self._clock()
        if used < reserved:
            self.release(share, reserved - used)
        elif used > reserved:  # some come from an earlier claim, whose response was lost
            self._in_use += used - reserved
            share.in_use += used - reserved

    def skip_turn(self, share: QueueShare) -> None:
        """Leave the places that were offered to the queue to the other queues."""
        if share.offered:
            self._end_turn(share)
            self._offer()

    def release(self, share: QueueShare, count: int = 1) -> None:
        """Free places of a queue, whose jobs have ended."""
        self._in_use -= count
        share.in_use -= count
        if self._ready > 1:
            is_short = self._clock() - share.started_at < SHORT_SECONDS
            share.turn = min(2 * share.turn, MAX_TURN) if is_short else 1
        self._at_limit.pop(share, None)
        self._offer()

    def _equal_share(self) -> int:
        return self.size if self._ready <= 1 else -(-self.size // self._ready)

    def _end_turn(self, share: QueueShare) -> None:
        self._offered -= share.offered
        share.offered = 0

    def _offer(self) -> None:
        """Offer the free places to the queues that wait, in their order, and wake these."""
        while self._waiting and self.size - self._in_use > self._offered:
            share = next(iter(self._waiting))
            del self._waiting[share]
            share.offered = share.turn
            self._offered += share.offered
            share.wake()
