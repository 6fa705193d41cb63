"""The algorithms: what is known of a key goes in, with the time; what is to be known comes out.

They are the law for every store: the Lua of Redis does the same, and tests hold the two together.
All numbers are whole; times are microseconds on the clock of the store.

What is known of a key is a tuple of numbers, () if it is nothing:

    any            (blocked until,)           0 if it is not blocked
    "fixed"        (…, end of the window, used, in flight)
    "sliding"      (…, run, run, …)
    "concurrency"  (…, run, run, …)
    "gcra"         (…, arrival, run, run, …)

A **run** is three numbers, (time of its first hit, used, in flight): hits of one moment, or, where
a limit is larger than `RUNS`, of one part in `RUNS` of the window. A run counts until its last hit
could have left the window, so never more than the limit pass in any window; above `RUNS` a client
may wait for that part of the window longer than it would have to.

"fixed": the window begins with the first hit after the one before. At the seam of two windows
twice the limit less one can pass within one window's length: who minds takes "sliding".

"gcra": ITU-T I.371, as one number, the arrival: the time when all that was taken will have come
back. It may be ahead of now by the rule's tolerance. What is in flight is kept in runs, at its full
cost until it is settled; only what stays charged moves the arrival.

**In flight** is the part of `used` that was reserved and not yet settled. A reservation that never
is, since its process died, goes with its window or run. A denial is certain if what is not in
flight suffices for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from hasten.ratelimit._counter_store import Check, Outcome, Token
from hasten.ratelimit._rules import IN_FLIGHT_RETRY_US, Rule

State = tuple[int, ...]


def hit(
    checks: Sequence[Check], states: Sequence[State], now_us: int
) -> tuple[list[State], list[Outcome]]:
    """Decide a group of checks, whose states are in the same order. Returns what to store."""
    asked = [
        (check, state := fresh(check.rule, stored, now_us), _wait_of(check, state, now_us))
        for check, stored in zip(checks, states, strict=True)
    ]
    if any(waits.wait_us and not check.forced for check, _, waits in asked):
        decided = [_denied(check, state, waits, now_us) for check, state, waits in asked]
    else:
        decided = [_taken(check, state, waits, now_us) for check, state, waits in asked]
    return [state for state, _ in decided], [outcome for _, outcome in decided]


def hit_one(check: Check, state: State, now_us: int) -> tuple[State, Outcome]:
    """`hit` of a group of one."""
    state = fresh(check.rule, state, now_us)
    waits = _wait_of(check, state, now_us)
    if waits.wait_us and not check.forced:
        return _denied(check, state, waits, now_us)
    return _taken(check, state, waits, now_us)


def peek(check: Check, state: State, now_us: int) -> Outcome:
    """Say what would become of a check."""
    state = fresh(check.rule, state, now_us)
    return _outcome(check, state, _wait_of(check, state, now_us), None, now_us)


def settle(token: Token, keep: int, state: State, now_us: int) -> State:
    """End a reservation, of which so much is to stay charged. Nothing changes if it is gone."""
    rule, cost = token.rule, token.cost
    state = fresh(rule, state, now_us)
    match rule.kind:
        case "fixed":
            if len(state) == 1 or not state or state[1] != token.at_us:
                return state
            blocked_us, end_us, used, in_flight = state
            return blocked_us, end_us, max(0, used - cost + keep), max(0, in_flight - cost)
        case "gcra":
            runs = _settle_run(state[2:], token, 0)
            if runs is None:
                return state
            arrival_us = max(state[1], now_us) + keep * rule.interval_us if keep else state[1]
            return fresh(rule, (state[0], arrival_us, *runs), now_us)
        case _:
            # What ends is no longer under way: of a concurrency nothing can stay.
            runs = _settle_run(state[1:], token, keep if rule.kind == "sliding" else 0)
            return state if runs is None else fresh(rule, (state[0], *runs), now_us)


def block(state: State, until_us: int) -> State:
    """Block a key, or with 0 let it go."""
    return (until_us, *state[1:])


def expiry(rule: Rule, state: State) -> int:
    """When the state will tell nothing any more; 0 for the empty one."""
    if len(state) < 2:
        return state[0] if state else 0
    match rule.kind:
        case "fixed":
            return max(state[0], state[1])
        case "gcra":
            last_us = state[-3] + rule.life_us if len(state) > 2 else 0
            return max(state[0], state[1], last_us)
        case _:
            return max(state[0], state[-3] + rule.life_us)


# The steps ----------------------------------------------------------------------------------------


class Wait(NamedTuple):
    """How long a check is denied: surely, and if nothing is given back. (0, 0) if it passes."""

    sure_us: int
    wait_us: int


PASSES: Final = Wait(0, 0)


def fresh(rule: Rule, state: State, now_us: int) -> State:
    """The state without what is over; the same object if nothing is."""
    if not state:
        return state
    blocked_us = state[0] if state[0] > now_us else 0
    kept = len(state)
    if kept > 1:
        match rule.kind:
            case "fixed":
                kept = kept if state[1] > now_us else 1
            case "gcra":
                kept -= _over(state, 2, now_us - rule.life_us)
                kept = 1 if kept == 2 and state[1] <= now_us else kept
            case _:
                kept -= _over(state, 1, now_us - rule.life_us)
    if kept == len(state) and blocked_us == state[0] and (blocked_us or kept > 1):
        return state
    if kept == 1:
        return (blocked_us,) if blocked_us else ()
    head = (blocked_us, state[1]) if rule.kind == "gcra" else (blocked_us,)
    return head + state[len(state) - kept + len(head) :]


def _wait_of(check: Check, state: State, now_us: int) -> Wait:
    """Whether a check passes in a fresh state, and when it will."""
    waits = _wait_for_room(check.rule, state, check.cost, now_us)
    if state and state[0] > now_us:
        blocked_us = state[0] - now_us
        return Wait(max(blocked_us, waits.sure_us), max(blocked_us, waits.wait_us))
    return waits


def _wait_for_room(rule: Rule, state: State, cost: int, now_us: int) -> Wait:
    if cost > rule.capacity or not rule.limit:  # it never will; a number is wanted all the same
        return Wait(rule.window_us, rule.window_us)
    if len(state) < 2:
        return PASSES
    match rule.kind:
        case "fixed":
            _, end_us, used, in_flight = state
            if used + cost <= rule.limit:
                return PASSES
            wait_us = end_us - now_us
            return Wait(wait_us if used - in_flight + cost > rule.limit else 0, wait_us)
        case "gcra":
            sure_us = max(state[1] - now_us, 0) + cost * rule.interval_us - rule.tolerance_us
            in_flight = sum(state[4::3])
            return Wait(max(0, sure_us), max(0, sure_us + in_flight * rule.interval_us))
        case _:
            over = sum(state[2::3]) + cost - rule.limit
            if over <= 0:
                return PASSES
            over_surely = over - sum(state[3::3])
            wait_us = _until_freed(rule, state, over, in_flight_too=True) - now_us
            if over_surely <= 0:
                return Wait(0, wait_us)
            return Wait(
                _until_freed(rule, state, over_surely, in_flight_too=False) - now_us, wait_us
            )


def _until_freed(rule: Rule, state: State, cost: int, *, in_flight_too: bool) -> int:
    """When so much of what runs hold will have left."""
    for place in range(1, len(state), 3):
        cost -= state[place + 1] - (0 if in_flight_too else state[place + 2])
        if cost <= 0:
            return state[place] + rule.life_us
    raise AssertionError("more is to be freed than is held")


def take(check: Check, state: State, now_us: int) -> tuple[State, int]:
    """Take the cost of a check. Returns the state, and what its token is to say of the time."""
    rule, cost = check.rule, check.cost
    blocked_us = state[0] if state else 0
    later = check.counted_later or rule.kind == "concurrency"
    if not cost and not later:
        return state, 0
    in_flight = cost if later else 0
    match rule.kind:
        case "fixed":
            end_us, used, before = state[1:] or (now_us + rule.window_us, 0, 0)
            return (blocked_us, end_us, used + cost, before + in_flight), end_us
        case "gcra":
            arrival_us = max(state[1] if len(state) > 1 else 0, now_us)
            if not later:
                arrival_us += cost * rule.interval_us
                return (blocked_us, arrival_us, *state[2:]), 0
            runs, at_us = _join(rule, state[2:], cost, cost, now_us)
            return (blocked_us, arrival_us, *runs), at_us
        case _:
            runs, at_us = _join(rule, state[1:], cost, in_flight, now_us)
            return (blocked_us, *runs), at_us


def left(rule: Rule, state: State, now_us: int) -> tuple[int, int]:
    """What is left of a fresh state, and the time until it is more; 0 if all is."""
    if len(state) < 2 or not rule.limit:
        return rule.capacity, 0
    match rule.kind:
        case "fixed":
            return max(0, rule.limit - state[2]), state[1] - now_us
        case "gcra":
            owed_us = max(state[1] - now_us, 0) + sum(state[4::3]) * rule.interval_us
            remaining = max(0, (rule.tolerance_us - owed_us) // rule.interval_us)
            next_us = owed_us - rule.tolerance_us + (remaining + 1) * rule.interval_us
            return remaining, next_us if owed_us else 0
        case "sliding":
            return max(0, rule.limit - sum(state[2::3])), state[1] + rule.life_us - now_us
        case "concurrency":
            return max(0, rule.limit - sum(state[2::3])), IN_FLIGHT_RETRY_US


# Runs ---------------------------------------------------------------------------------------------


def _over(state: State, start: int, begun_us: int) -> int:
    """How many numbers the runs take that began by then. Runs go from start, the oldest first."""
    place = start
    while place < len(state) and state[place] <= begun_us:
        place += 3
    return place - start


def _join(rule: Rule, runs: State, cost: int, in_flight: int, now_us: int) -> tuple[State, int]:
    """Add a hit to the newest run, or begin one. Returns the run's first time, too."""
    # A clock that was set back joins the newest run as well: their order stays.
    if runs and now_us - runs[-3] <= rule.run_us:
        *older, first_us, used, before = runs
        return (*older, first_us, used + cost, before + in_flight), first_us
    return (*runs, now_us, cost, in_flight), now_us


