"""The rate limit algorithms as pure functions: (state of a key, time) -> (new state, outcome).

Memory and SQLite call them. The Lua script for Redis implements the same, and tests compare the
two. All numbers are integers; times are microseconds on the clock of the store.

The state of a key is a tuple of numbers, () if nothing is stored for it. The first number is the
end of a block, 0 if the key is not blocked. The others depend on the kind of the rule:

    "fixed"        (blocked until, end of the window, used, in flight)
    "sliding"      (blocked until, run, run, …)
    "concurrency"  (blocked until, run, run, …)
    "gcra"         (blocked until, TAT, run, run, …)

**In flight** is the part of the used cost that is reserved and not yet settled. If a reservation is
never settled, because its process died, it expires with its window or run. A denial is **certain**
if the settled costs alone cause it, so that no refund can end it earlier.

A **run** stores hits that are close in time, as three numbers: (time of its first hit, used, in
flight). For limits up to `RUNS` it has the hits of one microsecond, for higher limits those of
1/`RUNS` of the window. A run counts until its last possible hit has left the window, so no window
ever has more than the limit. For limits above `RUNS`, a client may have to wait longer than
necessary, by up to 1/`RUNS` of the window.

"fixed": a window begins with the first hit after the end of the previous window. A client that
sends its hits late in one window and early in the next can pass up to 2 * limit - 1 within the
length of one window. "sliding" prevents that.

"gcra": the generic cell rate algorithm of ITU-T I.371, in its virtual scheduling form. **TAT** is
the theoretical arrival time: the time when the whole burst is available again. It may be ahead of
now by the tolerance of the rule. Reserved costs are stored in runs until they are settled; the TAT
moves only by the cost that stays charged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

from hasten.ratelimit._counter_store import Check, Outcome, Reservation
from hasten.ratelimit._rules import IN_FLIGHT_RETRY_US, Rule

CounterState: TypeAlias = tuple[int, ...]
ReservedAtUs: TypeAlias = int

_new: Final = tuple.__new__  # twice as fast as the constructor of a named tuple


def hit_group(
    checks: Sequence[Check], states: Sequence[CounterState], now_us: int
) -> tuple[list[CounterState], list[Outcome]]:
    """Decide a group of checks: all of them take their cost, or none does.

    states are the stored states of the keys. Returns the new states and the outcomes, in the order
    of the checks.
    """
    pending = [
        (
            check,
            state := drop_expired_parts(check.rule, stored, now_us),
            _compute_wait(check, state, now_us),
        )
        for check, stored in zip(checks, states, strict=True)
    ]
    if any(wait.wait_us and not check.forced for check, _, wait in pending):
        decided = [_deny_check(check, state, wait, now_us) for check, state, wait in pending]
    else:
        decided = [_accept_check(check, state, wait, now_us) for check, state, wait in pending]
    return [state for state, _ in decided], [outcome for _, outcome in decided]


def hit_one(check: Check, state: CounterState, now_us: int) -> tuple[CounterState, Outcome]:
    """Decide a group that has only one check. The result is the same as that of `hit_group`."""
    state = drop_expired_parts(check.rule, state, now_us)
    wait = _compute_wait(check, state, now_us)
    if wait.wait_us and not check.forced:
        return _deny_check(check, state, wait, now_us)
    return _accept_check(check, state, wait, now_us)


def decide_fixed_window(
    rule: Rule, used_cost_before: int, window_left_us: int, cost: int
) -> Outcome:
    """Return the outcome of `hit_one` for a simple "fixed" check, without making a state.

    A check is simple if it is counted at once, its cost is from 1 to the limit, and its key has
    neither a block nor reservations. used_cost_before is the cost that is used in the current
    window before this check. The window ends after window_left_us.
    """
    limit = rule.limit
    remaining = limit - used_cost_before - cost
    if remaining >= 0:
        return _new(Outcome, (True, limit, remaining, window_left_us, 0, False, None, False))
    remaining = max(0, remaining + cost)
    return _new(
        Outcome, (False, limit, remaining, window_left_us, window_left_us, True, None, False)
    )


def decide_gcra(rule: Rule, tat_ahead_before_us: int, cost: int) -> Outcome:
    """Return the outcome of `hit_one` for a simple "gcra" check, without making a state.

    A check is simple if it is counted at once, its cost is from 1 to the burst, and its key has
    neither a block nor reservations. tat_ahead_before_us is how far the theoretical arrival time
    (TAT) is ahead of now, before this check.
    """
    interval_us, tolerance_us = rule.interval_us, rule.tolerance_us
    after_us = tat_ahead_before_us + cost * interval_us
    if after_us <= tolerance_us:
        remaining = (tolerance_us - after_us) // interval_us
        reset_us = after_us - tolerance_us + (remaining + 1) * interval_us
        return _new(Outcome, (True, rule.burst, remaining, reset_us, 0, False, None, False))
    wait_us = after_us - tolerance_us
    remaining = max(0, (tolerance_us - tat_ahead_before_us) // interval_us)
    reset_us = min(tat_ahead_before_us - tolerance_us + (remaining + 1) * interval_us, wait_us)
    return _new(Outcome, (False, rule.burst, remaining, reset_us, wait_us, True, None, False))


def peek(check: Check, state: CounterState, now_us: int) -> Outcome:
    """Return the outcome that a check would have now. Nothing is counted."""
    state = drop_expired_parts(check.rule, state, now_us)
    return _make_outcome(check, state, _compute_wait(check, state, now_us), None, now_us)


def settle_reservation(
    reservation: Reservation, kept_cost: int, state: CounterState, now_us: int
) -> CounterState:
    """Return the state after a reservation has ended. An expired reservation changes nothing.

    kept_cost is the cost that stays charged; the rest is refunded.
    """
    rule, cost = reservation.rule, reservation.cost
    state = drop_expired_parts(rule, state, now_us)
    match rule.kind:
        case "fixed":
            if len(state) == 1 or not state or state[1] != reservation.at_us:
                return state
            blocked_us, end_us, used, in_flight = state
            return blocked_us, end_us, max(0, used - cost + kept_cost), max(0, in_flight - cost)
        case "gcra":
            runs = _settle_in_hit_runs(state[2:], reservation, 0)
            if runs is None:
                return state
            tat_us = max(state[1], now_us) + kept_cost * rule.interval_us if kept_cost else state[1]
            return drop_expired_parts(rule, (state[0], tat_us, *runs), now_us)
        case _:
            # "concurrency" ignores kept_cost: a request that has ended is not counted any more.
            runs = _settle_in_hit_runs(
                state[1:], reservation, kept_cost if rule.kind == "sliding" else 0
            )
            return state if runs is None else drop_expired_parts(rule, (state[0], *runs), now_us)


def replace_block(state: CounterState, blocked_until_us: int) -> CounterState:
    """Return the state with a block until blocked_until_us; 0 ends a block."""
    return (blocked_until_us, *state[1:])


def find_state_expiry_time_us(rule: Rule, state: CounterState) -> int:
    """Return the time after which the state has no effect any more; 0 for the empty state."""
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


# Steps of a decision ------------------------------------------------------------------------------


class WaitTime(NamedTuple):
    """How long a check has to wait until it passes; (0, 0) if it passes now.

    - certain_us: the wait if all reservations are refunded at once: no settlement can shorten it.
    - wait_us: the wait if no reservation is refunded. It is at least certain_us.
    """

    certain_us: int
    wait_us: int


PASSES: Final = WaitTime(0, 0)


def drop_expired_parts(rule: Rule, state: CounterState, now_us: int) -> CounterState:
    """Return the state without an expired block, window, arrival time or runs of hits.

    It is the same object if nothing has expired.
    """
    if not state:
        return state
    blocked_us = state[0] if state[0] > now_us else 0
    kept = len(state)
    if kept > 1:
        match rule.kind:
            case "fixed":
                kept = kept if state[1] > now_us else 1
            case "gcra":
                kept -= _count_state_items_of_expired_hit_runs(state, 2, now_us - rule.life_us)
                kept = 1 if kept == 2 and state[1] <= now_us else kept
            case _:
                kept -= _count_state_items_of_expired_hit_runs(state, 1, now_us - rule.life_us)
    if kept == len(state) and blocked_us == state[0] and (blocked_us or kept > 1):
        return state
    if kept == 1:
        return (blocked_us,) if blocked_us else ()
    head = (blocked_us, state[1]) if rule.kind == "gcra" else (blocked_us,)
    return head + state[len(state) - kept + len(head) :]


def _compute_wait(check: Check, state: CounterState, now_us: int) -> WaitTime:
    """Return how long a check has to wait.

    state must not have expired parts (see `drop_expired_parts`).
    """
    wait = _compute_wait_without_block(check.rule, state, check.cost, now_us)
    if state and state[0] > now_us:
        blocked_us = state[0] - now_us
        return WaitTime(max(blocked_us, wait.certain_us), max(blocked_us, wait.wait_us))
    return wait


def _compute_wait_without_block(
    rule: Rule, state: CounterState, cost: int, now_us: int
) -> WaitTime:
    """Return how long a cost has to wait until it fits, regardless of a block."""
    if cost > rule.capacity or not rule.limit:  # it never fits, but callers need a number
        return WaitTime(rule.window_us, rule.window_us)
    if len(state) < 2:
        return PASSES
    match rule.kind:
        case "fixed":
            _, end_us, used, in_flight = state
            if used + cost <= rule.limit:
                return PASSES
            wait_us = end_us - now_us
            return WaitTime(wait_us if used - in_flight + cost > rule.limit else 0, wait_us)
        case "gcra":
            certain_us = max(state[1] - now_us, 0) + cost * rule.interval_us - rule.tolerance_us
            in_flight = sum(state[4::3])
            return WaitTime(max(0, certain_us), max(0, certain_us + in_flight * rule.interval_us))
        case _:
            excess = sum(state[2::3]) + cost - rule.limit
            if excess <= 0:
                return PASSES
            certain_excess = excess - sum(state[3::3])
            wait_us = (
                _find_expiry_of_oldest_hit_runs_us(rule, state, excess, count_in_flight=True)
                - now_us
            )
            if certain_excess <= 0:
                return WaitTime(0, wait_us)
            certain_us = (
                _find_expiry_of_oldest_hit_runs_us(
                    rule, state, certain_excess, count_in_flight=False
                )
                - now_us
            )
            return WaitTime(certain_us, wait_us)


def _find_expiry_of_oldest_hit_runs_us(
    rule: Rule, state: CounterState, cost: int, *, count_in_flight: bool
) -> int:
    """Return the time when the oldest runs of hits that together have at least this cost expire.

    count_in_flight: whether the reserved costs of the runs are included in their costs.
    """
    for i in range(1, len(state), 3):
        cost -= state[i + 1] - (0 if count_in_flight else state[i + 2])
        if cost <= 0:
            return state[i] + rule.life_us
    raise AssertionError("the runs of hits in the state cost less than what must become free")


def take_cost(check: Check, state: CounterState, now_us: int) -> tuple[CounterState, ReservedAtUs]:
    """Add the cost of a check to the state, or reserve it.

    Returns the new state, and for a reservation the time that identifies it (`Reservation.at_us`).
    """
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
            tat_us = max(state[1] if len(state) > 1 else 0, now_us)
            if not later:
                tat_us += cost * rule.interval_us
                return (blocked_us, tat_us, *state[2:]), 0
            runs, at_us = _add_to_hit_runs(rule, state[2:], cost, cost, now_us)
            return (blocked_us, tat_us, *runs), at_us
        case _:
            runs, at_us = _add_to_hit_runs(rule, state[1:], cost, in_flight, now_us)
            return (blocked_us, *runs), at_us


def find_remaining_and_reset_us(rule: Rule, state: CounterState, now_us: int) -> tuple[int, int]:
    """Return the cost that can still pass, and the microseconds until it increases.

    The time is 0 if nothing is used. state must not have expired parts (see `drop_expired_parts`).
    """
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


# Runs of hits -------------------------------------------------------------------------------------


def _count_state_items_of_expired_hit_runs(
    state: CounterState, first_index: int, latest_begin_us: int
) -> int:
    """Return how many items of the state belong to runs of hits that have expired.

    These runs began at latest_begin_us or earlier. Each run has three items. The runs begin at the
    index first_index of the state, the oldest first.
    """
    end = first_index
    while end < len(state) and state[end] <= latest_begin_us:
        end += 3
    return end - first_index


def _add_to_hit_runs(
    rule: Rule, runs: CounterState, cost: int, in_flight_cost: int, now_us: int
) -> tuple[CounterState, ReservedAtUs]:
    """Add a hit to the newest run, or to a new run if that one is too old.

    in_flight_cost is the part of the cost that is reserved. Returns the runs, and the time of the
    first hit in the run that now has the hit.
    """
    # If the clock was set back, the hit joins the newest run, too, so that runs stay in order.
    if runs and now_us - runs[-3] <= rule.run_us:
        *older, first_us, used, before = runs
        return (*older, first_us, used + cost, before + in_flight_cost), first_us
    return (*runs, now_us, cost, in_flight_cost), now_us


def _settle_in_hit_runs(
    runs: CounterState, reservation: Reservation, kept_cost: int
) -> CounterState | None:
    """Return the runs after a reservation has ended; None if the run that has it has expired."""
    for i in range(0, len(runs), 3):
        if runs[i] == reservation.at_us:
            used = max(0, runs[i + 1] - reservation.cost + kept_cost)
            in_flight = max(0, runs[i + 2] - reservation.cost)
            settled = (runs[i], used, in_flight) if used else ()
            return runs[:i] + settled + runs[i + 3 :]
    return None


# Outcomes -----------------------------------------------------------------------------------------


def _deny_check(
    check: Check, state: CounterState, wait: WaitTime, now_us: int
) -> tuple[CounterState, Outcome]:
    """Return the state and the outcome of a denied check, which takes nothing.

    The key is blocked if the check has a block, unless the check is denied only because of
    reservations that may still be refunded.
    """
    is_blocked = bool(state) and state[0] > now_us
    # A shorter block could end before the denial does. Then the next request would start
    # another block.
    blocks = check.block_us >= check.rule.life_us and not check.forced
    if blocks and wait.certain_us and not is_blocked:
        state = replace_block(state, now_us + check.block_us)
        wait = _compute_wait(check, state, now_us)
    return state, _make_outcome(check, state, wait, None, now_us)


def _accept_check(
    check: Check, state: CounterState, wait: WaitTime, now_us: int
) -> tuple[CounterState, Outcome]:
    state, at_us = take_cost(check, state, now_us)
    reservation = None
    if check.counted_later or check.rule.kind == "concurrency":
        reservation = Reservation(check.bucket, check.key, check.rule, check.cost, at_us)
    return state, _make_outcome(check, state, wait, reservation, now_us)


def _make_outcome(
    check: Check, state: CounterState, wait: WaitTime, reservation: Reservation | None, now_us: int
) -> Outcome:
    rule = check.rule
    certain_us, wait_us = wait
    remaining, reset_us = find_remaining_and_reset_us(rule, state, now_us)
    if not wait_us:
        return Outcome(True, rule.capacity, remaining, reset_us, reservation=reservation)
    retry_us = wait_us if certain_us else min(wait_us, IN_FLIGHT_RETRY_US)
    if state and state[0] > now_us:
        remaining, reset_us = 0, retry_us
    reset_us = min(reset_us, retry_us) if reset_us else retry_us
    is_certain = certain_us == wait_us
    return Outcome(False, rule.capacity, remaining, reset_us, retry_us, is_certain, reservation)
