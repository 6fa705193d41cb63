"""The states of a job, and the only table of transitions between them.

The names are those of BullMQ's getters and events. The engines follow this table, a test compares
the diagram in the documentation with it, and the contract suite uses it as its oracle.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class State(StrEnum):
    """The state of a job."""

    WAITING = "waiting"  # ready to run, no priority
    PRIORITIZED = "prioritized"  # ready to run, after all waiting jobs without a priority
    DELAYED = "delayed"  # not due yet: a delay, a back-off, a later attempt
    WAITING_CHILDREN = "waiting-children"  # a parent whose children have not all finished
    ACTIVE = "active"  # leased to a worker
    COMPLETED = "completed"  # its handler returned
    FAILED = "failed"  # finally: no attempts left, unrecoverable, expired, cancelled


READY: Final = frozenset({State.WAITING, State.PRIORITIZED})
FINISHED: Final = frozenset({State.COMPLETED, State.FAILED})

INITIAL: Final = frozenset(
    {State.WAITING, State.PRIORITIZED, State.DELAYED, State.WAITING_CHILDREN}
)

TRANSITIONS: Final[Mapping[State, frozenset[State]]] = {
    # → active: claimed. → failed: cancelled before a run. → the other one: another priority.
    State.WAITING: frozenset({State.ACTIVE, State.FAILED, State.PRIORITIZED}),
    State.PRIORITIZED: frozenset({State.ACTIVE, State.FAILED, State.WAITING}),
    # → waiting, prioritized: due, or promoted.
    State.DELAYED: frozenset({State.WAITING, State.PRIORITIZED, State.FAILED}),
    # → the rest: the last child has finished; the parent's own delay and priority apply now.
    State.WAITING_CHILDREN: frozenset(
        {State.WAITING, State.PRIORITIZED, State.DELAYED, State.FAILED}
    ),
    # → waiting, prioritized: retried at once, released, or reclaimed from a dead worker.
    # → delayed: retried after its back-off. → waiting-children: it has added children.
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
    # → waiting, prioritized: run again by hand.
    State.COMPLETED: frozenset({State.WAITING, State.PRIORITIZED}),
    State.FAILED: frozenset({State.WAITING, State.PRIORITIZED}),
}
