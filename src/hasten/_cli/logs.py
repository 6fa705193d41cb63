"""Set up the log of the command line: lines on standard error."""

from __future__ import annotations

import logging
from enum import StrEnum


class Level(StrEnum):
    """The lowest level to log."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def set_up(level: Level) -> None:
    """Log to standard error. A module of the application may set up logging again."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-8s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])
