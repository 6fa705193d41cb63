"""Old database connections of Django are closed, but only where Django is in use."""

from __future__ import annotations

import logging
import sys
from types import SimpleNamespace

import pytest

from hasten import _django


class Database:
    def __init__(self, error: Exception | None = None) -> None:
        self.calls = 0
        self._error = error

    def close_old_connections(self) -> None:
        self.calls += 1
        if self._error is not None:
            raise self._error


def install(monkeypatch: pytest.MonkeyPatch, database: Database, *, configured: bool) -> None:
    settings = SimpleNamespace(configured=configured)
    monkeypatch.setitem(sys.modules, "django.db", database)
    monkeypatch.setitem(sys.modules, "django.conf", SimpleNamespace(settings=settings))


@pytest.mark.parametrize("configured", [True, False])
def test_connections_need_settings(monkeypatch: pytest.MonkeyPatch, configured: bool) -> None:
    """A library may have imported Django without a project."""
    database = Database()
    install(monkeypatch, database, configured=configured)
    _django.close_old_connections()
    assert database.calls == configured


def test_one_that_cannot_be_closed_is_logged_and_ends_no_thread(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install(monkeypatch, Database(LookupError("gone")), configured=True)
    with caplog.at_level(logging.WARNING):
        _django.close_old_connections()
    assert caplog.messages == [
        "Django could not close an old database connection: LookupError('gone')"
    ]
