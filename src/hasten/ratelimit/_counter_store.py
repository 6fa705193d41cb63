"""The interface between limits and the stores that keep their counts.

A store decides whether checks pass. Each rate of a limit is one check, and the checks of one limit
are a group: either all of them take their cost, or none does. All groups of a request are sent in
one call, so that a remote store needs one round trip. The store takes groups in order, up to the
first that is denied.

Some limits count a request by the status of its response ("failed logins"). They reserve the cost
when the request arrives, and settle the reservation when the status is known. So concurrent
requests cannot exceed the limit in between, and requests that do not count are refunded.

Times at this interface are durations from now in whole microseconds, because each store has a clock
of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from hashlib import blake2b
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias, get_args, runtime_checkable

from hasten._decision import Decision
from hasten._durations import Duration
from hasten._request_info import RequestInfo
from hasten.ratelimit._rules import Rule

OnStoreError: TypeAlias = Literal["local", "allow", "deny"]

ON_STORE_ERROR: Final[tuple[OnStoreError, ...]] = get_args(OnStoreError)


class Check(NamedTuple):
    """One rate of a limit, and the cost that a store should take from it.

    - bucket: the name of the limit and its rate. key: the client, as a hash of 16 bytes.
    - rule: the rate.
    - cost: 0 or more. A cost of 0 only checks whether the limit is exceeded.
    - counted_later: reserve the cost. A later `Settlement` ends the reservation.
    - block_us: if the check is denied, block the key for this time. It has no effect if it is
      shorter than a denial can last (`Rule.life_us`), or if the check would pass without the
      reserved costs of others.
    - forced: take the cost even if it does not fit; `Outcome.ok` still reports whether it fits.
    - shadow: if the check is denied, its group takes nothing, but the store continues with the next
      group.
    - on_error: what to do if the store does not respond. hasten applies it; a store can ignore it.
    """

    bucket: str
    key: bytes
    rule: Rule
    cost: int = 1
    counted_later: bool = False
    block_us: int = 0
    forced: bool = False
    shadow: bool = False
    on_error: OnStoreError = "local"


class Reservation(NamedTuple):
    """A cost that a check has reserved. A `Settlement` ends the reservation later.

    - at_us: identifies the window that the cost was reserved in, on the clock of the store.
    - is_local: reserved in this process, because the store was unavailable.
    """

    bucket: str
    key: bytes
    rule: Rule
    cost: int
    at_us: int
    is_local: bool = False


class Outcome(NamedTuple):
    """The answer of a store to one check.

    - ok: whether the check passes.
    - limit: the highest cost that can pass at once.
    - remaining: the cost that can still pass after this check, 0 or more.
    - reset_us: the time until remaining increases, 0 if nothing is used. For a fixed window it is
      the time until the window ends.
    - retry_us: the time after which the same check passes if no other request comes first; 0 if it
      passes now.
    - certain: the check is denied until retry_us, unless the key is reset. So the denial can be
      cached. A denial is not certain if a settlement could end it earlier.
    - reservation: the reservation to settle, None if nothing was reserved.
    - unavailable: the store did not respond, and `Check.on_error` decided ("allow" or "deny").
      Nothing was counted.
    """

    ok: bool
    limit: int
    remaining: int
    reset_us: int
    retry_us: int = 0
    certain: bool = False
    reservation: Reservation | None = None
    unavailable: bool = False


def find_decisive_outcome(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the outcome that decides for a limit with several rates.

    It is the denial with the longest wait. If there is no denial, it is the outcome with the
    least remaining.
    """
    if len(outcomes) == 1:
        return outcomes[0]
    denied = [outcome for outcome in outcomes if not outcome.ok]
    if denied:
        return max(denied, key=lambda outcome: outcome.retry_us)
    return min(outcomes, key=lambda outcome: (outcome.remaining, outcome.limit))


def make_decision(
    limit_name: str, outcome: Outcome, *, shadow: bool = False, request: RequestInfo | None = None
) -> Decision:
    """Convert an outcome to the `Decision` that callers and observers receive.

    limit_name is the name of the limit that the outcome belongs to.
    """
    return Decision(
        limit_name,
        outcome.ok,
        outcome.limit,
        outcome.remaining,
        outcome.reset_us / 1_000_000,
        outcome.retry_us / 1_000_000,
        shadow,
        outcome.unavailable,
        request,
    )


