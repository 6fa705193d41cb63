"""Settings for all tests."""

from __future__ import annotations

import os
import random
import signal
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

from hasten import _pytest_plugin
from tests.effort import effort
from tests.servers.reaper import Reaper

# They assert, and are imported by tests of several folders: before all of them, so that what was
# compared is shown.
pytest.register_assert_rewrite("tests.http.client", "tests.http.codings", "tests.http.expect")

settings.register_profile("hasten", effort(40))
settings.load_profile("hasten")

REAPER = pytest.StashKey[Reaper]()


def pytest_configure(config: pytest.Config) -> None:
    """However this process ends, its children end with it, and its files are removed."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell starts background programs with Ctrl+C ignored, and their children inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    reaper = config.stash[REAPER] = Reaper(None if is_worker(config) else temporary_folder())
    reaper.watch_children()
    if not config.pluginmanager.has_plugin("hasten"):  # hasten was installed without its plug-in
        config.pluginmanager.register(_pytest_plugin, "hasten")
    # The processes of a run have to agree on the order of sets: tests are parametrized with some.
    os.environ.setdefault("PYTHONHASHSEED", str(random.SystemRandom().randrange(2**32)))


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[REAPER].reap()


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, object, object]:
    """Send reports as UTF-8, although the output of a test may be invalid."""
    return _encodable((yield))


def _encodable(value: object) -> object:
    match value:
        case str():
            return value.encode(errors="backslashreplace").decode()
        case dict():
            return {key: _encodable(each) for key, each in value.items()}
        case list() | tuple():
            return type(value)(map(_encodable, value))
    return value


def is_worker(config: pytest.Config) -> bool:
    """Return whether this is one of the processes that share the tests."""
    return hasattr(config, "workerinput")


def temporary_folder() -> Path:
    """Create the folder of all temporary files of this run and its children."""
    folder = Path(tempfile.mkdtemp(prefix="hasten-"))
    folder.chmod(0o711)  # PostgreSQL and some workers run as another user
    tempfile.tempdir = os.environ["TMPDIR"] = os.environ["PYTEST_DEBUG_TEMPROOT"] = str(folder)
    return folder
