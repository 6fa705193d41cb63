"""Loggers with records that cannot control a terminal or forge lines of a log.

Errors, names and ids come from a store or from clients. Each logger of hasten escapes them before a
handler sees the record, whatever logging an application sets up. The attributes of a record
(`extra`) are not changed: they are for programs.
"""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Final

from hasten._escapes import printable

_INDENT: Final = "    "
_HEADING: Final = "Traceback (most recent call last):\n"

_loggers: Final[dict[str, logging.Logger]] = {}

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


def get_logger(name: str) -> logging.Logger:
    """Return the logger of this name. All loggers of hasten come from this function."""
    logger = logging.getLogger(name)
    _loggers[name] = logger
    if _escape not in logger.filters:
        logger.addFilter(_escape)
    return logger


def enable_loggers() -> None:
    """Enable loggers that `logging.config` has disabled. A worker does this when it starts.

    `dictConfig` and `fileConfig` disable all existing loggers, unless disable_existing_loggers is
    False: failed jobs would leave nothing in the log. To silence a logger, set its level.
    """
    for logger in _loggers.values():
        logger.disabled = False


def _escape(record: logging.LogRecord) -> bool:
    if isinstance(record.args, tuple):
        record.args = tuple(map(_printable_argument, record.args))
    # isinstance: exc_info is (None, None, None) where there is no exception.
    if isinstance(record.exc_info, tuple) and isinstance(record.exc_info[1], BaseException):
        with contextlib.suppress(
            Exception
        ):  # raised by methods of the exception; handlers report it
            plain, safe = _tracebacks(record.exc_info)
            if safe != plain:
                # Formatters use it instead of exc_info.
                record.exc_text = safe
    return True


def _printable_argument(argument: object) -> object:
    if not isinstance(argument, str | BaseException):
        return argument
    text = str(argument)
    safe = printable(text)
    return argument if safe == text else safe


def format_traceback(error: BaseException) -> str:
    """Return the traceback of an error, escaped so that its text cannot forge lines or frames."""
    return _tracebacks((type(error), error, error.__traceback__))[1]


def _tracebacks(exc_info: ExcInfo) -> tuple[str, str]:
    """Return the traceback as Python formats it, and its escaped form."""
    chunks = list(traceback.TracebackException(*exc_info).format())
    plain, safe = "".join(chunks), "".join(_printable_chunks(chunks))
    return plain.removesuffix("\n"), safe.removesuffix("\n")


def _printable_chunks(chunks: Iterable[str]) -> Iterator[str]:
    """Escape the chunks of a traceback: headings, frames, texts of exceptions, and notes.

    The further lines of a text and its notes are indented, so that none looks like a line of the
    log.
    """
    is_note = False
    for chunk in chunks:
        shown = printable(chunk, keep="\n\t")
        if chunk.startswith((" ", "\n")) or chunk == _HEADING:
            is_note = False
            yield shown
        else:
            indented = shown.removesuffix("\n").replace("\n", f"\n{_INDENT}")
            yield f"{_INDENT if is_note else ''}{indented}\n"
            is_note = True
