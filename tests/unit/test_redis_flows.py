"""Flows in BullMQ's layout: the order of children, and links to parents that any program wrote."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.errors import InvalidOption
from hasten.jobs._engines.redis.flow_requests import (
    decode_parent,
    make_flow_rows,
    sort_children,
)
from hasten.jobs._engines.redis.queue_keys import QueueKeys
from hasten.jobs._options import DEFAULT_OPTIONS
from hasten.jobs._record import ON_FAILURE, JobTemplate, NewJob, OnFailure, ParentLink

KEYS = QueueKeys("bull", tagged=False)
TEMPLATE = JobTemplate("send", '{"attempts":2}', DEFAULT_OPTIONS)


def new_child(
    id: str, on_failure: OnFailure = "fail", *, template: JobTemplate = TEMPLATE
) -> NewJob:
    return NewJob("images", template, "{}", id, ParentLink("mail", "root", on_failure))


def orders_of(*ids: str) -> list[tuple[str, bool, list[str]]]:
    root = NewJob("mail", TEMPLATE, "{}", "root")
    return make_flow_rows([root, *map(new_child, ids)], KEYS).orders


class TestOrder:
    @pytest.mark.parametrize(
        ("ids", "is_in_order"),
        [
            (["f-1", "f-2", "f-10"], True), (["f-2", "f-10", "f-3"], False), (["a", "b"], False),
            (["p-1-1", "p-1-2", "p-2-1"], True), (["f-1", "a"], False), (["a-1", "b-1"], True),
            (["b-1", "a-1"], False),
        ],
    )  # fmt: skip
    def test_is_stored_unless_the_ids_tell_it(self, ids: list[str], is_in_order: bool) -> None:
        keys = [f"bull:images:{id}" for id in ids]
        assert orders_of(*ids) == [("bull:mail:root", is_in_order, keys)]

    @given(st.lists(st.from_regex(r"\A[a-z]{0,2}(-[0-9]{1,2}){0,3}\Z"), unique=True, max_size=8))
    def test_is_that_of_adding(self, ids: list[str]) -> None:
        for _, is_in_order, keys in orders_of(*ids):
            stored = "" if is_in_order else "\n".join(keys)
            found = sort_children([(key, "pending") for key in sorted(keys)], stored)
            assert [key for key, _ in found] == keys

    def test_of_children_of_a_run_comes_after_those_of_the_flow(self) -> None:
        ids = ["f-3-1-2", "f-12", "f-3-1-1", "f-4"]
        found = sort_children([(id, "completed") for id in ids], "")
        assert [id for id, _ in found] == ["f-4", "f-12", "f-3-1-1", "f-3-1-2"]


class TestRows:
    def test_jobs_that_differ_in_data_and_id_only_form_a_group(self) -> None:
        other = JobTemplate("draw", "{}", DEFAULT_OPTIONS)
        jobs = [
            NewJob("mail", TEMPLATE, "{}", "root"), new_child("a"), new_child("b"),
            new_child("c", template=other), new_child("d", "ignore", template=other),
        ]  # fmt: skip
        rows = make_flow_rows(jobs, KEYS).groups
        assert [row[10] for row in rows] == [["root"], ["a", "b"], ["c"], ["d"]]
        assert [row[8] for row in rows] == [True, False, False, False]

    @pytest.mark.parametrize("on_failure", ON_FAILURE)
    def test_links_are_read_as_they_were_written(self, on_failure: OnFailure) -> None:
        child = new_child("a", on_failure)
        (row,) = make_flow_rows([child], KEYS).groups
        assert row[6] == "bull:mail:root"
        assert decode_parent(row[7], KEYS) == child.parent
        assert json.loads(row[2])["attempts"] == 2

    def test_one_id_twice_in_a_queue_is_refused(self) -> None:
        with pytest.raises(InvalidOption, match="job_id='a': must be an id that no other job"):
            make_flow_rows([new_child("a"), new_child("b"), new_child("a")], KEYS)


class TestParents:
    @pytest.mark.parametrize(
        "stored",
        [
            None, "", "no json", "[]", "{}", '{"id":"1"}', '{"id":5,"queueKey":"bull:mail"}',
            '{"id":"1","queueKey":"other:mail"}', '{"id":"1","queueKey":7}', "[" * 5000,
        ],
    )  # fmt: skip
    def test_that_are_damaged_or_foreign_are_none(self, stored: str | None) -> None:
        assert decode_parent(stored, KEYS) is None

    @given(st.dictionaries(st.sampled_from(["id", "queueKey", "fpof"]), st.text() | st.booleans()))
    def test_never_raise(self, stored: dict[str, Any]) -> None:
        found = decode_parent(json.dumps(stored), KEYS)
        assert found is None or isinstance(found, ParentLink)
