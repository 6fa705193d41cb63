"""How much one call to the store carries."""

from __future__ import annotations

from hasten.jobs._options import DEFAULT_KEEP_FAILED, DEFAULT_OPTIONS
from hasten.jobs._outbox import Outbox
from hasten.jobs._record import JobTemplate, NewJob, ParentLink, Parked


def test_children_weigh_as_much_as_outcomes() -> None:
    """The outcomes of jobs that add many children are stored in several calls."""
    outbox = Outbox(
        "mail", max_jobs_per_settle=100, keep_failed=DEFAULT_KEEP_FAILED, on_add=lambda: None
    )
    template = JobTemplate("send", "{}", DEFAULT_OPTIONS)
    for job in "abc":
        link = ParentLink("mail", job)
        children = [NewJob("mail", template, "{}", f"{job}-{n}", link) for n in range(60)]
        outbox.add_outcome(Parked(job, "t", children), length=2)
    portions = []
    while outbox:
        portions.append([outcome.id for outcome in outbox.take_portion().outcomes])
    assert portions == [["a"], ["b"], ["c"]]
