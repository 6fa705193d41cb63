"""Leases: renewing them, finding cancelled jobs, and taking back jobs with an expired lease."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from sqlite3 import Connection

from hasten.jobs._engine import crash_error
from hasten.jobs._engines.sqlite.event_rows import EventGroup
from hasten.jobs._engines.sqlite.job_rows import (
    encode_json,
    find_seqs,
    read_json,
    ready_state_and_rank,
)
from hasten.jobs._engines.sqlite.job_statements import execute, execute_rows
from hasten.jobs._engines.sqlite.queue_ledger import UnitOfWork
from hasten.jobs._states import State


def renew(
    connection: Connection, queue: str, tokens_by_id: Mapping[str, str], lease_ms: int, now_ms: int
) -> set[str]:
    """Extend the leases with these tokens. Return the ids of the jobs whose lease is lost.

    See `Engine.renew`.
    """
    seqs = find_seqs(connection, queue, list(tokens_by_id))
    rows = [
        (seq, token, now_ms + lease_ms, lease_ms)
        for seq, token in zip(seqs, tokens_by_id.values(), strict=True)
    ]
    if execute_rows(connection, "renew", rows, queue) == len(rows):
        return set()
    tokens = read_tokens(connection, queue, seqs)
    pairs = zip(seqs, tokens_by_id.items(), strict=True)
    return {id for seq, (id, token) in pairs if tokens.get(seq) != token}


def read_tokens(connection: Connection, queue: str, seqs: Sequence[int]) -> dict[int, str]:
    """Return the lease tokens of those jobs that are active, by seq."""
    return dict(read_json(connection, "read_tokens", queue=queue, seqs=encode_json(seqs)))


def find_cancelled(connection: Connection, queue: str, ids: Collection[str]) -> set[str]:
    """Return the ids of the running jobs that were cancelled; see `Engine.find_cancelled`."""
    seqs = find_seqs(connection, queue, list(ids))
    cancelled = read_json(connection, "read_cancelled", queue=queue, seqs=encode_json(seqs))
    return set(cancelled).intersection(ids)  # a number may also be the seq of a job with another id


def find_expired(connection: Connection, queue: str, now_ms: int) -> list[int]:
    """Return the seqs of the active jobs whose lease has expired, the latest started first.

    If the clock was set back, a lease may end later than its length allows. Jobs with such a lease
    are included, and `reclaim` shortens the lease.
    """
    seqs: list[int] = read_json(connection, "find_expired", queue=queue, now=now_ms)
    return seqs


def reclaim(
    connection: Connection, queue: str, seqs: Sequence[int], crash_limit: int, now_ms: int
) -> list[str]:
    """Make those of the jobs ready whose lease has expired; see `Engine.reclaim`."""
    of = {"queue": queue, "seqs": encode_json(seqs), "now": now_ms}
    execute(connection, "shorten_leases", **of)
    found = read_json(connection, "read_expired", **of)
    with UnitOfWork(connection, now_ms) as unit:
        ledger = unit.get_ledger(queue)
        # In front of the queue, a larger sequence number comes first: the oldest job gets the
        # largest.
        sequences = reversed(ledger.next_sequences(len(found)))
        for (seq, _, priority, crashes), sequence in zip(found, sequences, strict=True):
            state, rank = ready_state_and_rank(priority, sequence, front=True)
            error = crash_error(crashes + 1) if crashes + 1 >= crash_limit else None
            execute(connection, "reclaim", seq=seq, state=state, rank=rank, error=error)
        ids = [id for _, id, _, _ in found]
        ledger.emit(EventGroup("waiting", ids, previous=State.ACTIVE), EventGroup("stalled", ids))
    return ids
