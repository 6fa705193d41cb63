"""Totals of several processes are added up."""

from __future__ import annotations

from hasten.jobs._run_totals import (
    BOUNDS,
    Histogram,
    QueueTotals,
    RunTotals,
    Totals,
    add_totals,
    empty_histogram,
)
from hasten.jobs._worker_state import WorkerProcessReport, decode_report, encode_report


def totals(count: int) -> Totals:
    def histogram() -> Histogram:
        return Histogram([count, *[0] * len(BOUNDS)], count / 2)

    return Totals(
        [RunTotals("mail", "send", "completed", histogram(), empty_histogram(), count)],
        [QueueTotals("mail", reclaimed=count, lost_leases=2 * count)],
    )


def test_equal_labels_are_added_and_the_parts_stay_as_they_are() -> None:
    one, two = totals(1), totals(2)
    assert add_totals([one, two]) == totals(3)
    assert (one, two) == (totals(1), totals(2))
    assert add_totals([]) == Totals()


def test_different_labels_stay_apart() -> None:
    other = totals(1)
    other.runs[0].task = "fetch"
    both = add_totals([totals(1), other])
    assert [each.task for each in both.runs] == ["send", "fetch"]
    assert both.queues == totals(2).queues


def test_a_report_can_be_sent_to_another_process() -> None:
    report = WorkerProcessReport(3, [], totals(5), "down")
    assert decode_report(encode_report(report)) == report
