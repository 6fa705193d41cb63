"""One verb of a contestant: `python -m benchmarks.queues.performance MODULE VERB PLACE ARGUMENTS`.

This is what the processes of a stage run. It imports nothing but the standard library and the
contestant, which may have an environment of its own.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import sys
from typing import Final

READY: Final = "ready\n"


def perform(module: str, verb: str, place: str, arguments: str) -> None:
    contestant = importlib.import_module(module).CONTESTANT(place)
    method = getattr(contestant, verb)
    call = json.loads(arguments)
    if "ready" in inspect.signature(method).parameters:
        call["ready"] = _say_ready
    print(json.dumps(method(**call)))


def _say_ready() -> None:
    sys.stdout.write(READY)
    sys.stdout.flush()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        perform(*sys.argv[1:])
