"""How the loggers of hasten escape arguments."""

from __future__ import annotations

import importlib
import logging
import pkgutil

import pytest

import hasten
from hasten._logs import get_logger
from hasten.errors import HastenError, StoreError

HOSTILE = "\x1b]52;c;ZXZpbA==\x07\x1b[2J\x9b31m\u202e\r\nERROR forged"


def logged(caplog: pytest.LogCaptureFixture) -> str:
    (record,) = caplog.records
    return logging.Formatter("%(levelname)s %(message)s").format(record)


def is_harmless(text: str) -> bool:
    return "".join(text.split("\n")).isprintable() and "\nERROR" not in text


@pytest.mark.parametrize("argument", [HOSTILE, ValueError(HOSTILE), StoreError("db", HOSTILE)])
def test_arguments_stay_on_one_line(argument: object, caplog: pytest.LogCaptureFixture) -> None:
    get_logger("hasten.test").warning("store: %s, %d", argument, 7)
    assert logged(caplog).isprintable()
    assert logged(caplog).endswith(r"\r\nERROR forged, 7")


def test_printable_arguments_are_not_changed(caplog: pytest.LogCaptureFixture) -> None:
    """Error trackers group records by them."""
    error = ValueError("no such address")
    get_logger("hasten.test").warning("%s %s %d", "a", error, 7)
    assert caplog.records[0].args == ("a", error, 7)


def test_tracebacks_are_escaped(caplog: pytest.LogCaptureFixture) -> None:
    """Also those of causes, groups and notes. The record keeps the exception itself."""
    error = ExceptionGroup(HOSTILE, [ValueError(HOSTILE)])
    error.add_note(f"a note\nERROR forged {HOSTILE}")
    error.__cause__ = KeyError(HOSTILE)
    error.__cause__.__cause__ = ValueError(HOSTILE)
    error.__cause__.__cause__.add_note("a note\nERROR forged")
    get_logger("hasten.test").error("failed", exc_info=error)
    assert is_harmless(logged(caplog))
    assert r"\x1b[2J" in logged(caplog)
    assert caplog.records[0].exc_info is not None
    assert caplog.records[0].exc_info[1] is error


def test_a_printable_traceback_is_formatted_by_the_formatter() -> None:
    error = ValueError("no such address")
    record = logging.makeLogRecord({"exc_info": (type(error), error, None)})
    assert get_logger("hasten.test").filter(record)
    assert record.exc_text is None


def test_every_logger_of_hasten_escapes() -> None:
    for module in pkgutil.walk_packages(hasten.__path__, "hasten."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    loggers = [
        found
        for name, found in logging.root.manager.loggerDict.items()
        if name.startswith("hasten.") and isinstance(found, logging.Logger)
    ]
    assert len(loggers) > 5
    assert all(get_logger(found.name).filters == found.filters != [] for found in loggers)


def test_messages_of_errors_are_escaped_but_attributes_are_not() -> None:
    error = StoreError("db", HOSTILE)
    assert is_harmless(str(error).replace("\nERROR", ""))
    assert error.reason == HOSTILE
    assert str(HastenError("a\n\tb")) == "a\n\tb"
