"""Functions that build the requests of the Lua scripts from the arguments of `Engine` methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from hasten.jobs._deduplication import Deduplication
from hasten.jobs._options import DEFAULT_KEEP_FAILED, Keep
from hasten.jobs._record import (
    ClaimRequest,
    Completed,
    Failed,
    JobChange,
    JobTemplate,
    LogLine,
    NewJob,
    Outcome,
    Parked,
    Postponed,
    Progress,
    Released,
    Retry,
    Update,
)

pack: Final = msgspec.msgpack.Encoder().encode
"""Encode a request as MessagePack, which the scripts decode."""

Row = tuple[Any, ...]
"""A tuple in a request, such as one outcome. The head of the script's file explains its items."""


def to_claim_row(
    claim: ClaimRequest, orphaned_tokens: Sequence[str], *, can_parse_cron: bool
) -> Row:
    """Return the row of a request for a claim.

    orphaned_tokens are the tokens of earlier claims whose reply was lost: the script releases their
    jobs.
    can_parse_cron: this process can parse cron patterns.
    """
    return claim.count, claim.token, claim.worker, claim.lease_ms, orphaned_tokens, can_parse_cron


def pack_keep_rule(keep: Keep) -> tuple[int, int]:
    """Return how many finished jobs a keep rule keeps, and for how many ms. -1 means no limit."""
    age_ms = keep.age_ms
    return -1 if keep.count is None else keep.count, -1 if age_ms is None else age_ms


KEEP_FAILED: Final = pack_keep_rule(DEFAULT_KEEP_FAILED)


class KeepRules:
    """The list of distinct keep rules in one request. Outcomes refer to a rule by its number.

    A keep rule says how many finished jobs are kept, and for how long. Numbers begin at 1, like the
    indexes of Lua.
    """

    def __init__(self) -> None:
        self.rows: list[tuple[int, int]] = []
        self._numbers: dict[Keep, int] = {}
        self._latest: Keep | None = None
        self._number = 0

    def get_or_add_number(self, keep: Keep) -> int:
        """Return the position of a keep rule in `rows`, from 1. A new rule is added first."""
        if keep is not self._latest:  # usually all jobs of a worker have the same rule
            self._latest = keep
            number = self._numbers.get(keep)
            if number is None:
                self.rows.append(pack_keep_rule(keep))
                number = self._numbers[keep] = len(self.rows)
            self._number = number
        return self._number


def _completed_row(end: Completed, rules: KeepRules) -> Row:
    """Return the row for the outcome of a completed run."""
    return 1, end.id, end.token, end.result, rules.get_or_add_number(end.keep)


def _failed_row(end: Failed, rules: KeepRules) -> Row:
    """Return the row for the outcome of a run that failed for good."""
    number, traceback = rules.get_or_add_number(end.keep), _none_to_false(end.traceback)
    return 2, end.id, end.token, end.error, traceback, number, end.counts, end.exhausted


def _none_to_false(traceback: str | None) -> str | bool:
    """Return False for None, which a Lua table cannot hold, and a string as it is."""
    return False if traceback is None else traceback


def _retry_row(end: Retry, _rules: KeepRules) -> Row:
    """Return the row for the outcome of a failed run that will be retried."""
    return 3, end.id, end.token, end.error, end.traceback, end.delay_ms


def _postponed_row(end: Postponed, _rules: KeepRules) -> Row:
    """Return the row for the outcome of a postponed run."""
    return 4, end.id, end.token, end.delay_ms


def _released_row(end: Released, _rules: KeepRules) -> Row:
    """Return the row for the outcome of a run that was handed back."""
    return 5, end.id, end.token


def _parked_row(end: Parked, children: Mapping[str, Row]) -> Row:
    """Return the row for the outcome of a run that waits for children."""
    return 6, end.id, end.token, *children[end.id], end.add_calls


_TO_ROW: Final[Mapping[type[Outcome], Callable[[Any, KeepRules], Row]]] = {
    Completed: _completed_row,
    Failed: _failed_row,
    Retry: _retry_row,
    Postponed: _postponed_row,
    Released: _released_row,
}


def make_settle_request(
    queue: str,
    outcomes: Sequence[Outcome],
    claim: Row | None,
    now_ms: int,
    metrics_minutes: int | None = None,
    children: Mapping[str, Row] | None = None,
) -> dict[str, object]:
    """Make the request of the script `settle`, or of `claim` if there are no outcomes.

    children are the rows of the children of parked jobs, by the ids of these jobs.
    """
    rules = KeepRules()
    rows = [
        _parked_row(outcome, children or {})
        if type(outcome) is Parked
        else _TO_ROW[type(outcome)](outcome, rules)
        for outcome in outcomes
    ]
    request = {
        "queue": queue, "now": now_ms, "keeps": rules.rows, "outcomes": rows,
        "keep_failed": KEEP_FAILED,
    }  # fmt: skip
    if claim is not None:
        request["claim"] = claim
    if metrics_minutes is not None:
        request["metrics_minutes"] = metrics_minutes
    return request


def make_add_request(
    jobs: Sequence[NewJob], now_ms: int, idempotency: tuple[str, int] | None = None
) -> dict[str, object]:
    """Make the request of the script `add`. Consecutive jobs with the same template form a group.

    idempotency is a unique key of this request, and for how many milliseconds the server remembers
    its reply. If the request is repeated within that time, no job is added twice.
    """
    groups: list[Row] = []
    template: JobTemplate | None = None
    has_ids = False
    datas: list[str] = []
    ids: list[str] = []
    for job in jobs:
        own = job.id is not None
        is_same = job.template is template or job.template == template
        if not is_same or own is not has_ids:
            template, has_ids, datas, ids = job.template, own, [], []
            options = template.options
            group = (
                template.name, template.opts, options.delay_ms, options.priority, options.lifo,
                datas, ids if own else False,
            )  # fmt: skip
            deduplication = template.deduplication
            groups.append(
                group if deduplication is None else (*group, _deduplication_settings(deduplication))
            )
        datas.append(job.data)
        if job.id is not None:
            ids.append(job.id)
    request: dict[str, object] = {"now": now_ms, "count": len(jobs), "groups": groups}
    if idempotency is not None:
        request["idempotency"] = idempotency
    return request


def _deduplication_settings(deduplication: Deduplication) -> dict[str, object]:
    """Return the deduplication of a group of jobs, as the scripts read it."""
    return {
        "id": deduplication.id, "mode": deduplication.mode.value,
        "window": deduplication.window_ms, "max_wait": deduplication.max_wait_ms,
    }  # fmt: skip


def make_update_request(updates: Sequence[Update], now_ms: int) -> dict[str, object]:
    """Make the request of the script `update`."""
    return {"now": now_ms, "updates": [_update_row(update) for update in updates]}


def _update_row(update: Update) -> Row:
    """Return the row for an update: its kind as a number, the job's id, and the new values."""
    match update:
        case Progress(id, value):
            return 1, id, value
        case LogLine(id, line, keep):
            return 2, id, line, keep
        case JobChange(id):
            changes = update.data, update.priority, update.delay_ms, update.progress
            return 3, id, *(False if change is None else change for change in changes)
