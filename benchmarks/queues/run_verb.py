"""Run one verb: `python -m benchmarks.queues.run_verb MODULE VERB LOCATION ARGUMENTS`.

A verb is a method of a contestant. Its result is printed as a line of JSON. This module imports
only the standard library and the contestant, which may have its own virtual environment.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import sys
from typing import Final

READY: Final = "ready\n"


def run(module: str, verb: str, location: str, arguments: str) -> None:
    contestant = importlib.import_module(module).CONTESTANT(location)
    method = getattr(contestant, verb)
    call = json.loads(arguments)
    if "ready" in inspect.signature(method).parameters:
        call["ready"] = _print_ready
    print(json.dumps(method(**call)))


def _print_ready() -> None:
    sys.stdout.write(READY)
    sys.stdout.flush()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        run(*sys.argv[1:])
