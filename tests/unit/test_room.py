"""How the queues of a worker share its room, on random sequences of calls."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hasten.jobs._room import LONGEST_TURN, SHORT_SECONDS, Room, Share


class Lanes:
    """Queues that ask whenever they are awake and want more, as fetchers do."""

    def __init__(self, size: int, count: int) -> None:
        self.size = size
        self.now = 0.0
        self.room = Room(size, clock=lambda: self.now)
        self.awake: set[Share] = set()
        self.shares = [self._share() for _ in range(count)]

    def _share(self) -> Share:
        share = Share(lambda: self.awake.add(share))
        self.room.want(share)
        self.awake.add(share)
        return share

    def ask(self, at_most: int) -> None:
        """Let all that are awake ask, until none is."""
        for _ in range(10_000):
            if not self.awake:
                return
            share = min(self.awake, key=self.shares.index)
            self.awake.discard(share)
            if not share.wants:
                self.room.pass_on(share)
            elif self.room.reserve(share, at_most):
                self.room.begin(share)
                self.awake.add(share)  # it has been at the store, and asks again
        raise AssertionError("they wake each other without end")

    def check(self) -> None:
        held = sum(share.held for share in self.shares)
        assert held == self.room._busy <= self.size
        assert not self.room._kept
        wanting = [share for share in self.shares if share.wants]
        if wanting and held < self.size:
            limit = self.size if len(wanting) == 1 else -(-self.size // len(wanting))
            assert all(share.held >= limit for share in wanting), "free places, and nobody asks"

    def end(self, share: Share, amount: int, seconds: float) -> None:
        """Let jobs of a queue end that have run for so long."""
        self.now += seconds
        self.room.give_back(share, amount)
        self.awake.add(share)


steps = st.lists(
    st.tuples(
        st.sampled_from(["end", "end at once", "rest", "want"]),
        st.integers(0, 7),
        st.integers(1, 5),
    ),
    max_size=60,
)


@given(size=st.integers(1, 12), count=st.integers(1, 8), steps=steps)
def test_no_place_is_free_while_a_queue_waits_for_one(
    size: int, count: int, steps: list[tuple[str, int, int]]
) -> None:
    """And nobody holds more than there is."""
    lanes = Lanes(size, count)
    lanes.ask(size)
    lanes.check()
    for what, number, amount in steps:
        share = lanes.shares[number % count]
        match what:
            case "end" if share.held:
                lanes.end(share, min(amount, share.held), SHORT_SECONDS)
            case "end at once" if share.held:
                lanes.end(share, min(amount, share.held), 0.0)
            case "rest":
                lanes.room.rest(share)
            case "want":
                lanes.room.want(share)
                lanes.awake.add(share)
        lanes.ask(amount)
        lanes.check()


def test_whoever_has_waited_longest_is_next() -> None:
    """With less room than queues, none has a second turn while another waits."""
    lanes = Lanes(2, 5)
    lanes.ask(1)
    order = [lanes.shares.index(share) for share in lanes.shares if share.held]
    for ended in range(13):
        before = {share for share in lanes.shares if share.held}
        share = lanes.shares[order[ended]]
        lanes.end(share, 1, SHORT_SECONDS)
        lanes.ask(1)
        (begun,) = {share for share in lanes.shares if share.held} - before
        order.append(lanes.shares.index(begun))
    assert order == [0, 1, 2, 3, 4] * 3


def test_a_queue_alone_has_all_of_it() -> None:
    lanes = Lanes(10, 3)
    for share in lanes.shares[1:]:
        lanes.room.rest(share)
    lanes.ask(10)
    assert lanes.shares[0].held == 10


def test_a_queue_with_short_jobs_takes_several_places_in_its_turn() -> None:
    """All that end together; the queues still take turns, one after the other."""
    lanes = Lanes(LONGEST_TURN, 3 * LONGEST_TURN)
    lanes.ask(LONGEST_TURN)
    turns: list[tuple[int, int]] = []
    for _ in range(8 * len(lanes.shares)):
        holders = [share for share in lanes.shares if share.held]
        before = {share: share.held for share in holders}
        for share in holders:
            lanes.end(share, before[share], 0.0)
        lanes.ask(LONGEST_TURN)
        turns += [(lanes.shares.index(s), s.held) for s in lanes.shares if s.held]
    count = len(lanes.shares)
    round_before, last_round = turns[-2 * count : -count], turns[-count:]
    assert last_round == round_before
    assert sorted(last_round) == [(number, LONGEST_TURN) for number in range(count)]


def test_a_queue_whose_jobs_become_long_takes_one_place_again() -> None:
    lanes = Lanes(4, 8)
    lanes.ask(4)
    share = lanes.shares[0]
    for seconds, turn in ((0.0, 2), (0.0, 4), (SHORT_SECONDS, 1)):
        lanes.end(share, 0, seconds)
        assert share.turn == turn
