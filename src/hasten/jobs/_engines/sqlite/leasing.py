"""Leases after the claim: renewing them, and taking jobs back whose lease has expired."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from sqlite3 import Connection

from hasten.jobs._engine import crash_error
from hasten.jobs._engines.sqlite.event_rows import Group
from hasten.jobs._engines.sqlite.job_rows import encode, read_json, ready_place, seqs_of
from hasten.jobs._engines.sqlite.job_statements import execute, execute_rows
from hasten.jobs._engines.sqlite.queue_ledger import UnitOfWork
from hasten.jobs._states import State


def renew(
    connection: Connection, queue: str, leases: Mapping[str, str], lease_ms: int, now_ms: int
) -> set[str]:
    """Renew leases; see `Engine.renew`."""
    seqs = seqs_of(connection, queue, list(leases))
    rows = [
        (seq, token, now_ms + lease_ms, lease_ms)
        for seq, token in zip(seqs, leases.values(), strict=True)
    ]
    if execute_rows(connection, "renew", rows, queue) == len(rows):
        return set()
    tokens = read_tokens(connection, queue, seqs)
    pairs = zip(seqs, leases.items(), strict=True)
    return {id for seq, (id, token) in pairs if tokens.get(seq) != token}


def read_tokens(connection: Connection, queue: str, seqs: Sequence[int]) -> dict[int, str]:
    """Return the lease tokens of the jobs that are active, by seq."""
    return dict(read_json(connection, "read_tokens", queue=queue, seqs=encode(seqs)))


def find_cancelled(connection: Connection, queue: str, ids: Collection[str]) -> set[str]:
    """Return the running jobs that should stop; see `Engine.find_cancelled`."""
    seqs = seqs_of(connection, queue, list(ids))
    cancelled = read_json(connection, "read_cancelled", queue=queue, seqs=encode(seqs))
    return set(cancelled).intersection(ids)  # an id may be the seq of a job with another id


def find_expired(connection: Connection, queue: str, now_ms: int) -> list[int]:
    """Return the seqs of the jobs that `reclaim` has to check, the latest started first."""
    seqs: list[int] = read_json(connection, "find_expired", queue=queue, now=now_ms)
    return seqs


def reclaim(
    connection: Connection, queue: str, seqs: Sequence[int], crash_limit: int, now_ms: int
) -> list[str]:
    """Take back the jobs whose lease has expired; see `Engine.reclaim`."""
    of = {"queue": queue, "seqs": encode(seqs), "now": now_ms}
    execute(connection, "shorten_leases", **of)
    found = read_json(connection, "read_expired", **of)
    with UnitOfWork(connection, now_ms) as unit:
        ledger = unit.open(queue)
        # A larger sequence number is nearer to the front: the oldest job gets the largest.
        sequences = reversed(ledger.next_sequences(len(found)))
        for (seq, _, priority, crashes), sequence in zip(found, sequences, strict=True):
            state, rank = ready_place(priority, sequence, front=True)
            error = crash_error(crashes + 1) if crashes + 1 >= crash_limit else None
            execute(connection, "reclaim", seq=seq, state=state, rank=rank, error=error)
        ids = [id for _, id, _, _ in found]
        ledger.emit(Group("waiting", ids, previous=State.ACTIVE), Group("stalled", ids))
    return ids
