"""How the command line writes its log: to standard error, a line each."""

from __future__ import annotations

import logging
from enum import StrEnum


class Level(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def set_up(level: Level) -> None:
    """Log to standard error. A module that sets up logging when it is imported may replace this."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-8s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])
