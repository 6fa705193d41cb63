"""Decoding what is stored on Redis: job hashes, events and the replies of scripts.

Other languages and versions write to the same queues, so nothing here trusts what it reads.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

import msgspec

from hasten.jobs._encoding import UNDECODABLE
from hasten.jobs._engine import CANCELLED_ERROR
from hasten.jobs._options import MAX_COUNT, MAX_PRIORITY
from hasten.jobs._record import Event, JobRecord
from hasten.jobs._states import State

T = TypeVar("T")


def text(value: object) -> str:
    """Decode a text; bytes that are not UTF-8 are replaced."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def pair(flat: Sequence[object]) -> dict[str, str]:
    """Make a dict of the alternating fields and values of a Redis reply."""
    names, values = flat[::2], flat[1::2]
    return {text(name): text(value) for name, value in zip(names, values, strict=True)}


def whole(value: str | None, most: int = MAX_COUNT) -> int | None:
    """Return a number, limited to 0 to most; None if the text is not a number."""
    if value is None:
        return None
    try:
        number: float = int(value)
    except ValueError:
        try:
            number = float(value)
        except ValueError:
            return None
    return None if number != number else int(min(max(number, 0), most))  # noqa: PLR0124  # NaN


def job_record(
    queue: str, id: str, state: State, due_ms: int | None, fields: Mapping[str, str]
) -> JobRecord:
    """Make a record of a job hash. attemptsMade is an older name of atm that BullMQ reads first."""
    deferred = fields.get("defa")
    return JobRecord(
        queue=queue,
        id=id,
        name=fields.get("name", ""),
        data=fields.get("data", "{}"),
        opts=fields.get("opts", "{}"),
        state=state,
        priority=whole(fields.get("priority"), MAX_PRIORITY) or 0,
        delay_ms=whole(fields.get("delay")) or 0,
        created_ms=whole(fields.get("timestamp")) or 0,
        attempts_made=whole(fields.get("attemptsMade", fields.get("atm"))) or 0,
        attempts_started=whole(fields.get("ats")) or 0,
        crashes=whole(fields.get("stc")) or 0,
        deferred_failure=deferred,
        started_ms=whole(fields.get("processedOn")),
        worker=fields.get("pb"),
        progress=fields.get("progress"),
        error=fields.get("failedReason"),
        due_ms=due_ms,
        finished_ms=whole(fields.get("finishedOn")),
        result=fields.get("returnvalue"),
        tracebacks=_tracebacks(fields.get("stacktrace")),
        cancel_requested=deferred == CANCELLED_ERROR,
    )


def _tracebacks(stored: str | None) -> list[str]:
    if not stored:
        return []
    try:
        found = json.loads(stored)
    except UNDECODABLE:
        return []
    return [item for item in found if isinstance(item, str)] if isinstance(found, list) else []


# Events -----------------------------------------------------------------------------------------

_KNOWN: Final = frozenset({"event", "jobId", "returnvalue", "failedReason", "prev"})


def event(cursor: str, fields: Mapping[str, str]) -> Event:
    """Make an event of an entry of the stream. Unknown fields are in its details."""
    kind = fields.get("event", "")
    details = {name: value for name, value in fields.items() if name not in _KNOWN}
    due_ms = count = None
    value, error = fields.get("returnvalue"), fields.get("failedReason")
    match kind:
        case "progress":
            value = details.pop("data", None)
        case "delayed":
            due_ms = whole(details.pop("delay", None))
        case "cleaned":
            count = whole(details.pop("count", None))
    omitted_bytes = whole(details.pop("hasten:omitted", None))
    if omitted_bytes is not None:
        value = None
    previous = fields.get("prev")
    return Event(
        cursor=cursor,
        kind=kind,
        job_id=fields.get("jobId", ""),
        value=value,
        error=error,
        previous="waiting" if previous == "wait" else previous,
        due_ms=due_ms,
        count=count,
        omitted_bytes=omitted_bytes,
        details=details,
    )


def stream_id(cursor: str) -> tuple[int, int]:
    """Return the id of an event as numbers, which can be compared."""
    ms, _, number = cursor.partition("-")
    return int(ms), int(number)


def stream_id_before(cursor: str) -> str:
    """Return the id directly before another one: no event can be between them."""
    ms, number = stream_id(cursor)
    return f"{ms}-{number - 1}" if number else f"{ms - 1}-{2**64 - 1}"


# Replies of scripts -----------------------------------------------------------------------------


class AddReply(msgspec.Struct, array_like=True, gc=False):
    """The reply of `add`."""

    first: int
    existing: list[tuple[int, str, int | float | bool, list[str]]]
    cursor: str


class SettleReply(msgspec.Struct, array_like=True, gc=False):
    """The reply of `claim` and `settle`."""

    jobs: list[JobRecord]
    next_due_ms: int | float | bool
    lost: list[str]
    cron_jobs: list[tuple[str, str, str]]  # id, scheduler, options
    errors: list[tuple[str, str]]  # id of a job, and what failed
    skipped: list[str]  # ids of jobs that are left to workers with croniter


_settle_replies: Final = msgspec.msgpack.Decoder(SettleReply)
_add_replies: Final = msgspec.msgpack.Decoder(AddReply)


def decode_settled(packed: bytes) -> SettleReply:
    """Decode the reply of `claim` or `settle`."""
    return _decode(_settle_replies, packed)


def decode_added(packed: bytes) -> AddReply:
    """Decode the reply of `add`."""
    return _decode(_add_replies, packed)


def _decode(decoder: msgspec.msgpack.Decoder[T], packed: bytes) -> T:
    """Decode a reply. Bytes that are not UTF-8 are replaced."""
    try:
        return decoder.decode(packed)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, UnicodeDecodeError):
        return decoder.decode(_repair(packed))


def _repair(packed: bytes) -> bytes:
    """Return the same message with every text as valid UTF-8."""
    out = bytearray()
    at = 0
    while at < len(packed):
        head = packed[at]
        width = {0xD9: 1, 0xDA: 2, 0xDB: 4}.get(head, 0)
        if 0xA0 <= head <= 0xBF or width:
            size = head & 0x1F if not width else int.from_bytes(packed[at + 1 : at + 1 + width])
            start = at + 1 + width
            whole_text = packed[start : start + size].decode(errors="replace")
            out += msgspec.msgpack.encode(whole_text)
            at = start + size
        else:
            size = 1 + _SIZES.get(head, 0)
            out += packed[at : at + size]
            at += size
    return bytes(out)


# How many bytes follow a head that is neither a text nor a small number or container.
_SIZES: Final = {
    0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8,
    0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4,
}  # fmt: skip
