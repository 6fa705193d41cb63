"""One contestant's process: `python -m benchmarks.ratelimit.work MODULE WORK ARGUMENTS`.

It prints what the work has found as JSON.
"""

from __future__ import annotations

import importlib
import json
import sys

import uvloop


def main(module: str, work: str, arguments: str) -> None:
    contestant = importlib.import_module(module).CONTESTANT
    measure = importlib.import_module(f"benchmarks.ratelimit.works.{work}").measure
    print(json.dumps(uvloop.run(measure(contestant, **json.loads(arguments)))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
