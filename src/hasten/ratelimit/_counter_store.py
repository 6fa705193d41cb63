"""The interface between limits and the stores that keep their counts.

A store answers one question: may these checks pass? All checks of one request are one call, so that
a remote store needs one round trip. Checks come in groups: the rates of one limit are a group, and
a group takes the cost of all its checks or of none. Groups are taken in order up to the first that
is denied.

A limit that counts a request by its outcome ("failed logins") reserves the cost when the request
arrives and settles the reservation when the outcome is known. So no request can slip in between the
check and the count, and nothing stays charged that should not.

Times at this interface are durations from now, in whole microseconds: each store has its own clock.
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
    """What a store has to decide for one rate of one limit.

    - bucket: the name of the limit and its rate. key: the client, as a hash of 16 bytes.
    - cost: 0 or more. A cost of 0 only checks whether the limit is exceeded.
    - counted_later: reserve the cost. A `Settlement` ends the reservation.
    - block_us: how long to block the key after a denial that reserved costs alone did not cause. It
      has no effect if it is shorter than `Rule.life_us`.
    - forced: take the cost even if it does not fit; `Outcome.ok` still reports whether it did.
    - shadow: a denial takes nothing, but later groups are taken anyway.
    - on_error: what happens if the store does not respond. A store can ignore it.
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


class Token(NamedTuple):
    """A reservation. at_us identifies its window, on the clock of the store."""

    bucket: str
    key: bytes
    rule: Rule
    cost: int
    at_us: int
    is_local: bool = False


class Outcome(NamedTuple):
    """The result of a check.

    - ok: whether the check passes.
    - limit: the highest cost that can pass at once.
    - remaining: the cost that can still pass after this check, 0 or more.
    - reset_us: the time until remaining increases, 0 if nothing is used. For a fixed window it is
      the time until the window ends.
    - retry_us: the time after which the same check passes if no other request comes first; 0 if it
      passes now.
    - certain: only a reset of the key lets the check pass before retry_us, so the denial can be
      cached.
    - token: the reservation, None if there is nothing to settle.
    - unavailable: the store did not respond, and `Check.on_error` decided. Nothing was counted.
    """

    ok: bool
    limit: int
    remaining: int
    reset_us: int
    retry_us: int = 0
    certain: bool = False
    token: Token | None = None
    unavailable: bool = False


def find_effective_outcome(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the outcome that decides: the longest denial, or else the one with the least left."""
    if len(outcomes) == 1:
        return outcomes[0]
    denied = [outcome for outcome in outcomes if not outcome.ok]
    if denied:
        return max(denied, key=lambda outcome: outcome.retry_us)
    return min(outcomes, key=lambda outcome: (outcome.remaining, outcome.limit))


def decision_of(
    name: str, outcome: Outcome, *, shadow: bool = False, request: RequestInfo | None = None
) -> Decision:
    """Return the decision that callers and observers receive for an outcome."""
    return Decision(
        name,
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
    """The end of a reservation.

    keep is how much of the cost stays charged: 0 is a refund, more than the cost a surcharge.
    """

    token: Token
    keep: int = 0


CheckGroup: TypeAlias = Sequence[Check]
"""The checks of one limit, at least one: one key, one bucket for each. All are taken, or none."""


class CounterStore(Protocol):
    """A place that keeps counts: implement it to keep them in a database of your own.

    It may be used from several event loops at once. Two more members are optional: `clock`, a
    `Clock` to use instead of the system's, and `clear()`, which deletes all keys.
    """

    async def hit(self, groups: Sequence[CheckGroup]) -> list[list[Outcome]]:
        """Take groups in order, up to and including the first that is denied.

        The result has no outcomes for later groups. A denied group takes nothing; earlier groups
        stay taken. In a denied group, the checks that would have passed are ok. Each key changes
        in one atomic step. Raises `StoreError`.
        """

    def settle(self, settlements: Sequence[Settlement]) -> Awaitable[None]:
        """End reservations. A reservation whose window is over or was reset is ignored.

        A count never falls below 0, and no key is created. Settle each token once. Every later hit
        from the same event loop sees the result. Raises `StoreError`.
        """

    async def peek(self, checks: Sequence[Check]) -> list[Outcome]:
        """Return the outcome that each check would have, without counting anything."""

    async def reset(self, bucket: str, key: bytes) -> None:
        """Delete the counts and the block of a key in a bucket."""

    async def block(self, bucket: str, key: bytes, for_us: int) -> None:
        """Deny every check of a key for this long. 0 ends a block. Counts do not change."""

    async def aclose(self) -> None:
        """Close connections. Safe to call twice."""


@runtime_checkable
class TimedStore(CounterStore, Protocol):
    """A counter store that times out by itself: it raises `StoreTimeout` for a late response.

    When the response arrives later, the store ends the reservations in it and calls on_late, which
    means that the store is available again.
    """

    on_late: Callable[[], None] | None

    def with_timeout(self, seconds: Duration) -> TimedStore:
        """Return a store with the same counts and connections, and another time-out."""


@runtime_checkable
class ImmediateStore(CounterStore, Protocol):
    """A counter store that responds without waiting. Each method is for one thread at a time."""

    def hit_one(self, check: Check) -> Outcome:
        """Run `hit` for one check, synchronously."""

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
    """Return whether a group is denied, so that later groups are not taken."""
    if len(outcomes) == 1 and outcomes[0].ok:  # the most frequent case
        return False
    for check, outcome in zip(group, outcomes, strict=True):
        if not (outcome.ok or check.forced or check.shadow):
            return True
    return False


def digest(text: str) -> bytes:
    """Return the key for a text: of constant size, and free of collisions that clients can make."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
