"""What workers do: claim, settle, renew, take back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from sqlite3 import Connection
from typing import Any, Final

import msgspec

from hasten.jobs._engine import crash_error, most_in_event
from hasten.jobs._engines.sqlite.events import Group, with_values
from hasten.jobs._engines.sqlite.ledger import Ledger, open_ledger
from hasten.jobs._engines.sqlite.portions import DELETED_AT_ONCE, MOST_IN_STATEMENT, Portion
from hasten.jobs._engines.sqlite.rows import encode, halving, read_json, ready_place, seqs_of
from hasten.jobs._engines.sqlite.statements import execute, execute_rows
from hasten.jobs._options import Keep
from hasten.jobs._record import (
    Batch,
    Claim,
    Completed,
    Failed,
    JobRecord,
    Lease,
    Outcome,
    Postponed,
    Released,
    Retry,
)
from hasten.jobs._states import State

PROMOTE_AT_ONCE: Final = 1000  # delayed jobs made ready by one claim

# What a claim reads, about. Jobs of less than so many bytes are leased all at once.
BYTES_AT_ONCE: Final = 4_000_000
SMALL: Final = 10_000

_records: Final = msgspec.json.Decoder(list[JobRecord])

Row = tuple[Any, ...]


class LeaseMismatch(Exception):
    """Some outcome's lease is no longer ours: go again, and look before each step."""


def settle(
    connection: Connection,
    queue: str,
    outcomes: Sequence[Outcome],
    wish: Claim | None,
    retention: Retention,
    now_ms: int,
    *,
    careful: bool,
) -> Batch:
    """See `Engine.settle`.

    Leases are lost so rarely that only the number of changed rows is looked at; when that is
    wrong, `LeaseMismatch` undoes it all, and the caller comes again with careful.
    """
    lost: list[str] = []
    with open_ledger(connection, queue, now_ms) as ledger:
        if outcomes:
            seqs = seqs_of(connection, queue, [outcome.id for outcome in outcomes])
            pairs = list(zip(seqs, outcomes, strict=True))
            if careful:
                pairs, lost = _still_leased(connection, queue, pairs)
            _store(connection, ledger, pairs, retention, now_ms)
        batch = Batch([], None, lost)
        if wish is not None:
            batch = _claim(connection, ledger, wish, lost, retention.sizes, now_ms)
        if outcomes and not batch.leases and _is_drained(connection, queue):
            ledger.tell(Group("drained", [""]))
    return batch


def _still_leased(
    connection: Connection, queue: str, pairs: Sequence[tuple[int, Outcome]]
) -> tuple[list[tuple[int, Outcome]], list[str]]:
    """Divide outcomes into those whose lease is ours and the ids of the others."""
    tokens = _tokens(connection, queue, [seq for seq, _ in pairs])
    ours, lost = [], []
    for seq, outcome in pairs:
        # Taken out: a second outcome for the same run finds its lease gone, too.
        if tokens.pop(seq, None) == outcome.token:
            ours.append((seq, outcome))
        else:
            lost.append(outcome.id)
    return ours, lost


def _tokens(connection: Connection, queue: str, seqs: Sequence[int]) -> dict[int, str]:
    """The tokens of those of these jobs that are active."""
    return dict(read_json(connection, "read_tokens", queue=queue, seqs=encode(seqs)))


def _is_drained(connection: Connection, queue: str) -> bool:
    return execute(connection, "is_drained", queue=queue).fetchone() is not None


def _store(
    connection: Connection,
    ledger: Ledger,
    pairs: Sequence[tuple[int, Outcome]],
    retention: Retention,
    now_ms: int,
) -> None:
    kinds: dict[type[Outcome], list[tuple[int, Any]]] = {}
    for pair in pairs:
        kinds.setdefault(type(pair[1]), []).append(pair)
    changed = 0
    rules: set[tuple[State, Keep]] = set()
    for kind, of_kind in kinds.items():
        store = _STORE[kind]
        changed += store(connection, ledger, of_kind, rules, now_ms)
    if changed != len(pairs):
        raise LeaseMismatch
    retention.apply(connection, ledger, rules, now_ms)


