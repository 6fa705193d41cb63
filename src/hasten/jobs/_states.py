"""The states of a job, and the allowed transitions between them.

The names are those of BullMQ's getters and events. The engines follow this table. A test compares
it with the diagram in the documentation, and the tests of the engines check transitions against it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, TypeAlias


class State(StrEnum):
    """The state of a job in its queue."""

    WAITING = "waiting"  # ready to run, without a priority
    PRIORITIZED = "prioritized"  # ready to run, after all waiting jobs without a priority
    DELAYED = "delayed"  # not due yet: it has a delay, or waits for its next attempt
    WAITING_CHILDREN = "waiting-children"  # a parent whose children have not all finished
    ACTIVE = "active"  # leased to a worker
    COMPLETED = "completed"  # its handler returned
    FAILED = "failed"  # for good: no attempts left, unrecoverable, expired or cancelled


StatesBefore: TypeAlias = list[State | None]
"""The state in which a call found each of its jobs, in their order; None for a missing job."""

READY: Final = frozenset({State.WAITING, State.PRIORITIZED})
FINISHED: Final = frozenset({State.COMPLETED, State.FAILED})

INITIAL: Final = frozenset(
    {State.WAITING, State.PRIORITIZED, State.DELAYED, State.WAITING_CHILDREN}
)

TRANSITIONS: Final[Mapping[State, frozenset[State]]] = {
    # → active: claimed. → failed: cancelled before a run. → prioritized, and prioritized → waiting:
    # the priority was changed.
    State.WAITING: frozenset({State.ACTIVE, State.FAILED, State.PRIORITIZED}),
    State.PRIORITIZED: frozenset({State.ACTIVE, State.FAILED, State.WAITING}),
    # → waiting, prioritized: due, or promoted.
    State.DELAYED: frozenset({State.WAITING, State.PRIORITIZED, State.FAILED}),
    # → waiting, prioritized, delayed: the last child has finished, so the parent's own priority and
    # delay apply. → failed: cancelled, or a child has failed.
    State.WAITING_CHILDREN: frozenset(
        {State.WAITING, State.PRIORITIZED, State.DELAYED, State.FAILED}
    ),
    # → waiting, prioritized: retried at once, handed back, or reclaimed from a dead worker.
    # → delayed: retried after a backoff, or postponed. → waiting-children: it has added children.
    State.ACTIVE: frozenset(
        {
            State.COMPLETED,
            State.FAILED,
            State.DELAYED,
            State.WAITING,
            State.PRIORITIZED,
            State.WAITING_CHILDREN,
        }
    ),
    # → waiting, prioritized: queued again by `Queue.retry`. → waiting-children: the same, and the
    # job has children that have not finished.
    State.COMPLETED: frozenset({State.WAITING, State.PRIORITIZED, State.WAITING_CHILDREN}),
    State.FAILED: frozenset({State.WAITING, State.PRIORITIZED, State.WAITING_CHILDREN}),
}
