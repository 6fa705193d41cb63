"""The seam between limits and the places that keep their counts.

A store answers one question: may these checks pass? All checks of one request are one call, so that
a store elsewhere is asked once. They come in groups: the rates of one policy are a group, which
takes all or nothing; groups are taken in order up to the first that is denied.

What is counted only by how it ends ("failed logins") is reserved by the check, and settled once the
end is known. So nobody slips through between the check and the count, and nothing stays charged
that should not.

Times at this seam are durations in whole microseconds from now: how a store tells the time is its
own business.
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

ON_ERROR: Final[tuple[OnStoreError, ...]] = get_args(OnStoreError)


class Check(NamedTuple):
    """What one rate of one limit asks of a store.

    - bucket: the name of the limit and its rate. key: who is counted, as a hash of 16 bytes.
    - cost: 0 or more. A cost of 0 only checks whether the limit is exceeded.
    - counted_later: reserve the cost; a `Settlement` ends the reservation.
    - block_us: how long to block the key after a denial for what is used up, not only reserved. It
      has no effect if it is shorter than `Rule.life_us`.
    - forced: take the cost even where it does not fit; `ok` still says whether it did.
    - shadow: a denial takes nothing, but later groups are taken all the same.
    - processes: how many processes may count approximately; 0 if none may. on_error: what happens
      if the store does not answer. A store can ignore both.
    """

    bucket: str
    key: bytes
    rule: Rule
    cost: int = 1
    counted_later: bool = False
    block_us: int = 0
    forced: bool = False
    shadow: bool = False
    processes: int = 0
    on_error: OnStoreError = "local"


class Token(NamedTuple):
    """A reservation. at_us is the window that it belongs to, on the store's clock."""

    bucket: str
    key: bytes
    rule: Rule
    cost: int
    at_us: int
    is_local: bool = False


class Outcome(NamedTuple):
    """What became of a check.

    remaining is what is left, 0 or more, after the cost was taken, or was not. reset_us is the time
    until more is left than now, 0 if nothing is used; with a fixed window its end. retry_us is 0
    unless denied: after it the same check passes, if nobody else comes first. certain says of a
    denial that nothing but a reset lets it pass before: it can be repeated without asking. token is
    for what is to be settled, None otherwise. unavailable: there was no store to ask, and the check
    said what to do then; nothing was counted.
    """

    ok: bool
    limit: int
    remaining: int
    reset_us: int
    retry_us: int = 0
    certain: bool = False
    token: Token | None = None
    unavailable: bool = False


def shown(outcomes: Sequence[Outcome]) -> Outcome:
    """Of several rates: the one that denies for longest, else the one with the least left."""
    if len(outcomes) == 1:
        return outcomes[0]
    denied = [outcome for outcome in outcomes if not outcome.ok]
    if denied:
        return max(denied, key=lambda outcome: outcome.retry_us)
    return min(outcomes, key=lambda outcome: (outcome.remaining, outcome.limit))


def decision_of(
    name: str, outcome: Outcome, *, shadow: bool = False, request: RequestInfo | None = None
) -> Decision:
    """What callers and observers are told of an outcome."""
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
    """The end of a reservation: so much of it stays charged; 0 is a refund, more is a surcharge."""

    token: Token
    keep: int = 0


CheckGroup: TypeAlias = Sequence[Check]
"""The checks of one policy, at least one: one key, a bucket for each. They take all or nothing."""


class CounterStore(Protocol):
    """A place that keeps counts: implement it to keep them in a database of your own.

    May be used from several event loops at once. Two more members are optional: `clock`, the
    `Clock` that it goes by, if that is not the system's; and `clear()`, which forgets all keys.
    """

    async def hit(self, groups: Sequence[CheckGroup]) -> list[list[Outcome]]:
        """Take groups in order, up to and with the first that is denied; later ones are missing.

        A denied group takes nothing, groups before it stay taken. In a denied group those checks
        are ok that would have passed. One atomic step for each key. Raises `StoreError`.
        """

    def settle(self, settlements: Sequence[Settlement]) -> Awaitable[None]:
        """End reservations. What belongs to a window that has gone, or was reset, is ignored.

        A count never falls below 0, and no key is made. A token is to be settled once. Seen by
        every hit that the same event loop asks for after the call. Raises `StoreError`.
        """

    async def peek(self, checks: Sequence[Check]) -> list[Outcome]:
        """Say of each check what would become of it, and take nothing."""

    async def reset(self, bucket: str, key: bytes) -> None:
        """Forget all that is known of a key in a bucket, its block too."""

    async def block(self, bucket: str, key: bytes, for_us: int) -> None:
        """Deny a key whatever it asks for so long. 0 ends a block. Counts stay as they are."""

    async def aclose(self) -> None:
        """Let go of connections. Safe to call twice."""


@runtime_checkable
class TimedStore(CounterStore, Protocol):
    """A counter store that waits for its own answers, and raises `StoreTimeout` for a late one.

    What it asked may still be answered. Then it ends the reservations that nobody knows of, and
    calls on_late: it can be asked again.
    """

    on_late: Callable[[], None] | None

    def within(self, seconds: Duration) -> TimedStore:
        """The same counts over the same connections, with another time-out."""


@runtime_checkable
class ImmediateStore(CounterStore, Protocol):
    """A store that answers at once: the same without waiting. For one thread at a time."""

    def hit_one(self, check: Check) -> Outcome:
        """`hit` of one check."""

    def hit_now(self, groups: Sequence[CheckGroup]) -> list[list[Outcome]]: ...

    def settle_now(self, settlements: Sequence[Settlement]) -> None: ...

    def peek_now(self, checks: Sequence[Check]) -> list[Outcome]: ...

    def reset_now(self, bucket: str, key: bytes) -> None: ...

    def block_now(self, bucket: str, key: bytes, for_us: int) -> None: ...


def is_denied(group: CheckGroup, outcomes: Sequence[Outcome]) -> bool:
    """Whether the groups behind this one are not taken, by its outcomes."""
    if len(outcomes) == 1 and outcomes[0].ok:  # most are
        return False
    for check, outcome in zip(group, outcomes, strict=True):
        if not (outcome.ok or check.forced or check.shadow):
            return True
    return False


def digest(text: str) -> bytes:
    """The key for a text: of constant size, and nobody can make two texts share one."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
