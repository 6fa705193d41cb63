"""Start programs as a reader does, and stop them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx

from tests.docs.markdown import ROOT

TIME_LIMIT_SECONDS: Final = 60


def environment(**extra: str) -> Mapping[str, str]:
    """Return the environment of a new user: no HASTEN_URL, the scripts of this Python in PATH."""
    inherited = {name: value for name, value in os.environ.items() if name != "HASTEN_URL"}
    scripts = Path(sys.executable).parent
    path = os.pathsep.join([str(scripts), inherited.get("PATH", os.defpath)])
    return {**inherited, "PATH": path, "PYTHONUNBUFFERED": "1", **extra}


@contextmanager
def running(
    *command: str, folder: Path = ROOT, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Run a program until the block ends."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment() if env is None else env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=TIME_LIMIT_SECONDS)


def wait_until_served(process: subprocess.Popen[str], url: str) -> None:
    """Return when a server answers at the URL."""
    deadline = time.monotonic() + TIME_LIMIT_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(f"ended with {process.returncode}: {process.communicate()[0]}")
        try:
            httpx.get(url)
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"nothing answers at {url}")