def _store_completed(
    connection: Connection,
    ledger: Ledger,
    pairs: Sequence[tuple[int, Completed]],
    rules: set[tuple[State, Keep]],
    now_ms: int,
) -> int:
    kept = [(seq, end) for seq, end in pairs if not end.keep.nothing]
    rules.update({(State.COMPLETED, keep) for keep in {end.keep for _, end in kept}})
    ledger.count(State.COMPLETED, len(kept))
    ids, results = [end.id for _, end in pairs], [end.result for _, end in pairs]
    ledger.tell(
        with_values(
            "completed", ids, results,
            most=lambda place: most_in_event(pairs[place][1].keep), previous=State.ACTIVE,
        )
    )  # fmt: skip
    return _keep_completed(connection, ledger, kept, now_ms) + _discard(connection, ledger, pairs)


def _keep_completed(
    connection: Connection, ledger: Ledger, kept: Sequence[tuple[int, Completed]], now_ms: int
) -> int:
    seqs = [seq for seq, _ in kept]
    if len({(end.token, end.result) for _, end in kept}) == 1 and seqs == sorted(seqs):
        # Handlers that return nothing, mostly: what the jobs have in common is bound once.
        (_, end), rank = kept[0], ledger.take_one()
        return execute(
            connection, "complete_alike", queue=ledger.name, seqs=encode(seqs), token=end.token,
            result=end.result, rank=rank, now=now_ms,
        ).rowcount  # fmt: skip
    rows = [
        (seq, end.token, end.result, rank, now_ms)
        for (seq, end), rank in zip(kept, ledger.take(len(kept)), strict=True)
    ]
    return execute_rows(connection, "complete", rows, ledger.name)


def _store_failed(
    connection: Connection,
    ledger: Ledger,
    pairs: Sequence[tuple[int, Failed]],
    rules: set[tuple[State, Keep]],
    now_ms: int,
) -> int:
    kept = [(seq, end) for seq, end in pairs if not end.keep.nothing]
    rows = [
        (seq, end.token, end.error, end.traceback, end.counts, rank, now_ms)
        for (seq, end), rank in zip(kept, ledger.take(len(kept)), strict=True)
    ]
    rules.update((State.FAILED, end.keep) for _, end in kept)
    ledger.count(State.FAILED, len(kept))
    ids, errors = [end.id for _, end in pairs], [end.error for _, end in pairs]
    ledger.tell(
        Group("failed", ids, errors=errors, previous=State.ACTIVE),
        Group("retries-exhausted", [end.id for _, end in pairs if end.exhausted]),
    )
    changed = execute_rows(connection, "fail", rows, ledger.name)
    return changed + _discard(connection, ledger, pairs)


def _discard(
    connection: Connection, ledger: Ledger, pairs: Sequence[tuple[int, Completed | Failed]]
) -> int:
    rows = [(seq, end.token) for seq, end in pairs if end.keep.nothing]
    return execute_rows(connection, "discard", rows, ledger.name)


def _put_back(
    connection: Connection,
    ledger: Ledger,
    pairs: Sequence[tuple[int, Retry | Postponed | Released]],
    _rules: set[tuple[State, Keep]],
    now_ms: int,
) -> int:
    # Of released jobs, the last ticket is the place nearest to the front: that is for the first.
    tickets: Iterable[int] = ledger.take(len(pairs))
    if isinstance(pairs[0][1], Released):
        tickets = reversed(ledger.take(len(pairs)))
    rows: list[Row] = []
    waiting, delayed, dues = [], [], []
    for (seq, end), ticket in zip(pairs, tickets, strict=True):
        delay_ms = 0 if isinstance(end, Released) else end.delay_ms
        rows.append((seq, end.token, *_how(end), delay_ms, ticket, now_ms))
        if delay_ms > 0:
            delayed.append(end.id)
            dues.append(now_ms + delay_ms)
        else:
            waiting.append(end.id)
    ledger.tell(
        Group("delayed", delayed, dues=dues), Group("waiting", waiting, previous=State.ACTIVE)
    )
    return execute_rows(connection, "put_back", rows, ledger.name)


def _how(end: Retry | Postponed | Released) -> tuple[str, str | None, str | None]:
    """What is stored of a run that did not finish its job: kind, error, traceback."""
    match end:
        case Retry(_, _, error, traceback):
            return "retry", error, traceback
        case Postponed():
            return "postpone", None, None
        case Released():
            return "release", None, None


