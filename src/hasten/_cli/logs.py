"""Set up logging for the command line: lines on standard error."""

from __future__ import annotations

import logging
from enum import StrEnum


class Level(StrEnum):
    """The values of --log-level: the lowest level of log messages to print."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def set_up(level: Level) -> None:
    """Log messages of this level and above to standard error.

    The modules of the application are imported afterwards, and can change this configuration.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-8s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])
