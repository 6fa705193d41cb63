"""Decoding of data from Redis: job hashes, events and the replies of scripts.

Programs in other languages, and other versions of hasten and BullMQ, write to the same queues.
Missing, unknown and malformed values must therefore not raise here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

import msgspec

from hasten.jobs._encoding import UNDECODABLE
from hasten.jobs._engine import CANCELLED_ERROR
from hasten.jobs._options import MAX_COUNT, MAX_PRIORITY
from hasten.jobs._record import Event, JobRecord, ParentLink
from hasten.jobs._states import State

T = TypeVar("T")


def decode_text(value: object) -> str:
    """Return bytes decoded as UTF-8, with invalid bytes replaced; any other value as a string."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def to_dict(flat: Sequence[object]) -> dict[str, str]:
    """Convert a reply of alternating fields and values, such as that of HGETALL, to a dict."""
    names, values = flat[::2], flat[1::2]
    return {
        decode_text(name): decode_text(value) for name, value in zip(names, values, strict=True)
    }


def parse_and_clamp_count(value: str | None, most: int = MAX_COUNT) -> int | None:
    """Convert a stored number to an int between 0 and most; None if it is not a number."""
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


def to_job_record(
    queue: str,
    id: str,
    state: State,
    due_ms: int | None,
    fields: Mapping[str, str],
    parent: ParentLink | None = None,
) -> JobRecord:
    """Convert the hash of a job, in BullMQ's layout, to a record. parent is its decoded parent.

    If the hash has both atm and its older name attemptsMade, the older one counts, as in BullMQ.
    """
    deferred = fields.get("defa")
    return JobRecord(
        queue=queue,
        id=id,
        name=fields.get("name", ""),
        data=fields.get("data", "{}"),
        opts=fields.get("opts", "{}"),
        state=state,
        priority=parse_and_clamp_count(fields.get("priority"), MAX_PRIORITY) or 0,
        delay_ms=parse_and_clamp_count(fields.get("delay")) or 0,
        created_ms=parse_and_clamp_count(fields.get("timestamp")) or 0,
        attempts_made=parse_and_clamp_count(fields.get("attemptsMade", fields.get("atm"))) or 0,
        attempts_started=parse_and_clamp_count(fields.get("ats")) or 0,
        crashes=parse_and_clamp_count(fields.get("stc")) or 0,
        deferred_failure=deferred,
        started_ms=parse_and_clamp_count(fields.get("processedOn")),
        worker=fields.get("pb"),
        progress=fields.get("progress"),
        error=fields.get("failedReason"),
        due_ms=due_ms,
        finished_ms=parse_and_clamp_count(fields.get("finishedOn")),
        result=fields.get("returnvalue"),
        tracebacks=_decode_tracebacks(fields.get("stacktrace")),
        cancel_requested=deferred == CANCELLED_ERROR,
        parent=parent,
    )


def _decode_tracebacks(stored: str | None) -> list[str]:
    """Decode the field stacktrace, a JSON array. Returns an empty list if it cannot be decoded."""
    if not stored:
        return []
    try:
        found = json.loads(stored)
    except UNDECODABLE:
        return []
    return [item for item in found if isinstance(item, str)] if isinstance(found, list) else []


# Events -----------------------------------------------------------------------------------------

_KNOWN: Final = frozenset({"event", "jobId", "returnvalue", "failedReason", "prev"})


def to_event(cursor: str, fields: Mapping[str, str]) -> Event:
    """Convert an entry of the event stream to an event. Unknown fields go into `details`.

    cursor is the id of the entry.
    """
    kind = fields.get("event", "")
    details = {name: value for name, value in fields.items() if name not in _KNOWN}
    due_ms = count = None
    value, error = fields.get("returnvalue"), fields.get("failedReason")
    match kind:
        case "progress":
            value = details.pop("data", None)
        case "delayed":
            due_ms = parse_and_clamp_count(details.pop("delay", None))
        case "cleaned":
            count = parse_and_clamp_count(details.pop("count", None))
    omitted_bytes = parse_and_clamp_count(details.pop("hasten:omitted", None))
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


def parse_stream_id(cursor: str) -> tuple[int, int]:
    """Split the id of a stream entry into its time in ms and its number, which can be compared."""
    ms, _, number = cursor.partition("-")
    return int(ms), int(number)


def stream_id_before(cursor: str) -> str:
    """Return the largest stream id that is smaller than this one."""
    ms, number = parse_stream_id(cursor)
    return f"{ms}-{number - 1}" if number else f"{ms - 1}-{2**64 - 1}"


# Replies of scripts -----------------------------------------------------------------------------


class AddReply(msgspec.Struct, array_like=True, gc=False):
    """The reply of the script `add`; see the head of `lua/add.lua`."""

    first: int  # the number of the first job: the id of a job that was added without an id
    duplicates: list[tuple[int, str]]  # place in the call, from 1, and id of the existing job
    existing: list[tuple[str, str, int | float | bool, list[str]]]  # id, state, due, fields
    cursor: str


class SettleReply(msgspec.Struct, array_like=True, gc=False):
    """The reply of the scripts `claim` and `settle`; see the head of `lua/settle.lua`."""

    jobs: list[JobRecord]
    next_due_ms: int | float | bool  # False if no job is delayed
    lost: list[str]  # ids of jobs whose lease is lost
    cron_jobs: list[tuple[str, str, str]]  # claimed jobs of schedulers: id, scheduler, options
    errors: list[tuple[str, str]]  # id of a job, and the error in an update of related jobs
    skipped: list[str]  # ids of jobs that only a worker with croniter can run
    taken_key: str = ""  # the key of a child that cannot be added; nothing was changed then


class FlowReply(msgspec.Struct, array_like=True, gc=False):
    """The reply of the script `add_flow`; see the head of `lua/add_flow.lua`."""

    cursors: dict[str, str] | bool  # by the beginning of a queue's keys; False if nothing was added
    # Why nothing was added: the beginning of a queue's keys and an id that exists in it, or the key
    # of a parent and its state, False if it does not exist.
    refused_key: str = ""
    refused_for: str | bool = ""


_settle_replies: Final = msgspec.msgpack.Decoder(SettleReply)
_flow_replies: Final = msgspec.msgpack.Decoder(FlowReply)
_add_replies: Final = msgspec.msgpack.Decoder(AddReply)


def decode_settle_reply(packed: bytes) -> SettleReply:
    """Decode the packed reply of the script `claim` or `settle`."""
    return _decode_reply(_settle_replies, packed)


def decode_add_reply(packed: bytes) -> AddReply:
    """Decode the packed reply of the script `add`."""
    return _decode_reply(_add_replies, packed)


def decode_flow_reply(packed: bytes) -> FlowReply:
    """Decode the packed reply of the script `add_flow`."""
    return _decode_reply(_flow_replies, packed)


def _decode_reply(decoder: msgspec.msgpack.Decoder[T], packed: bytes) -> T:
    """Decode a MessagePack reply. If it has strings that are not UTF-8, they are repaired first."""
    try:
        return decoder.decode(packed)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, UnicodeDecodeError):
        return decoder.decode(_repair_utf8(packed))


def _repair_utf8(packed: bytes) -> bytes:
    """Return a MessagePack message with invalid bytes in its strings replaced."""
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


# How many bytes follow the first byte of a number or the header of a container. Values with other
# first bytes, except strings, are that byte alone.
_SIZES: Final = {
    0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8,
    0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4,
}  # fmt: skip