class Settlement(NamedTuple):
    """An instruction to end a reservation, and to charge or refund its cost.

    keep is the cost that stays charged. 0 refunds the whole cost; a number above the reserved cost
    charges the difference, too.
    """

    reservation: Reservation
    keep: int = 0


CheckGroup: TypeAlias = Sequence[Check]
"""The checks of one limit, one for each of its rates. Either all take their cost, or none does.

There is at least one. All have the same key, and each has its own bucket.
"""


class CounterStore(Protocol):
    """A store for the counts of limits. Implement it to keep them in a database of your own.

    A store may be used from several event loops at once. Two more members are optional: `clock`, a
    `Clock` to use instead of the system's, and `clear()`, which deletes all keys.
    """

    async def hit(self, groups: Sequence[CheckGroup]) -> list[list[Outcome]]:
        """Take the costs of groups in order, up to the first group that is denied.

        Returns the outcomes of each group that was taken, and those of the denied group. A denied
        group takes nothing, and earlier groups keep what they took. In a denied group, `ok` is
        true for the checks that would have passed. Each key changes in one atomic step. Raises
        `StoreError`.
        """

    def settle(self, settlements: Sequence[Settlement]) -> Awaitable[None]:
        """End reservations. Ignores a reservation whose window has ended or whose key was reset.

        A count never falls below 0, and no key is created. Each reservation may be settled once.
        Every later hit from the same event loop sees the result. Raises `StoreError`.
        """

    async def peek(self, checks: Sequence[Check]) -> list[Outcome]:
        """Return the outcome that each check would have now, without counting anything."""

    async def reset(self, bucket: str, key: bytes) -> None:
        """Delete the counts and the block of a key in a bucket."""

    async def block(self, bucket: str, key: bytes, for_us: int) -> None:
        """Deny every check of a key for this many microseconds; 0 ends a block.

        Counts do not change.
        """

    async def aclose(self) -> None:
        """Close connections. Safe to call twice."""


@runtime_checkable
class TimedStore(CounterStore, Protocol):
    """A counter store with a time-out of its own: it raises `StoreTimeout` if no response comes.

    When the response arrives late, the store refunds the reservations in it and calls on_late, to
    report that the database responds again.
    """

    on_late: Callable[[], None] | None

    def with_timeout(self, seconds: Duration) -> TimedStore:
        """Return a store with the same counts and connections, and another time-out in seconds."""


@runtime_checkable
class ImmediateStore(CounterStore, Protocol):
    """A counter store that never waits, so that it also has synchronous methods.

    They may be called from any thread.
    """

    def hit_one(self, check: Check) -> Outcome:
        """Run `hit` synchronously for a single check."""

    def hit_now(self, groups: Sequence[CheckGroup]) -> list[list[Outcome]]:
        """Run `hit` synchronously."""

    def settle_now(self, settlements: Sequence[Settlement]) -> None:
        """Run `settle` synchronously."""

    def peek_now(self, checks: Sequence[Check]) -> list[Outcome]:
        """Run `peek` synchronously."""

    def reset_now(self, bucket: str, key: bytes) -> None:
        """Run `reset` synchronously."""

    def block_now(self, bucket: str, key: bytes, for_us: int) -> None:
        """Run `block` synchronously."""


def is_group_denied(group: CheckGroup, outcomes: Sequence[Outcome]) -> bool:
    """Return whether a group is denied, so that the store must not take later groups.

    Forced and shadow checks never deny their group.
    """
    if len(outcomes) == 1 and outcomes[0].ok:  # the most frequent case
        return False
    for check, outcome in zip(group, outcomes, strict=True):
        if not (outcome.ok or check.forced or check.shadow):
            return True
    return False


def hash_client(client: str) -> bytes:
    """Return the key of a client: the hash of a text that identifies the client.

    The hash has a constant size, and clients cannot provoke collisions.
    """
    return blake2b(client.encode("utf-8", "surrogatepass"), digest_size=16).digest()
