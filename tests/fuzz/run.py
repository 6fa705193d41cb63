"""Run one fuzz target in this process, which atheris ends: see `tests.fuzz`."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["hasten"]):
    from tests.fuzz.targets import TARGETS


def main(name: str, seconds: str) -> None:
    options = [f"-max_total_time={seconds}", "-timeout=5", "-rss_limit_mb=2048", "-max_len=8192"]
    atheris.Setup([name, *options], TARGETS[name]())
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
