"""How the queues of a worker share its room. A call costs the same for any number of queues."""

from __future__ import annotations

from collections.abc import Callable


class Share:
    """What one queue has of a worker's room. wake is called when it may have more."""

    __slots__ = ("has_turn", "held", "wake", "wants")

    def __init__(self, wake: Callable[[], None]) -> None:
        self.wake = wake
        self.held = 0  # runs, and places that are reserved for a claim
        self.wants = False  # it may have more jobs
        self.has_turn = False  # a free place is kept for it until it has asked


class Room:
    """Places for size runs. Queues that want more than there is take turns.

    A queue alone has all of it. Of several that want places, none holds more than an equal share
    while others have less, and whoever has waited longest is next.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._busy = 0
        self._turns = 0
        self._wanting = 0
        self._waiting: dict[Share, None] = {}  # in the order in which they are served
        self._full: dict[Share, None] = {}  # those that hold their equal share

    def want(self, share: Share) -> None:
        """The queue may have jobs: it asks with `reserve` whenever it is awake."""
        if not share.wants:
            share.wants = True
            self._wanting += 1

    def rest(self, share: Share) -> None:
        """The queue has no more jobs. What it leaves is the others'."""
        if not share.wants:
            return
        before = self._limit()
        share.wants = False
        self._wanting -= 1
        self._waiting.pop(share, None)
        self._full.pop(share, None)
        self._end_turn(share)
        if self._limit() > before:
            self._waiting |= self._full
            self._full.clear()
        self._offer()

    def reserve(self, share: Share, at_most: int) -> int:
        """Take up to so many places for a claim. 0 if it has to wait until it is woken."""
        free = self._size - self._busy - self._turns
        if share.has_turn:
            free += 1
            self._end_turn(share)
        elif self._waiting:
            free -= len(self._waiting) - (share in self._waiting)
        limit = self._limit()
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
        return amount

    def pass_on(self, share: Share) -> None:
        """Give up a turn without asking."""
        if share.has_turn:
            self._end_turn(share)
            self._offer()

    def take(self, share: Share, amount: int = 1) -> None:
        self._busy += amount
        share.held += amount

    def give_back(self, share: Share, amount: int = 1) -> None:
        self._busy -= amount
        share.held -= amount
        self._full.pop(share, None)
        self._offer()

    def _limit(self) -> int:
        return self._size if self._wanting <= 1 else -(-self._size // self._wanting)

    def _end_turn(self, share: Share) -> None:
        if share.has_turn:
            share.has_turn = False
            self._turns -= 1

    def _offer(self) -> None:
        """Wake as many of those that wait as there are free places."""
        while self._waiting and self._size - self._busy - self._turns > 0:
            share = next(iter(self._waiting))
            del self._waiting[share]
            share.has_turn = True
            self._turns += 1
            share.wake()
