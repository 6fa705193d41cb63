"""Run coroutines without an event loop.

Code that has async and blocking callers is written once, as coroutines. A blocking caller passes
functions that never suspend to such a coroutine, and runs it with `run_without_suspending`.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run_without_suspending(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends, and return its result.

    Raises `RuntimeError` if the coroutine does suspend.
    """
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        coroutine.close()
    raise RuntimeError("the coroutine has suspended: it needs an event loop")
