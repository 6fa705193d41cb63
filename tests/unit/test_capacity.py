"""How the queues of a worker share its capacity, on random sequences of calls."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hasten.jobs._capacity import MAX_TURN, SHORT_SECONDS, QueueShare, WorkerCapacity


class Queues:
    """Queues that reserve places whenever they are awake and want more."""

    def __init__(self, size: int, count: int) -> None:
        self.size = size
        self.now = 0.0
        self.capacity = WorkerCapacity(size, clock=lambda: self.now)
        self.awake: set[QueueShare] = set()
        self.shares = [self._share() for _ in range(count)]

    def _share(self) -> QueueShare:
        share = QueueShare(lambda: self.awake.add(share))
        self.capacity.mark_may_have_work(share)
        self.awake.add(share)
        return share

    def ask(self, at_most: int) -> None:
        """Let all awake queues reserve places, until none is awake."""
        for _ in range(10_000):
            if not self.awake:
                return
            share = min(self.awake, key=self.shares.index)
            self.awake.discard(share)
            if not share.may_have_work:
                self.capacity.skip_turn(share)
            elif reserved := self.capacity.reserve(share, at_most):
                self.capacity.finish_claim(share, reserved, used=reserved)
                self.awake.add(share)  # it has claimed, and reserves again
        raise AssertionError("they wake each other without end")

    def check(self) -> None:
        held = sum(share.in_use for share in self.shares)
        assert held == self.capacity._in_use <= self.size
        assert not self.capacity._offered
        wanting = [share for share in self.shares if share.may_have_work]
        if wanting and held < self.size:
            limit = self.size if len(wanting) == 1 else -(-self.size // len(wanting))
            assert all(share.in_use >= limit for share in wanting), "free places, and nobody asks"

    def end(self, share: QueueShare, amount: int, seconds: float) -> None:
        """End the jobs of a queue that have run for this long."""
        self.now += seconds
        self.capacity.release(share, amount)
        self.awake.add(share)


steps = st.lists(
    st.tuples(
        st.sampled_from(["end", "end at once", "empty", "ready"]),
        st.integers(0, 7),
        st.integers(1, 5),
    ),
    max_size=60,
)


@given(size=st.integers(1, 12), count=st.integers(1, 8), steps=steps)
def test_no_place_is_left_unused(size: int, count: int, steps: list[tuple[str, int, int]]) -> None:
    """And the queues never use more places than there are."""
    queues = Queues(size, count)
    queues.ask(size)
    queues.check()
    for what, number, amount in steps:
        share = queues.shares[number % count]
        match what:
            case "end" if share.in_use:
                queues.end(share, min(amount, share.in_use), SHORT_SECONDS)
            case "end at once" if share.in_use:
                queues.end(share, min(amount, share.in_use), 0.0)
            case "empty":
                queues.capacity.mark_empty(share)
            case "ready":
                queues.capacity.mark_may_have_work(share)
                queues.awake.add(share)
        queues.ask(amount)
        queues.check()


def test_the_queue_that_has_waited_longest_is_next() -> None:
    """With fewer places than queues, none has a second turn while another waits."""
    queues = Queues(2, 5)
    queues.ask(1)
    order = [queues.shares.index(share) for share in queues.shares if share.in_use]
    for ended in range(13):
        before = {share for share in queues.shares if share.in_use}
        share = queues.shares[order[ended]]
        queues.end(share, 1, SHORT_SECONDS)
        queues.ask(1)
        (begun,) = {share for share in queues.shares if share.in_use} - before
        order.append(queues.shares.index(begun))
    assert order == [0, 1, 2, 3, 4] * 3


def test_a_single_queue_gets_all_of_it() -> None:
    queues = Queues(10, 3)
    for share in queues.shares[1:]:
        queues.capacity.mark_empty(share)
    queues.ask(10)
    assert queues.shares[0].in_use == 10


def test_a_queue_with_short_jobs_takes_several_places_in_its_turn() -> None:
    """It takes places for all that end together, and the queues still take turns."""
    queues = Queues(MAX_TURN, 3 * MAX_TURN)
    queues.ask(MAX_TURN)
    turns: list[tuple[int, int]] = []
    for _ in range(8 * len(queues.shares)):
        holders = [share for share in queues.shares if share.in_use]
        before = {share: share.in_use for share in holders}
        for share in holders:
            queues.end(share, before[share], 0.0)
        queues.ask(MAX_TURN)
        turns += [(queues.shares.index(s), s.in_use) for s in queues.shares if s.in_use]
    count = len(queues.shares)
    round_before, last_round = turns[-2 * count : -count], turns[-count:]
    assert last_round == round_before
    assert sorted(last_round) == [(number, MAX_TURN) for number in range(count)]


def test_a_queue_whose_jobs_become_long_takes_one_place_again() -> None:
    queues = Queues(4, 8)
    queues.ask(4)
    share = queues.shares[0]
    for seconds, turn in ((0.0, 2), (0.0, 4), (SHORT_SECONDS, 1)):
        queues.end(share, 0, seconds)
        assert share.turn == turn
