"""Programs that tests need and pip does not install."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def program(*names: str, package: str | None = None) -> str:
    """The path of a program that goes by one of these names, else `leave_out` the test.

    package is Debian's, if it is not the first name.
    """
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        package = package or names[0]
        leave_out(f"{names[0]} is not installed: install it (Debian: apt-get install {package})")
    return path


def leave_out(reason: str) -> NoReturn:
    """Skip the test. In CI, fail it instead."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