_STORE: Final[Mapping[type[Outcome], Callable[..., int]]] = {
    Completed: _store_completed,
    Failed: _store_failed,
    Retry: _put_back,
    Postponed: _put_back,
    Released: _put_back,
}


class Retention:
    """Deletes the finished jobs that the rules do not keep, a portion of them in each transaction.

    It remembers since when the oldest jobs have been finished: until those come of age there is
    nothing to look for. What is remembered may be too early, never too late but for a rollback,
    and then the next finish after that makes up for it.
    """

    def __init__(self) -> None:
        self._oldest_ms: dict[tuple[str, State], int] = {}
        self._first: dict[str, int] = {}  # how many jobs of a queue to begin with: they are small
        self.sizes: dict[str, int] = {}  # bytes of a job, by queue, as the last claim found them

    def apply(
        self,
        connection: Connection,
        ledger: Ledger,
        rules: Iterable[tuple[State, Keep]],
        now_ms: int,
    ) -> None:
        trim = _Trim(connection, ledger, self._first.get(ledger.name, 1))
        for state, keep in rules:
            if keep.age_ms is not None:
                self._by_age(trim, state, keep.age_ms, now_ms)
            if keep.count is not None and (excess := ledger.finished[state] - keep.count) > 0:
                trim.run("trim_by_count", state, excess)
        if trim.portion is not None and trim.portion.rows:
            is_small = trim.portion.freed <= trim.portion.rows
            self._first[ledger.name] = MOST_IN_STATEMENT if is_small else 1

    def _by_age(self, trim: _Trim, state: State, age_ms: int, now_ms: int) -> None:
        key, cut_off_ms = (trim.ledger.name, state), now_ms - age_ms
        # One in the future has finished before the clock was set back: look whether others are old.
        if cut_off_ms < self._oldest_ms.get(key, cut_off_ms) <= now_ms:
            return
        trim.run("trim_by_age", state, cut_off=cut_off_ms)
        of = {"queue": trim.ledger.name, "state": state}
        oldest = execute(trim.connection, "oldest_finished", **of).fetchone()
        if oldest is not None:
            self._oldest_ms[key] = min(oldest[0], now_ms)


class _Trim:
    """The deletions of one call, which are one portion together."""

    def __init__(self, connection: Connection, ledger: Ledger, first: int) -> None:
        self.connection = connection
        self.ledger = ledger
        self.portion: Portion | None = None  # nothing has been deleted
        self._first = first

    def run(
        self, statement: str, state: State, most: int = DELETED_AT_ONCE, **parameters: Any
    ) -> None:
        left = most

        def delete(count: int) -> int:
            nonlocal left
            limit = min(count, left)
            deleted = execute(
                self.connection, statement, queue=self.ledger.name, state=state, limit=limit,
                **parameters,
            ).rowcount  # fmt: skip
            left -= deleted
            self.ledger.count(state, -deleted)
            return deleted if left else 0

        if self.portion is None:
            self.portion = Portion(self.connection)
        self.portion.delete(delete, first=self._first)


def _claim(
    connection: Connection,
    ledger: Ledger,
    wish: Claim,
    lost: list[str],
    sizes: dict[str, int],
    now_ms: int,
) -> Batch:
    if ledger.has_due:
        _promote_due(connection, ledger, now_ms)
    leases: list[Lease] = []
    if not ledger.paused:
        leases = _lease_some(connection, ledger.name, wish, sizes, now_ms)
    if leases:
        ids = [lease.job.id for lease in leases]
        ledger.tell(Group("active", ids, previous=State.WAITING))
    next_due_ms = None
    if len(leases) < wish.count:
        (next_due_ms,) = execute(connection, "next_due", queue=ledger.name).fetchone()
    return Batch(leases, next_due_ms, lost)


def _lease_some(
    connection: Connection, queue: str, wish: Claim, sizes: dict[str, int], now_ms: int
) -> list[Lease]:
    """Lease jobs until there are enough of them, or enough bytes.

    All at once, if those that the queue had lately were small.
    """
    leases: list[Lease] = []
    size = 0
    is_small = sizes.get(queue, SMALL) < SMALL
    for state in (State.WAITING, State.PRIORITIZED):
        limit = wish.count if is_small else 1
        while (left := wish.count - len(leases)) and size < BYTES_AT_ONCE:
            some, length = _lease(connection, queue, state, wish, min(limit, left), now_ms)
            leases += some
            size += length
            if len(some) < min(limit, left):
                break
            limit *= 2
    if leases:
        sizes[queue] = size // len(leases)
    return leases


