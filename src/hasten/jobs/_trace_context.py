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

# The end of the options of a job whose context has only the version 00 of `traceparent`.
_TRACE_PARENT_END: Final = re.compile(
    r',"tm":"\{\\"traceparent\\":\\"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})\\"\}"\}'
)
_TRACE_PARENT_LENGTH: Final = len(',"tm":"{' + r"\"traceparent\":\"00---\"" + '}"}') + 32 + 16 + 2


def add_context(opts: str, context: str) -> str:
    """Return the options of a job with a trace context.

    opts is a JSON object that is not empty.
    """
    return f"{opts[:-1]}{_KEY}{msgspec.json.encode(context).decode()}}}"


def add_trace_parent(opts: str, trace_id: int, span_id: int, flags: int) -> str:
    """Return the options of a job with a trace context that has only a trace parent.

    This is what `add_context` returns for the JSON object with this header.
    """
    header = f"00-{trace_id:032x}-{span_id:016x}-{flags:02x}"
    return f'{opts[:-1]}{_KEY}"{{\\"traceparent\\":\\"{header}\\"}}"}}'


def read_trace_parent(opts: str) -> tuple[int, int, int] | None:
    """Return the trace id, span id and flags that `add_trace_parent` has added.

    None if there are none, or if there is another context: `read_context` reads each.
    """
    match = _TRACE_PARENT_END.fullmatch(opts, len(opts) - _TRACE_PARENT_LENGTH)
    if match is None or '"omc"' in opts:
        return None
    trace_id, span_id, flags = match.groups()
    return int(trace_id, 16), int(span_id, 16), int(flags, 16)


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
