"""How hard the tests look for counterexamples: briefly in `make test`, for long in `make soak`.

`make test` judges a change, so it draws the same examples each time: what fails has to do with the
change. `make soak` draws new ones, 20 times as many, or as SOAK says. Neither has deadlines, which
would depend on the machine.
"""

from __future__ import annotations

import os
from typing import Final

from hypothesis import HealthCheck, settings

TIMES: Final = int(os.environ.get("HASTEN_SOAK", "1"))


def effort(examples: int, *, steps: int = 50) -> settings:
    """The settings of a test that tries so many examples, of so many steps, in `make test`."""
    is_soak = TIMES > 1
    return settings(
        max_examples=TIMES * examples,
        stateful_step_count=2 * steps if is_soak else steps,
        deadline=None,
        derandomize=not is_soak,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
