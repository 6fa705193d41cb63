"""Flows on Redis: the requests that add them, and the order of children.

Redis keeps the children of a job in sets and hashes without an order. hasten gives most of them ids
that end with their place: `…-1`, `…-2`. Such children are read in the order of these numbers. For
other ids, the parent's hash has the keys of its children in their order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, NamedTuple

import msgspec

from hasten.errors import InvalidOption
from hasten.jobs._encoding import UNDECODABLE
from hasten.jobs._engine import check_flow_jobs
from hasten.jobs._engines.redis.queue_keys import QueueKeys
from hasten.jobs._record import ChildOutcome, NewJob, OnFailure, ParentLink

# BullMQ's names of what the failure of a child does to its parent, in the options and in the field
# `parent` of the child. Without any of them, the parent waits.
_FLAGS: Final[Mapping[OnFailure, str]] = {
    "fail": "fpof", "continue": "cpof", "ignore": "idof", "remove": "rdof",
}  # fmt: skip

OUTCOMES: Final[Sequence[ChildOutcome]] = "pending", "completed", "ignored", "failed"
"""The order in which the script `children` returns the keys of children."""


class FlowRows(NamedTuple):
    """New jobs as the scripts expect them: the head of `lib/flow_adding.lua` explains both."""

    groups: list[tuple[Any, ...]]
    orders: list[tuple[str, bool, list[str]]]


def make_flow_rows(
    jobs: Sequence[NewJob], keys: QueueKeys, *, added_by: str | None = None
) -> FlowRows:
    """Return the rows of new jobs.

    added_by is the id of the job that adds them while it runs. Raises `InvalidOption` if two of
    them have the same id, or one has a deduplication key.
    """
    check_flow_jobs(jobs)
    own_keys = [f"{keys.queue_prefix(job.queue)}{job.id}" for job in jobs]
    if len(set(own_keys)) < len(own_keys):
        doubled = next(
            job.id for job, key in zip(jobs, own_keys, strict=True) if own_keys.count(key) > 1
        )
        expected = "an id that no other job of the flow has"
        raise InvalidOption("job_id", doubled, expected, code="duplicate")
    parent_keys = [
        None if job.parent is None else keys.queue_prefix(job.parent.queue) + job.parent.id
        for job in jobs
    ]
    parents = set(parent_keys)
    groups: list[_Group] = []
    children: dict[str, list[str]] = {}
    for job, own_key, parent_key in zip(jobs, own_keys, parent_keys, strict=True):
        kind = job.queue, job.parent, own_key in parents
        if not groups or not groups[-1].fits(job, kind):
            groups.append(_Group(job, kind))
        groups[-1].datas.append(job.data)
        groups[-1].ids.append(str(job.id))
        if parent_key is not None:
            children.setdefault(parent_key, []).append(own_key)
    rows = [group.to_row(keys) for group in groups]
    orders = [
        (
            parent_key,
            _is_in_order(of_parent)
            and (added_by is None or parent_key in own_keys or _are_of_run(of_parent, added_by)),
            of_parent,
        )
        for parent_key, of_parent in children.items()
    ]
    return FlowRows(rows, orders)


def find_stored_parents(jobs: Sequence[NewJob]) -> set[tuple[str, str]]:
    """Return the queues and ids of the parents that are not among the new jobs."""
    new = {(job.queue, job.id) for job in jobs}
    links = {(job.parent.queue, job.parent.id) for job in jobs if job.parent is not None}
    return {link for link in links if link not in new}


@dataclass(slots=True)
class _Group:
    """Consecutive jobs that differ only in data and id. kind is queue, parent, and is it one."""

    first: NewJob
    kind: tuple[str, ParentLink | None, bool]
    datas: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)

    def fits(self, job: NewJob, kind: tuple[str, ParentLink | None, bool]) -> bool:
        """Return whether a job belongs to the group."""
        return kind == self.kind and job.template == self.first.template

    def to_row(self, keys: QueueKeys) -> tuple[Any, ...]:
        """Return the row of the group."""
        queue, link, is_parent = self.kind
        template, options = self.first.template, self.first.template.options
        opts, parent = template.opts, None
        if link is not None:
            base = keys.queue_prefix(link.queue)
            flags = {_FLAGS[link.on_failure]: True} if link.on_failure in _FLAGS else {}
            opts = _with_members(opts, {"parent": {"id": link.id, "queue": base[:-1]}, **flags})
            parent = base + link.id, json.dumps({"id": link.id, "queueKey": base[:-1], **flags})
        return (
            keys.queue_prefix(queue), template.name, opts, options.delay_ms, options.priority,
            options.lifo, *(parent or (False, False)), is_parent, self.datas, self.ids,
        )  # fmt: skip


def _with_members(text: str, members: Mapping[str, object]) -> str:
    """Return a JSON object, given as text, with more members."""
    rest = json.dumps(members)[1:]
    return "{" + rest if text == "{}" else f"{text[:-1]}, {rest}"


# The order of children --------------------------------------------------------------------------


def sort_children(
    found: Iterable[tuple[str, ChildOutcome]], stored_order: str
) -> list[tuple[str, ChildOutcome]]:
    """Sort the children of a job, given by the keys of their jobs, in the order of adding.

    stored_order is the field `hasten:children` of the parent; children that it names come last.
    """
    places = {key: place for place, key in enumerate(stored_order.split("\n"), 1)}
    return sorted(found, key=lambda child: (places.get(child[0], 0), _place_in_id(child[0])))


def _is_in_order(keys: Sequence[str]) -> bool:
    """Return whether the ids of children end with their places, in their order."""
    places = [_place_in_id(key) for key in keys]
    ends = all(_NUMBERS.search(key) for key in keys)
    return ends and all(a < b for a, b in pairwise(places))


def _are_of_run(keys: Sequence[str], parent: str) -> bool:
    """Return whether hasten has made the ids of children that a parent has added while it ran.

    They have the number of the call in that run, and so come after the children of earlier calls.
    """
    generated = re.compile(re.escape(parent.replace(":", ".")) + r"-[0-9]+-[0-9]+")
    return all(generated.fullmatch(key.rpartition(":")[2]) for key in keys)


_NUMBERS: Final = re.compile(r"(?:-[0-9]{1,15})+\Z")


def _place_in_id(key: str) -> tuple[int, list[int], str]:
    """Return a value by which the keys of children are sorted: the numbers at the end of the id."""
    ending = _NUMBERS.search(key)
    numbers = [int(number) for number in ending[0][1:].split("-")] if ending else []
    return len(numbers), numbers, key


# Reading ----------------------------------------------------------------------------------------


class _StoredLink(msgspec.Struct):
    """The hash field `parent` of a child, in BullMQ's form."""

    id: str
    queueKey: str  # noqa: N815  # BullMQ's name
    fpof: bool = False
    cpof: bool = False
    idof: bool = False
    rdof: bool = False


_links: Final = msgspec.json.Decoder(_StoredLink, strict=False)


def decode_parent(stored: str | None, keys: QueueKeys) -> ParentLink | None:
    """Decode the hash field `parent` of a job. Returns None for a missing or a foreign parent."""
    if not stored:
        return None
    try:
        link = _links.decode(stored)
    except UNDECODABLE:
        return None
    queue = keys.queue_of_meta_key(f"{link.queueKey}:meta")
    if queue is None:
        return None
    is_set = {"fail": link.fpof, "continue": link.cpof, "ignore": link.idof, "remove": link.rdof}
    return ParentLink(queue, link.id, next((name for name in _FLAGS if is_set[name]), "wait"))
