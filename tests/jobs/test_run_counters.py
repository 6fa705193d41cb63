"""Runs are counted by queue, task and outcome."""

from __future__ import annotations

import typing

from hasten.jobs import _run_counters as counters
from hasten.jobs._record import Outcome


def test_each_outcome_has_a_label() -> None:
    """A worker calls the counters for each run, and they must not raise."""
    assert set(counters._OUTCOMES) == {*typing.get_args(Outcome), type(None)}
    assert len(set(counters._OUTCOMES.values())) == len(counters._OUTCOMES)
