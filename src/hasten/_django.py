"""Prepare Django for workers: set it up, and close its old database connections.

Django's web server does both by itself. The functions do nothing in programs without Django.
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


def get_pending_settings_module() -> str | None:
    """Return the name of the settings module that `set_up` would use: DJANGO_SETTINGS_MODULE.

    Returns None if it is not set, or if Django is not installed or is set up already.
    """
    name = os.environ.get("DJANGO_SETTINGS_MODULE")
    if not name or importlib.util.find_spec("django") is None:
        return None
    return None if importlib.import_module("django.apps").apps.ready else name


def set_up() -> None:
    """Call `django.setup()` if DJANGO_SETTINGS_MODULE is set. Safe to call twice.

    An exception that the settings or an application raise while they are imported is not caught.
    """
    if get_pending_settings_module() is None:
        return
    disabled = {name for name, found in _get_hasten_loggers() if found.disabled}
    importlib.import_module("django").setup()
    # By default, Django's LOGGING setting disables all existing loggers that it does not name.
    # Unlike in a web server, hasten was imported before Django was set up, so its loggers exist.
    # Enable them again: otherwise the worker would log nothing, and the user could not see why.
    for name, found in _get_hasten_loggers():
        found.disabled = name in disabled


def close_old_connections() -> None:
    """Close database connections of this thread that are broken or older than CONN_MAX_AGE.

    Django's web server does this before and after each request. A worker calls this function before
    and after each job, in the thread of the job.
    """
    database: Any = sys.modules.get("django.db")
    if database is None or not sys.modules["django.conf"].settings.configured:
        return
    try:
        database.close_old_connections()
    except Exception as error:  # noqa: BLE001  # any error of a database driver
        logger.warning("Django could not close an old database connection: %r", error)


def _get_hasten_loggers() -> list[tuple[str, logging.Logger]]:
    """Return the existing loggers of hasten, each with its name."""
    return [
        (name, found)
        for name, found in logging.root.manager.loggerDict.items()
        if name.partition(".")[0] == "hasten" and isinstance(found, logging.Logger)
    ]
