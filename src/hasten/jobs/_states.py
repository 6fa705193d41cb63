"""The states of a job, and the only table of the ways between them.

The names are BullMQ's, as its getters and events use them. Engines obey this table, the diagram in
the documentation is checked against it, and the tests use it as their oracle.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class State(StrEnum):
    WAITING = "waiting"  # ready to run, no priority
    PRIORITIZED = "prioritized"  # ready to run, after all that wait without a priority
    DELAYED = "delayed"  # not due yet: a delay, a back-off, a later attempt
    WAITING_CHILDREN = "waiting-children"  # a parent whose children have not all finished
    ACTIVE = "active"  # leased to a worker
    COMPLETED = "completed"  # its handler returned
    FAILED = "failed"  # for good: no attempts left, unrecoverable, expired, cancelled


READY: Final = frozenset({State.WAITING, State.PRIORITIZED})
FINISHED: Final = frozenset({State.COMPLETED, State.FAILED})

INITIAL: Final = frozenset(
    {State.WAITING, State.PRIORITIZED, State.DELAYED, State.WAITING_CHILDREN}
)

TRANSITIONS: Final[Mapping[State, frozenset[State]]] = {
    # → active: claimed. → failed: cancelled before it ran. → the other one: given another priority.
    State.WAITING: frozenset({State.ACTIVE, State.FAILED, State.PRIORITIZED}),
    State.PRIORITIZED: frozenset({State.ACTIVE, State.FAILED, State.WAITING}),
    # → waiting, prioritized: due, or promoted.
    State.DELAYED: frozenset({State.WAITING, State.PRIORITIZED, State.FAILED}),
    # → the rest: the last child has finished; the parent's own delay and priority apply now.
    State.WAITING_CHILDREN: frozenset(
        {State.WAITING, State.PRIORITIZED, State.DELAYED, State.FAILED}
    ),
    # → waiting, prioritized: retried at once, handed back, or recovered from a dead worker.
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
