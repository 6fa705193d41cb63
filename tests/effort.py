"""How hard the tests look for counterexamples: briefly in `make test`, for long in `make soak`.

`make test` judges a change, so it tries the same examples each time: what fails has to do with the
change. `make soak` tries new ones, and many more. Neither depends on the speed of the machine.
"""

from __future__ import annotations

import os
from typing import Final

from hypothesis import HealthCheck, settings

SOAK: Final = os.environ.get("HASTEN_SOAK") == "1"


def effort(examples: int, *, steps: int = 50) -> settings:
    """The settings of a test that tries so many examples, of so many steps, in `make test`."""
    return settings(
        max_examples=100 * examples if SOAK else examples,
        stateful_step_count=2 * steps if SOAK else steps,
        deadline=None,
        derandomize=not SOAK,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
