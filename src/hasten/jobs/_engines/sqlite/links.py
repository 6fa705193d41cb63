"""Links: what connects a job with other jobs. A job may have a deduplication key, a parent,
children and a schedule. Most jobs have none, and most queues have no such jobs.
"""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Connection

import msgspec

from hasten.jobs._engines.sqlite.job_rows import encode_json
from hasten.jobs._engines.sqlite.job_statements import execute
from hasten.jobs._engines.sqlite.queue_ledger import Ledger


class LinkedJob(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A stored job that is connected with other jobs, and how. Unset fields are None."""

    seq: int
    id: str
    dedup_key: str | None
    parent: int | None  # the seq of the parent
    on_failure: str | None  # what the failure of the job does to its parent
    pending: int | None  # of a parent: how many of its children have not finished
    schedule: str | None  # the id of the schedule that added the job


_decoder = msgspec.json.Decoder(list[LinkedJob])


def read_links(connection: Connection, ledger: Ledger, seqs: Sequence[int]) -> list[LinkedJob]:
    """Return those of the jobs that are connected with other jobs, in any order."""
    if not ledger.linked or not seqs:
        return []
    (text,) = execute(connection, "read_links", seqs=encode_json(seqs)).fetchone()
    return _decoder.decode(text)
