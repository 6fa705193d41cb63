"""Run one workload: `python -m benchmarks.ratelimit.run_workload MODULE NAME ARGUMENTS`.

The result of the workload is printed as JSON.
"""

from __future__ import annotations

import importlib
import json
import sys

import uvloop


def main(module: str, name: str, arguments: str) -> None:
    contestant = importlib.import_module(module).CONTESTANT
    measure = importlib.import_module(f"benchmarks.ratelimit.workloads.{name}").measure
    print(json.dumps(uvloop.run(measure(contestant, **json.loads(arguments)))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
