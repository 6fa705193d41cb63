"""Give a parser of untrusted input whatever atheris thinks of.

    python -m tests.fuzz cursor --seconds 600
    python -m tests.fuzz --seconds 60             # each of them, one after the other

A target fails on any exception that is not the parser's own refusal, on an input that takes longer
than five seconds, and on 2 GB of memory. The input that failed is written to the working directory.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from tests.fuzz.targets import TARGETS


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    arguments.add_argument("target", nargs="*", choices=[*TARGETS, []], help="all by default")
    arguments.add_argument("--seconds", type=int, default=60, help="how long each is tried")
    chosen = arguments.parse_args()
    failed = []
    for target in chosen.target or TARGETS:
        began = time.monotonic()
        command = [sys.executable, "-m", "tests.fuzz.run", target, str(chosen.seconds)]
        process = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = process.stderr.splitlines()
        if process.returncode:
            failed.append(target)
            print("\n".join(lines[-60:]))
        done = next((line for line in reversed(lines) if line.startswith("Done ")), "failed")
        print(f"{target}: {done} ({time.monotonic() - began:.0f} s)", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