def _lease(
    connection: Connection, queue: str, state: State, wish: Claim, count: int, now_ms: int
) -> tuple[list[Lease], int]:
    """Lease up to count jobs. Returns them, and how much was read."""
    which = {"queue": queue, "state": state, "now": now_ms, "worker": wish.worker}

    def read(limit: int) -> str:
        which["limit"] = limit
        text: str = execute(connection, "read_ready", **which).fetchone()[0]
        return text

    text = halving(read, count)
    leases = [Lease(record, wish.token) for record in _records.decode(text)]
    if leases:
        until_ms, length_ms = now_ms + wish.lease_ms, wish.lease_ms
        execute(connection, "claim", **which, token=wish.token, until=until_ms, length=length_ms)
    return leases, len(text)


def _promote_due(connection: Connection, ledger: Ledger, now_ms: int) -> None:
    due = read_json(connection, "read_due", queue=ledger.name, now=now_ms, limit=PROMOTE_AT_ONCE)
    tickets = ledger.take(len(due))
    rows = [
        (seq, *ready_place(priority, ticket))
        for (seq, _, priority), ticket in zip(due, tickets, strict=True)
    ]
    execute_rows(connection, "make_ready", rows)
    ledger.tell(Group("waiting", [id for _, id, _ in due], previous=State.DELAYED))


def release_claim(
    connection: Connection, queue: str, token: str, retention: Retention, now_ms: int
) -> None:
    """Hand back the jobs of a claim that nobody waits for any more."""
    ids = read_json(connection, "read_claimed", queue=queue, token=token)
    released = [Released(id, token) for id in ids]
    settle(connection, queue, released, None, retention, now_ms, careful=True)


def renew(
    connection: Connection, queue: str, leases: Mapping[str, str], lease_ms: int, now_ms: int
) -> set[str]:
    """See `Engine.renew`."""
    seqs = seqs_of(connection, queue, list(leases))
    rows = [
        (seq, token, now_ms + lease_ms, lease_ms)
        for seq, token in zip(seqs, leases.values(), strict=True)
    ]
    if execute_rows(connection, "renew", rows, queue) == len(rows):
        return set()
    tokens = _tokens(connection, queue, seqs)
    pairs = zip(seqs, leases.items(), strict=True)
    return {id for seq, (id, token) in pairs if tokens.get(seq) != token}


def find_cancelled(connection: Connection, queue: str, ids: Collection[str]) -> set[str]:
    """See `Engine.find_cancelled`."""
    seqs = seqs_of(connection, queue, list(ids))
    # A number may be the row of a job that has another id.
    asked = read_json(connection, "read_cancelled", queue=queue, seqs=encode(seqs))
    return set(asked).intersection(ids)


def find_expired(connection: Connection, queue: str, now_ms: int) -> list[int]:
    """The numbers of the jobs that `reclaim` has to look at, the one that started last in front."""
    seqs: list[int] = read_json(connection, "find_expired", queue=queue, now=now_ms)
    return seqs


def reclaim(
    connection: Connection, queue: str, seqs: Sequence[int], crash_limit: int, now_ms: int
) -> list[str]:
    """See `Engine.reclaim`. Takes back those of these jobs whose lease has run out still."""
    of = {"queue": queue, "seqs": encode(seqs), "now": now_ms}
    execute(connection, "shorten_leases", **of)
    found = read_json(connection, "read_expired", **of)
    with open_ledger(connection, queue) as ledger:
        # The last ticket is the place nearest to the front: that is for the oldest job.
        tickets = reversed(ledger.take(len(found)))
        for (seq, _, priority, crashes), ticket in zip(found, tickets, strict=True):
            state, rank = ready_place(priority, ticket, front=True)
            error = crash_error(crashes + 1) if crashes + 1 >= crash_limit else None
            execute(connection, "reclaim", seq=seq, state=state, rank=rank, error=error)
        ids = [id for _, id, _, _ in found]
        ledger.tell(Group("waiting", ids, previous=State.ACTIVE), Group("stalled", ids))
    return ids
