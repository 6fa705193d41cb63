"""Set up Django and close its old database connections, in processes without Django's web server.

Does nothing in programs without Django.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import sys
from typing import Any

from hasten._logs import get_logger

logger = get_logger("hasten.worker")


def settings_module() -> str | None:
    """Return DJANGO_SETTINGS_MODULE; None if Django is set up already or not installed."""
    name = os.environ.get("DJANGO_SETTINGS_MODULE")
    if not name or importlib.util.find_spec("django") is None:
        return None
    return None if importlib.import_module("django.apps").apps.ready else name


def set_up() -> None:
    """Call `django.setup()` if DJANGO_SETTINGS_MODULE is set. Safe to call twice.

    Raises whatever the settings and the applications raise when they are imported.
    """
    if settings_module() is None:
        return
    disabled = {name for name, found in _loggers() if found.disabled}
    importlib.import_module("django").setup()
    # Without disable_existing_loggers: False, LOGGING disables existing loggers that it does not
    # name. The loggers of hasten exist already, because this process has imported hasten first: the
    # worker would log nothing, and its user could not see why.
    for name, found in _loggers():
        found.disabled = name in disabled


def close_old_connections() -> None:
    """Close database connections of this thread that are broken or older than CONN_MAX_AGE.

    Django calls this before and after a request. Call it before and after a job, in its thread.
    """
    database: Any = sys.modules.get("django.db")
    if database is None or not sys.modules["django.conf"].settings.configured:
        return
    try:
        database.close_old_connections()
    except Exception as error:  # noqa: BLE001  # of any database driver
        logger.warning("Django could not close an old database connection: %r", error)


def _loggers() -> list[tuple[str, logging.Logger]]:
    return [
        (name, found)
        for name, found in logging.root.manager.loggerDict.items()
        if name.partition(".")[0] == "hasten" and isinstance(found, logging.Logger)
    ]
