"""The names of the tasks of built-in jobs, which every worker can run. See `_moments`."""

from __future__ import annotations

from typing import Final

FLOW_TASK: Final = "hasten:flow"
BATCH_TASK: Final = "hasten:batch"
OPENING_TASK: Final = "hasten:open-batch"
BUILT_IN_TASKS: Final = frozenset({FLOW_TASK, BATCH_TASK, OPENING_TASK})


def opening_id(batch: str) -> str:
    """Return the id of the job that keeps a batch open."""
    return f"{batch}-open"
