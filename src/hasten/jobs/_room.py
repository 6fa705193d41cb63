"""How the queues of a worker share its room. A call costs the same for any number of queues."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

# A queue whose jobs are short takes up to so many places in one turn: a claim of several jobs costs
# the store hardly more than a claim of one, and the others do not wait long.
LONGEST_TURN: Final = 16
SHORT_SECONDS: Final = 0.1


class Share:
    """What one queue has of a worker's room. wake is called when it may have more."""

    __slots__ = ("began_at", "held", "kept", "turn", "wake", "wants")

    def __init__(self, wake: Callable[[], None]) -> None:
        self.wake = wake
        self.held = 0  # runs, and places that are reserved for a claim
        self.wants = False  # it may have more jobs
        self.turn = 1  # how many places it may take in its turn
        self.kept = 0  # how many are kept for it until it has asked, for it is its turn
        self.began_at = 0.0  # when its last jobs began, by the clock of the room


class Room:
    """Places for size runs. Queues that want more than there is take turns.

    A queue alone has all of it. Of several that want places, none holds more than an equal share
    (or one turn) while others have less, and whoever has waited longest is next.
    """

    def __init__(self, size: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._size = size
        self._clock = clock
        self._busy = 0
        self._kept = 0
        self._wanting = 0
        self._waiting: dict[Share, None] = {}  # in the order in which they are served
        self._full: dict[Share, None] = {}  # those that hold all that they may

    def want(self, share: Share) -> None:
        """The queue may have jobs: it asks with `reserve` whenever it is awake."""
        if not share.wants:
            share.wants = True
            self._wanting += 1

    def rest(self, share: Share) -> None:
        """The queue has no more jobs. What it leaves is the others'."""
        if not share.wants:
            return
        before = self._equal_share()
        share.wants = False
        self._wanting -= 1
        self._waiting.pop(share, None)
        self._full.pop(share, None)
        self._end_turn(share)
        if self._equal_share() > before:
            self._waiting |= self._full
            self._full.clear()
        self._offer()

    def reserve(self, share: Share, at_most: int) -> int:
        """Take up to so many places for a claim. 0 if it has to wait until it is woken."""
        free = self._size - self._busy
        if share.kept:
            self._end_turn(share)
        else:
            free -= self._kept + len(self._waiting) - (share in self._waiting)
        limit = max(self._equal_share(), share.turn)
        if share.held >= limit:
            self._waiting.pop(share, None)
            self._full[share] = None
            self._offer()
            return 0
        amount = min(free, limit - share.held, at_most)
        if amount <= 0:
            self._waiting[share] = None
            self._offer()
            return 0
        self._waiting.pop(share, None)
        self.take(share, amount)
        self._offer()
        return amount

    def pass_on(self, share: Share) -> None:
        """Give up a turn without asking."""
        if share.kept:
            self._end_turn(share)
            self._offer()

    def begin(self, share: Share) -> None:
        """The jobs of a claim begin to run."""
        share.began_at = self._clock()

    def take(self, share: Share, amount: int = 1) -> None:
        self._busy += amount
        share.held += amount

    def give_back(self, share: Share, amount: int = 1) -> None:
        self._busy -= amount
        share.held -= amount
        if self._wanting > 1:
            is_short = self._clock() - share.began_at < SHORT_SECONDS
            share.turn = min(2 * share.turn, LONGEST_TURN) if is_short else 1
        self._full.pop(share, None)
        self._offer()

    def _equal_share(self) -> int:
        return self._size if self._wanting <= 1 else -(-self._size // self._wanting)

    def _end_turn(self, share: Share) -> None:
        self._kept -= share.kept
        share.kept = 0

    def _offer(self) -> None:
        """Wake those that wait, the first ones first, for the places that are free."""
        while self._waiting and self._size - self._busy > self._kept:
            share = next(iter(self._waiting))
            del self._waiting[share]
            share.kept = share.turn
            self._kept += share.kept
            share.wake()
