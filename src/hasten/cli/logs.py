"""How the command line writes its log: to standard error, a line each."""

from __future__ import annotations

import logging
from enum import StrEnum

from hasten.cli.escapes import printable


class Level(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def set_up(level: Level) -> None:
    """Log to standard error. A module that sets up logging when it is imported may replace this."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)-8s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])


class _Formatter(logging.Formatter):
    """Escapes control characters in what hasten logs: reasons and names come from a store.

    An application may colour its own messages.
    """

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return printable(text, keep="\n\t") if record.name.startswith("hasten.") else text
