"""Loggers whose messages cannot control a terminal or forge lines of a log.

Log messages contain errors, names and ids that come from a store or from clients. A filter on each
logger of hasten escapes them, so that this works with every logging configuration. Attributes that
are passed as `extra` are not escaped, because programs read them.
"""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Final

from hasten._escapes import escape_unprintable

_INDENT: Final = "    "
_HEADING: Final = "Traceback (most recent call last):\n"

_loggers: Final[dict[str, logging.Logger]] = {}

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


def get_logger(name: str) -> logging.Logger:
    """Return the logger of this name, with the filter that escapes its records."""
    logger = logging.getLogger(name)
    _loggers[name] = logger
    if _escape_record_filter not in logger.filters:
        logger.addFilter(_escape_record_filter)
    return logger


def reenable_disabled_loggers() -> None:
    """Enable loggers that `logging.config` has disabled. A worker does this when it starts.

    `dictConfig` and `fileConfig` disable all existing loggers, unless disable_existing_loggers is
    False: failed jobs would leave nothing in the log. To silence a logger, set its level.
    """
    for logger in _loggers.values():
        logger.disabled = False


def _escape_record_filter(record: logging.LogRecord) -> bool:
    """Escape the arguments and the traceback of a log record. Returns True: a filter keeps it."""
    if isinstance(record.args, tuple):
        record.args = tuple(map(_escape_argument, record.args))
    # exc_info is (None, None, None) if exc_info=True was passed outside of an except block.
    if isinstance(record.exc_info, tuple) and isinstance(record.exc_info[1], BaseException):
        # A faulty method of the exception, such as __str__, may raise an error here. The logging
        # handler formats the exception again, and reports this error.
        with contextlib.suppress(Exception):
            plain, safe = _format_traceback_plain_and_escaped(record.exc_info)
            if safe != plain:
                record.exc_text = safe  # formatters print this instead of exc_info
    return True


def _escape_argument(argument: object) -> object:
    """Return the escaped text of a string or an exception if it needs escaping.

    Any other argument is returned unchanged.
    """
    if not isinstance(argument, str | BaseException):
        return argument
    text = str(argument)
    safe = escape_unprintable(text)
    return argument if safe == text else safe


def format_traceback(error: BaseException) -> str:
    """Return the traceback of an error, with its message escaped so that it cannot forge frames."""
    return _format_traceback_plain_and_escaped((type(error), error, error.__traceback__))[1]


def _format_traceback_plain_and_escaped(exc_info: ExcInfo) -> tuple[str, str]:
    """Return the traceback as Python formats it, and the same text escaped."""
    chunks = list(traceback.TracebackException(*exc_info).format())
    plain, safe = "".join(chunks), "".join(_escape_chunks(chunks))
    return plain.removesuffix("\n"), safe.removesuffix("\n")


def _escape_chunks(chunks: Iterable[str]) -> Iterator[str]:
    """Escape the chunks of a formatted traceback: headings, frames, exception messages and notes.

    All lines of a message but the first, and all notes, are indented, so that none of them looks
    like a new line of the log.
    """
    is_note = False
    for chunk in chunks:
        shown = escape_unprintable(chunk, keep="\n\t")
        if chunk.startswith((" ", "\n")) or chunk == _HEADING:
            is_note = False
            yield shown
        else:
            indented = shown.removesuffix("\n").replace("\n", f"\n{_INDENT}")
            yield f"{_INDENT if is_note else ''}{indented}\n"
            is_note = True
