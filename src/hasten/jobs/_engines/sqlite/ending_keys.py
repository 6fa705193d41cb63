"""The deduplication keys of jobs that have ended: they become free, or the next job takes them."""

from __future__ import annotations

from collections.abc import Sequence

from hasten.jobs._engines.sqlite.adding import add_to_queue
from hasten.jobs._engines.sqlite.deduplicating import assign_keys_to_jobs
from hasten.jobs._engines.sqlite.job_rows import encode_json, read_json
from hasten.jobs._engines.sqlite.job_statements import execute
from hasten.jobs._engines.sqlite.links import LinkedJob
from hasten.jobs._engines.sqlite.queue_ledger import Ledger, UnitOfWork
from hasten.jobs._options import decode_options
from hasten.jobs._record import JobTemplate, NewJob


def release_keys_of_ended_jobs(
    unit: UnitOfWork, ledger: Ledger, ended: Sequence[LinkedJob], *, keeps_windows: bool
) -> None:
    """Release the keys of jobs that have completed or failed, and add the next jobs of these keys.

    keeps_windows: a key that is taken for some time stays taken until then.
    """
    owners = [(job.dedup_key, job.seq) for job in ended if job.dedup_key is not None]
    if not owners:
        return
    free: list[str] = []
    followed: list[str] = []
    followers: list[NewJob] = []
    rows = read_json(
        unit.connection, "read_ended_keys", queue=ledger.name, owners=encode_json(owners)
    )
    for key, expires_ms, name, opts, data in rows:
        if name is not None:
            template = JobTemplate(name, opts, decode_options(opts))
            followers.append(NewJob(ledger.name, template, data))
            followed.append(key)
        elif expires_ms is None or expires_ms <= unit.now_ms or not keeps_windows:
            free.append(key)
    if free:
        execute(unit.connection, "delete_keys", queue=ledger.name, keys=encode_json(free))
    if followers:
        added = add_to_queue(unit, ledger.name, followers)
        seqs = [int(each.id) for each in added]
        assign_keys_to_jobs(unit, ledger, list(zip(seqs, followed, strict=True)))
