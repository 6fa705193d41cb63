"""Requests of the scripts: the arguments of a verb, packed for Lua."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from hasten.jobs._options import DEFAULT_KEEP_FAILED, Keep
from hasten.jobs._record import (
    Change,
    Claim,
    Completed,
    Failed,
    JobTemplate,
    LogLine,
    NewJob,
    Outcome,
    Postponed,
    Progress,
    Released,
    Retry,
    Update,
)

pack: Final = msgspec.msgpack.Encoder().encode

Row = tuple[Any, ...]


def claim_row(claim: Claim, orphans: Sequence[str], *, has_cron: bool) -> Row:
    """Pack a claim. orphans are the tokens of orphaned claims."""
    return claim.count, claim.token, claim.worker, claim.lease_ms, orphans, has_cron


def keep_rule(keep: Keep) -> tuple[int, int]:
    """Pack a keep rule: count and age in ms; -1 for no limit."""
    age_ms = keep.age_ms
    return -1 if keep.count is None else keep.count, -1 if age_ms is None else age_ms


KEEP_FAILED: Final = keep_rule(DEFAULT_KEEP_FAILED)


class KeepRules:
    """The keep rules of one request, each once. Outcomes refer to them by number, from 1."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, int]] = []
        self._numbers: dict[Keep, int] = {}
        self._latest: Keep | None = None
        self._number = 0

    def number(self, keep: Keep) -> int:
        """Return the number of a rule."""
        if keep is not self._latest:  # it mostly is: a worker has one rule
            self._latest = keep
            number = self._numbers.get(keep)
            if number is None:
                self.rows.append(keep_rule(keep))
                number = self._numbers[keep] = len(self.rows)
            self._number = number
        return self._number


def _completed(end: Completed, rules: KeepRules) -> Row:
    return 1, end.id, end.token, end.result, rules.number(end.keep)


def _failed(end: Failed, rules: KeepRules) -> Row:
    number, traceback = rules.number(end.keep), _or_false(end.traceback)
    return 2, end.id, end.token, end.error, traceback, number, end.counts, end.exhausted


def _or_false(traceback: str | None) -> str | bool:
    return False if traceback is None else traceback  # nil would leave a hole in the Lua table


def _retry(end: Retry, _rules: KeepRules) -> Row:
    return 3, end.id, end.token, end.error, end.traceback, end.delay_ms


def _postponed(end: Postponed, _rules: KeepRules) -> Row:
    return 4, end.id, end.token, end.delay_ms


def _released(end: Released, _rules: KeepRules) -> Row:
    return 5, end.id, end.token


_ROW: Final[Mapping[type[Outcome], Callable[[Any, KeepRules], Row]]] = {
    Completed: _completed,
    Failed: _failed,
    Retry: _retry,
    Postponed: _postponed,
    Released: _released,
}


def settle(
    queue: str, outcomes: Sequence[Outcome], claim: Row | None, now_ms: int
) -> dict[str, object]:
    """Make the request of `settle`, or of `claim` if there are no outcomes."""
    rules = KeepRules()
    rows = [_ROW[type(outcome)](outcome, rules) for outcome in outcomes]
    request = {
        "queue": queue, "now": now_ms, "keeps": rules.rows, "outcomes": rows,
        "keep_failed": KEEP_FAILED,
    }  # fmt: skip
    if claim is not None:
        request["claim"] = claim
    return request


def add(
    jobs: Sequence[NewJob], now_ms: int, idempotency: tuple[str, int] | None = None
) -> dict[str, object]:
    """Make the request of `add`. Consecutive jobs with the same template form one group.

    idempotency is a pair: a unique key of this call, and how many milliseconds the server remembers
    the reply. During that time the same request may be sent again.
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
            groups.append(
                (
                    template.name, template.opts, options.delay_ms, options.priority,
                    options.lifo, datas, ids if own else False,
                )
            )  # fmt: skip
        datas.append(job.data)
        if job.id is not None:
            ids.append(job.id)
    request: dict[str, object] = {"now": now_ms, "count": len(jobs), "groups": groups}
    if idempotency is not None:
        request["idempotency"] = idempotency
    return request


def update(updates: Sequence[Update], now_ms: int) -> dict[str, object]:
    """Make the request of `update`."""
    return {"now": now_ms, "updates": [_update_row(update) for update in updates]}


def _update_row(update: Update) -> Row:
    match update:
        case Progress(id, value):
            return 1, id, value
        case LogLine(id, line, keep):
            return 2, id, line, keep
        case Change(id):
            changes = update.data, update.priority, update.delay_ms, update.progress
            return 3, id, *(False if change is None else change for change in changes)
