"""Set up logging for the command line: lines on standard error, as text or as JSON."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

import msgspec

from hasten._escapes import escape_unprintable
from hasten.jobs import JobLogFilter
from hasten.jobs._job_log_filter import ATTRIBUTES

# The attributes of every record. What else a record has is from `extra=` or from `JobLogFilter`.
_STANDARD: Final = {
    *logging.LogRecord("", logging.INFO, "", 0, "", (), None).__dict__,
    *("message", "asctime", "taskName"),
}


class Level(StrEnum):
    """The values of --log-level: the lowest level of log messages to print."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Format(StrEnum):
    """How log records are written."""

    TEXT = "text"
    JSON = "json"


def set_up(level: Level, format: Format = Format.TEXT) -> None:  # noqa: A002  # as in logging
    """Log messages of this level and above to standard error.

    The modules of the application are imported afterwards, and can change this configuration.
    """
    handler = logging.StreamHandler()
    handler.addFilter(JobLogFilter(default=None))
    handler.setFormatter(JsonFormatter() if format is Format.JSON else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])


class TextFormatter(logging.Formatter):
    """Formats a record as one line. Records of a task function end with the job that it runs."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-8s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the name in logging
        """Return the line, without a traceback."""
        line = super().formatMessage(record)
        facts = [record.__dict__.get(name) for name in ATTRIBUTES]
        if None in facts or record.name.startswith("hasten."):
            return line  # hasten's own messages name the job
        queue, task, id, attempt = (escape_unprintable(str(fact)) for fact in facts)
        return f"{line} [{queue} {task} {id} #{attempt}]"


class JsonFormatter(logging.Formatter):
    """Formats a record as a JSON object on one line, with all its `extra` attributes."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in record.__dict__.items():
            if name not in _STANDARD and value is not None:
                line.setdefault(name, value)
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            line["exception"] = record.exc_text
        if record.stack_info:
            line["stack"] = record.stack_info
        try:
            return msgspec.json.encode(line, enc_hook=str).decode()
        except Exception:  # noqa: BLE001  # of a value: not Unicode, too deep, a faulty method, …
            return msgspec.json.encode({name: _to_ascii_text(line[name]) for name in line}).decode()


def _to_ascii_text(value: object) -> str:
    try:
        return ascii(value)[1:-1] if isinstance(value, str) else ascii(value)
    except Exception:  # noqa: BLE001  # a faulty method of the object
        return f"<{type(value).__name__} that cannot be printed>"
