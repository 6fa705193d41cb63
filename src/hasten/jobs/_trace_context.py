"""The trace context that is stored with a job, for spans in other processes and languages.

It is BullMQ's option ``tm``: a string with a JSON object, the headers of W3C Trace Context. Node's
``bullmq-otel`` uses it, too.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

# A stored context that is longer is ignored: other programs can write anything.
MAX_CONTEXT: Final = 8_192

# The key is always the last one, so that the rest of the options can be separated without decoding:
# it is the same for all jobs of a task.
_KEY: Final = ',"tm":'
_STRING_AND_END: Final = re.compile(r'"(?:[^"\\]|\\.)*"\}')


def add_context(opts: str, context: str) -> str:
    """Return the options of a job with a trace context.

    opts is a JSON object that is not empty.
    """
    return f"{opts[:-1]}{_KEY}{msgspec.json.encode(context).decode()}}}"


def split_context(opts: str) -> tuple[str, str | None]:
    """Return the options of a job without the trace context that `add_context` added, and it."""
    if _KEY not in opts:
        return opts, None
    rest, _, context = opts.rpartition(_KEY)
    if not _STRING_AND_END.fullmatch(context):
        return opts, None
    return f"{rest}}}", context[:-1]


def read_context(opts: str) -> str | None:
    """Return the trace context in the options of a job, None if there is none."""
    if '"tm"' not in opts:
        return None
    try:
        decoded = _decoder.decode(opts)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return None if decoded.omc is True or len(decoded.tm) > MAX_CONTEXT else decoded.tm or None


class _WireTrace(msgspec.Struct):
    tm: str = ""
    omc: bool | None = None  # BullMQ's option omitContext


_decoder: Final = msgspec.json.Decoder(_WireTrace)
