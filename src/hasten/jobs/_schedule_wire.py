"""The stored options of schedules and their jobs, as JSON in BullMQ's format.

The template of a schedule is the options of its jobs as JSON. `missed`, `overlap` and `jitter` are
in its member `hasten`, which BullMQ ignores, and copies to each job. A job of a schedule has the
options of the template, and the option `repeat` with the rule, from which the worker that claims
the job computes the next slot.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from hasten.jobs._encoding import UNDECODABLE
from hasten.jobs._epoch import to_datetime
from hasten.jobs._options import Options, encode_options
from hasten.jobs._record import JobRecord
from hasten.jobs._schedule_ids import split_job_id
from hasten.jobs._schedule_record import SchedulePolicy, ScheduleRule
from hasten.jobs._slot import Slot

# Options ------------------------------------------------------------------------------------------


def encode_template(options: Options, policy: SchedulePolicy) -> str:
    """Return the options of the jobs of a schedule as JSON."""
    wire = msgspec.json.decode(encode_options(options))
    ours = wire.setdefault("hasten", {})
    ours["schedule"] = {
        "missed": policy.missed, "overlap": policy.overlap, "jitter": policy.jitter_ms,
    }  # fmt: skip
    return msgspec.json.encode(wire).decode()


class _WirePolicy(msgspec.Struct):
    missed: Any = None
    overlap: Any = None
    jitter: Any = None


class _WireHastenOptions(msgspec.Struct):
    schedule: _WirePolicy | None = None
    slot: Any = None


class _WireOptions(msgspec.Struct):
    hasten: _WireHastenOptions = msgspec.field(default_factory=_WireHastenOptions)
    priority: Any = None
    lifo: Any = None


_decoder: Final = msgspec.json.Decoder(_WireOptions)
_policy: Final = SchedulePolicy()


def _decode_options(opts: str) -> _WireOptions:
    """Decode options that another program may have written. Wrong ones are treated as missing."""
    try:
        return _decoder.decode(opts)
    except UNDECODABLE:
        return _WireOptions()


def decode_policy(opts: str) -> SchedulePolicy | None:
    """Return the policy in the options of a schedule or its job; None if hasten did not store it.

    Values that are unknown, perhaps of a later version, are replaced by the defaults.
    """
    wire = _decode_options(opts).hasten.schedule
    if wire is None:
        return None
    try:
        return msgspec.convert(
            {"missed": wire.missed, "overlap": wire.overlap, "jitter_ms": wire.jitter},
            SchedulePolicy,
        )
    except msgspec.ValidationError:
        return SchedulePolicy()


def make_job_options(
    template: str,
    schedule: str,
    rule: ScheduleRule,
    *,
    job_id: str,
    slot_ms: int,
    delay_ms: int,
    now_ms: int,
    count: int,
) -> str:
    """Return the options of a job of a schedule as JSON.

    template is the JSON of `encode_template`. The job is added at now_ms and becomes due after
    delay_ms. count is the number of the run, from 1.
    """
    wire = _to_object(template)
    wire["repeat"] = encode_rule(rule) | {"count": count}
    wire |= {"jobId": job_id, "repeatJobKey": schedule, "timestamp": now_ms}
    if delay_ms:
        wire["delay"] = delay_ms
    if rule.cron is not None:
        wire["prevMillis"] = slot_ms
    return msgspec.json.encode(wire).decode()


def with_slot(opts: str, slot_ms: int, previous_ms: int | None, missed: int) -> str:
    """Return the options of a job with what its handler gets as `Slot`."""
    wire = _to_object(opts)
    ours = wire.get("hasten")
    slot = [slot_ms, previous_ms, missed]
    wire["hasten"] = {**(ours if isinstance(ours, dict) else {}), "slot": slot}
    return msgspec.json.encode(wire).decode()


def _to_object(text: str) -> dict[str, Any]:
    """Return the decoded JSON object; an empty one if the text is another value."""
    try:
        found = msgspec.json.decode(text)
    except UNDECODABLE:
        return {}
    return found if isinstance(found, dict) else {}


def slot_of(job: JobRecord) -> Slot:
    """Return the slot of a claimed job. Without a schedule, it is when the job was added."""
    slot = _decode_options(job.opts).hasten.slot
    planned_ms, previous_ms, missed = slot if _is_slot(slot) else (None, None, 0)
    of_schedule = split_job_id(job.id)
    if of_schedule is not None and of_schedule[1] != planned_ms:
        # A worker in another language has copied the options of the job before it.
        planned_ms, previous_ms, missed = of_schedule[1], None, 0
    if planned_ms is None:
        planned_ms = job.created_ms
    previous = None if previous_ms is None else to_datetime(previous_ms)
    return Slot(to_datetime(planned_ms), previous, missed)


def _is_slot(value: Any) -> bool:
    """Return whether a decoded value is [slot in ms, previous slot in ms or null, missed]."""
    if not isinstance(value, list) or len(value) != 3:
        return False
    planned, previous, missed = value
    return isinstance(planned, int) and isinstance(previous, int | None) and isinstance(missed, int)


# Rules --------------------------------------------------------------------------------------------

_RULE_FIELDS: Final = {
    "every_ms": "every", "cron": "pattern", "tz": "tz", "offset_ms": "offset",
    "start_ms": "startDate", "end_ms": "endDate", "limit": "limit",
}  # fmt: skip


def encode_rule(rule: ScheduleRule) -> dict[str, int | str]:
    """Return a rule with BullMQ's names, as in the option `repeat` and in the stored schedule."""
    values = ((wire, getattr(rule, field)) for field, wire in _RULE_FIELDS.items())
    return {wire: value for wire, value in values if value is not None}


def decode_rule(fields: Mapping[str, str]) -> ScheduleRule:
    """Return the rule of a schedule that is stored in Redis. Wrong values count as missing."""
    texts = {field: fields.get(wire) for field, wire in _RULE_FIELDS.items()}
    found: dict[str, Any] = {field: _to_number(text) for field, text in texts.items()}
    found |= {"cron": texts["cron"], "tz": texts["tz"]}
    if found["cron"] is not None:
        found |= {"every_ms": None, "offset_ms": None}
    return ScheduleRule(**found)


def _to_number(text: str | None) -> int | None:
    """Return a stored number, None if it is missing or none."""
    try:
        return None if text is None else int(float(text))
    except (ValueError, OverflowError):
        return None