def _settle_run(runs: State, token: Token, keep: int) -> State | None:
    """The runs after a settlement, None if its run is gone."""
    for place in range(0, len(runs), 3):
        if runs[place] == token.at_us:
            used = max(0, runs[place + 1] - token.cost + keep)
            in_flight = max(0, runs[place + 2] - token.cost)
            settled = (runs[place], used, in_flight) if used else ()
            return runs[:place] + settled + runs[place + 3 :]
    return None


# Answers ------------------------------------------------------------------------------------------


def _denied(check: Check, state: State, waits: Wait, now_us: int) -> tuple[State, Outcome]:
    """Take nothing; block the key if the check says so, and not for what is in flight alone."""
    is_blocked = bool(state) and state[0] > now_us
    # A shorter one could end before the denial does, and the next request would then prolong that.
    blocks = check.block_us >= check.rule.life_us and not check.forced
    if blocks and waits.sure_us and not is_blocked:
        state = block(state, now_us + check.block_us)
        waits = _wait_of(check, state, now_us)
    return state, _outcome(check, state, waits, None, now_us)


def _taken(check: Check, state: State, waits: Wait, now_us: int) -> tuple[State, Outcome]:
    state, at_us = take(check, state, now_us)
    token = None
    if check.counted_later or check.rule.kind == "concurrency":
        token = Token(check.bucket, check.key, check.rule, check.cost, at_us)
    return state, _outcome(check, state, waits, token, now_us)


def _outcome(check: Check, state: State, waits: Wait, token: Token | None, now_us: int) -> Outcome:
    rule = check.rule
    sure_us, wait_us = waits
    remaining, reset_us = left(rule, state, now_us)
    if not wait_us:
        return Outcome(True, rule.capacity, remaining, reset_us, token=token)
    retry_us = wait_us if sure_us else min(wait_us, IN_FLIGHT_RETRY_US)
    if state and state[0] > now_us:
        remaining, reset_us = 0, retry_us
    reset_us = min(reset_us, retry_us) if reset_us else retry_us
    return Outcome(False, rule.capacity, remaining, reset_us, retry_us, sure_us == wait_us, token)
