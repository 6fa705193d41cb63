"""`Schedules`: store, change, list and delete the schedules of a queue."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from msgspec import structs

from hasten import _portal
from hasten._checks import check_whole_number
from hasten._clock import Clock
from hasten._durations import Duration, to_nearest_ms
from hasten.errors import InvalidOption, JobNotFound, ScheduleNotFound, UsageError
from hasten.jobs import _cron as cron_patterns
from hasten.jobs._encoding import UNDECODABLE, decode_json
from hasten.jobs._engine import Engine
from hasten.jobs._epoch import to_datetime
from hasten.jobs._flow import Arguments
from hasten.jobs._job import Job
from hasten.jobs._options import MAX_COUNT, JobOptions, Options, check_name
from hasten.jobs._schedule_options import (
    check_id,
    check_new_id,
    check_template_options,
    make_policy,
    make_rule,
    reject_deduplication,
)
from hasten.jobs._schedule_record import Missed, NewSchedule, Overlap, ScheduleRecord
from hasten.jobs._schedule_times import next_slot_ms, plan_slot, with_offset
from hasten.jobs._task_definition import TaskDefinition
from hasten.jobs._tasks import Enqueuer, Task

MAX_PREVIEWED: Final = 10_000
LISTED_AT_ONCE: Final = 100
"""How many schedules one call of the store reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A stored schedule, as it was when it was read. Times are in UTC.

    - id: the id of the schedule.
    - task: the name of the task that it runs.
    - arguments: the arguments by parameter name; the raw text if it cannot be decoded.
    - every: the interval, None for a cron pattern.
    - cron, tz: the pattern and its time zone, None for an interval. In a schedule of Node without a
      time zone, tz is None: each worker uses the time zone of its machine.
    - offset: how long after each multiple of the interval, since 1970, the slots are.
    - limit: the largest number of runs, None if there is none.
    - start, end: no slot is before the start or after the end.
    - missed, overlap, jitter: see `Schedules.upsert`.
    - next: the next slot; None if the schedule is paused, has ended or is broken. It is in the past
      while the job waits for a worker.
    - previous: the slot of the latest run that has started, None if none has.
    - count: how many jobs the schedule has added, including that of the next slot.
    - dropped: how many slots got no run because of `missed` or `overlap`.
    - is_held: the job of the next slot waits until an earlier run ends (overlap="queue").
    - is_paused, has_ended: whether the schedule is paused, or adds no more jobs.
    - is_broken: the job of the next slot was lost, for instance deleted by another program. Store
      the schedule again with `upsert`; a worker does this when it starts, for declared schedules.
    - is_declared: the schedule was declared by `Queue.cron` or `Queue.every`.
    - no_longer_declared: it was, but the code of this queue object does not declare it now.
      `Schedules.prune` deletes it. False if this queue object has no tasks.
    - due: when the job of the next slot can start, later than the slot with jitter. None if it has
      started or is held.
    """

    id: str
    task: str
    arguments: Any
    every: timedelta | None
    cron: str | None
    tz: str | None
    offset: timedelta | None
    limit: int | None
    start: datetime | None
    end: datetime | None
    missed: Missed
    overlap: Overlap
    jitter: timedelta
    next: datetime | None
    previous: datetime | None
    count: int
    dropped: int
    is_held: bool
    is_paused: bool
    has_ended: bool
    is_broken: bool
    is_declared: bool
    no_longer_declared: bool
    due: datetime | None

    def late_by(self, now: datetime) -> timedelta | None:
        """Return for how long the job of the next slot has been due; None if it is not due.

        now is the current time, with a time zone.
        """
        return None if self.due is None or now <= self.due else now - self.due


@dataclass(frozen=True, slots=True)
class Declaration:
    """A schedule that `Queue.cron` or `Queue.every` declares. options are those of `upsert`."""

    id: str
    task: Enqueuer[Any, Any]
    options: Mapping[str, Any]

    def check_times(self, now_ms: int) -> None:
        """Check when it is due, and what happens with missed slots. Raises `InvalidOption`."""
        names = ("every", "cron", "tz", "offset", "limit", "start", "end")
        times = {name: self.options.get(name) for name in names}
        rule = make_rule(now_ms, **times)
        options = self.options
        make_policy(rule, options["missed"], options["overlap"], options["jitter"])


class ScheduledQueue(Protocol):
    """The attributes and methods of `Queue` that schedules use."""

    name: str
    tasks: dict[str, TaskDefinition]

    @property
    def clock(self) -> Clock: ...
    @property
    def engine(self) -> Engine: ...

    async def get(self, id: str) -> Job[Any] | None: ...

    def prepare_template(
        self, task: str, data: object, options: Mapping[str, Any]
    ) -> tuple[str, Options]: ...


class Schedules:
    """The schedules of a queue: `queue.schedules`.

    A schedule adds jobs at fixed times, its *slots*. The workers of the queue do that, also workers
    in other languages: BullMQ calls it a job scheduler. Each slot gets one job, whatever the number
    of workers. No job is added while no worker runs: the next worker then does what the option
    `missed` says.
    """

    def __init__(self, queue: ScheduledQueue) -> None:
        self._queue = queue
        self.declared: dict[str, Declaration] = {}

    def __repr__(self) -> str:
        return f"<Schedules of {self._queue.name}>"

    async def upsert(
        self,
        id: str,
        task: str | Enqueuer[Any, Any],
        *,
        every: Duration | None = None,
        cron: str | None = None,
        tz: str | None = None,
        offset: Duration | None = None,
        limit: int | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        jitter: Duration = 0,
        arguments: Mapping[str, Any] | Arguments[Any, Any] | None = None,
        options: JobOptions | None = None,
        missed: Missed = "last",
        overlap: Overlap = "allow",
    ) -> Schedule:
        """Store a schedule, or change the one with this id. Returns it.

        A call that changes nothing has no effect, so every process may make it at every start. If
        the times change, the next slot is computed anew. Other changes apply to the job of the next
        slot, too. The number of runs is kept, and a paused schedule stays paused.

        - id: the id of the schedule, unique in the queue.
        - task: the task to run, or its name.
        - every: the interval between slots, at least 1 second. Without offset and start, the first
          slot is now.
        - cron: a pattern with five fields, or six with the seconds first, instead of an interval.
          Needs the extra `hasten[schedules]`.
        - tz: the time zone of the cron pattern, an IANA name such as "Europe/Madrid". The default
          is "UTC".
        - offset: how long after each multiple of the interval (since 1970, in UTC) the slots are.
        - limit: the largest number of runs, over the whole life of the schedule.
        - start, end: no slot is before start or after end. The slots of an interval without offset
          begin at start. Of a schedule that is stored already, a start in the past moves no slot.
        - jitter: delay each job after its slot by a different time, up to this one, so that many
          schedules do not start their jobs at once. It must be shorter than the interval.
        - arguments: the arguments of the task, as a dict by parameter name or from `task.args(…)`.
        - options: the options of the jobs, such as `{"attempts": 3}`: all of `JobOptions` except
          delay, at and job_id.
        - missed: what happens with slots that pass while no worker starts their jobs. "last": one
          late run stands for all of them. "skip": they get no run, the next run is on time. "all":
          each gets a run, but at most 1,000 in a row.
        - overlap: what happens at a slot while an earlier run of the schedule has not finished.
          "allow": both run. "skip": the slot gets no run. "queue": its run starts when the earlier
          one has finished.

        Workers in Node ignore missed, overlap and jitter. Raises `InvalidOption`, `InvalidArgument`
        and `StoreError`.
        """
        new = self._make_schedule(
            id, task, every=every, cron=cron, tz=tz, offset=offset, limit=limit, start=start,
            end=end, jitter=jitter, arguments=arguments, options=options, missed=missed,
            overlap=overlap,
        )  # fmt: skip
        stored = await self._store(new)
        if stored is None:
            raise InvalidOption("end", end, "later than the next slot of the schedule")
        return self._to_schedule(stored)

    async def get(self, id: str) -> Schedule | None:
        """Return the schedule with this id, None if there is none."""
        (record,) = await self._queue.engine.get_schedules(self._queue.name, [check_id(id)])
        return None if record is None else self._to_schedule(record)

    async def list(self, *, offset: int = 0, limit: int = 100) -> builtins.list[Schedule]:
        """Return a page of the schedules, by their next slot, the paused ones last.

        offset is how many schedules to skip, limit how many to return at most.
        """
        records = await self._queue.engine.list_schedules(
            self._queue.name,
            offset=check_whole_number("offset", offset, 0, MAX_COUNT),
            limit=check_whole_number("limit", limit, 0, MAX_COUNT),
        )
        return [self._to_schedule(record) for record in records]

    async def late(self, by: Duration = "1m", *, limit: int = 100) -> builtins.list[Schedule]:
        """Return the schedules whose next slot has been over for this time without a start.

        Broken schedules are included. The latest come first, at most limit of them. The call is
        cheap, whatever the number of schedules.
        """
        before_ms = self._queue.clock.now_ms() - to_nearest_ms("by", by)
        records = await self._queue.engine.late_schedules(
            self._queue.name,
            before_ms=before_ms,
            limit=check_whole_number("limit", limit, 0, MAX_COUNT),
        )
        return [self._to_schedule(record) for record in records]

    async def pause(self, id: str) -> None:
        """Keep a schedule from adding jobs until `resume`. Jobs that have started continue.

        Raises `ScheduleNotFound`. Safe to call twice.
        """
        now_ms = self._queue.clock.now_ms()
        if not await self._queue.engine.pause_schedule(
            self._queue.name, check_id(id), now_ms=now_ms
        ):
            raise ScheduleNotFound(self._queue.name, id)

    async def resume(self, id: str) -> None:
        """End a pause. The next slot is the first one after now: slots of the pause get no runs.

        Raises `ScheduleNotFound`. Safe to call twice.
        """
        now_ms = self._queue.clock.now_ms()
        if not await self._queue.engine.resume_schedule(
            self._queue.name, check_id(id), now_ms=now_ms
        ):
            raise ScheduleNotFound(self._queue.name, id)

    async def run_now(self, id: str) -> Job[Any]:
        """Add a job of a schedule that runs at once, also if the schedule is paused or has ended.

        The slots and the limit of the schedule are not affected. With overlap="skip" or "queue",
        the next slot also takes this run into account. Raises `ScheduleNotFound`.
        """
        now_ms = self._queue.clock.now_ms()
        job_id = await self._queue.engine.run_schedule(
            self._queue.name, check_id(id), now_ms=now_ms
        )
        if job_id is None:
            raise ScheduleNotFound(self._queue.name, id)
        job = await self._queue.get(job_id)
        if job is None:
            raise JobNotFound(self._queue.name, job_id, "it has run and was deleted already")
        return job

    async def preview(self, id: str, count: int = 10) -> builtins.list[datetime]:
        """Return the next slots of a schedule in the time zone of the schedule, at most count.

        The first one is the slot of the pending job. For a paused schedule, they are those it would
        have if it was resumed now. Raises `ScheduleNotFound`.
        """
        check_whole_number("count", count, 0, MAX_PREVIEWED)
        (record,) = await self._queue.engine.get_schedules(self._queue.name, [check_id(id)])
        if record is None:
            raise ScheduleNotFound(self._queue.name, id)
        return _preview(record, count, self._queue.clock.now_ms())

    async def remove(self, *ids: str) -> builtins.list[str]:
        """Delete schedules and the jobs of their next slots. Returns the ids that existed.

        Jobs that have started, or are ready to start, are kept.
        """
        chosen = builtins.list(dict.fromkeys(map(check_id, ids)))
        now_ms = self._queue.clock.now_ms()
        removed = await self._queue.engine.remove_schedules(self._queue.name, chosen, now_ms=now_ms)
        return [id for id, existed in zip(chosen, removed, strict=True) if existed]

    async def prune(self) -> builtins.list[str]:
        """Delete the schedules that were declared once, and no longer are. Returns their ids.

        The schedules that this queue object declares are kept, and so are all that `upsert` has
        stored. Raises `UsageError` if this queue object has no tasks: then the modules that declare
        the schedules have not been imported.
        """
        if not self._queue.tasks:
            raise UsageError(
                f"queue {self._queue.name!r} has no tasks in this process, so all of its declared "
                "schedules would be deleted: import the modules that define its tasks first"
            )
        pruned: builtins.list[str] = []
        offset = 0
        while page := await self.list(offset=offset, limit=LISTED_AT_ONCE):
            gone = [schedule.id for schedule in page if schedule.no_longer_declared]
            if gone:
                pruned += await self.remove(*gone)
            offset += len(page) - len(gone)
        return pruned

    # Declared schedules -------------------------------------------------------------------------

    def declare(self, declaration: Declaration) -> None:
        """Remember a schedule that a decorator declares. Raises `InvalidOption` if it is invalid.

        It is stored when a worker starts.
        """
        self._check_unique(declaration)
        self.declared[declaration.id] = declaration
        if declaration.options.get("cron") is None or cron_patterns.is_croniter_installed():
            declaration.check_times(self._queue.clock.now_ms())

    def _check_unique(self, new: Declaration) -> None:
        other = self.declared.get(new.id)
        # A module that is loaded again makes new tasks, whose declarations replace the old ones.
        if other is not None and other.task.definition.name == new.task.definition.name:
            if other.task.definition is not new.task.definition:
                return
        elif other is None:
            return
        raise InvalidOption(
            "id", new.id, f"unique in queue {self._queue.name!r}, but task "
            f"{other.task.definition.name!r} has a schedule with this id: set another one with id=",
            code="duplicate",
        )  # fmt: skip

    def check_declared(self) -> None:
        """Check the declared schedules with their arguments. Called when a worker starts."""
        for declaration in self.declared.values():
            self._make_schedule(declaration.id, declaration.task, **declaration.options)

    def make_declared(self, declaration: Declaration) -> NewSchedule:
        """Return a declared schedule to store. A worker stores it when it starts."""
        new = self._make_schedule(declaration.id, declaration.task, **declaration.options)
        return structs.replace(new, is_declared=True)

    # Helpers ------------------------------------------------------------------------------------

    async def _store(self, new: NewSchedule) -> ScheduleRecord | None:
        now_ms = self._queue.clock.now_ms()
        return await self._queue.engine.upsert_schedule(self._queue.name, new, now_ms=now_ms)

    def _make_schedule(
        self,
        id: str,
        task: object,
        *,
        arguments: object = None,
        options: object = None,
        missed: object = "last",
        overlap: object = "allow",
        jitter: Duration = 0,
        **times: Any,
    ) -> NewSchedule:
        """Validate a schedule. Raises `InvalidOption` and `InvalidArgument`."""
        check_new_id(id)
        rule = make_rule(self._queue.clock.now_ms(), **times)
        policy = make_policy(rule, missed, overlap, jitter)
        name = _name_of(task, self._queue)
        data = arguments.by_name if isinstance(arguments, Arguments) else arguments
        if options is not None and not isinstance(options, Mapping):
            raise InvalidOption("options", options, "a dict of options of the jobs")
        given = check_template_options(options or {})
        text, checked = self._queue.prepare_template(name, data, given)
        reject_deduplication(name, checked)
        return NewSchedule(id, rule, policy, name, text, checked)

    def _to_schedule(self, record: ScheduleRecord) -> Schedule:
        rule, policy = record.rule, record.policy
        is_waiting = record.is_pending and not record.is_held
        is_due = is_waiting or record.is_broken or record.is_abandoned
        due_ms = max(record.slot_ms or 0, record.due_ms or 0) if is_due else None
        shows_next = record.slot_ms is not None and (record.is_pending or is_due)
        return Schedule(
            id=record.id,
            task=record.task,
            arguments=_decode_arguments(record.data),
            every=_to_timedelta(rule.every_ms),
            cron=rule.cron,
            tz=rule.tz if rule.cron is not None else None,
            offset=_to_timedelta(rule.offset_ms),
            limit=rule.limit,
            start=_to_time(rule.start_ms),
            end=_to_time(rule.end_ms),
            missed=policy.missed,
            overlap=policy.overlap,
            jitter=timedelta(milliseconds=policy.jitter_ms),
            next=_to_time(record.slot_ms) if shows_next and not record.is_broken else None,
            previous=_to_time(record.previous_ms),
            count=record.count,
            dropped=record.dropped,
            is_held=record.is_held,
            is_paused=record.is_paused,
            has_ended=record.has_ended,
            is_broken=record.is_broken,
            is_declared=record.is_declared,
            no_longer_declared=record.is_declared
            and bool(self._queue.tasks)
            and record.id not in self.declared,
            due=_to_time(due_ms),
        )

    @property
    def sync(self) -> SyncSchedules:
        """Blocking versions of these methods, for code that does not run in an event loop."""
        return SyncSchedules(self)


class SyncSchedules:
    """Blocking versions of the methods of `Schedules`."""

    def __init__(self, schedules: Schedules) -> None:
        self._schedules = schedules

    def __repr__(self) -> str:
        return f"{self._schedules!r}.sync"

    def upsert(
        self,
        id: str,
        task: str | Enqueuer[Any, Any],
        *,
        every: Duration | None = None,
        cron: str | None = None,
        tz: str | None = None,
        offset: Duration | None = None,
        limit: int | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        jitter: Duration = 0,
        arguments: Mapping[str, Any] | Arguments[Any, Any] | None = None,
        options: JobOptions | None = None,
        missed: Missed = "last",
        overlap: Overlap = "allow",
    ) -> Schedule:
        """Store or change a schedule; see `Schedules.upsert`."""
        return _portal.run_for_sync_method(
            self._schedules.upsert(
                id, task, every=every, cron=cron, tz=tz, offset=offset, limit=limit, start=start,
                end=end, jitter=jitter, arguments=arguments, options=options, missed=missed,
                overlap=overlap,
            )
        )  # fmt: skip

    def get(self, id: str) -> Schedule | None:
        """Return the schedule with this id, or None; see `Schedules.get`."""
        return _portal.run_for_sync_method(self._schedules.get(id))

    def list(self, *, offset: int = 0, limit: int = 100) -> builtins.list[Schedule]:
        """Return a page of the schedules; see `Schedules.list`."""
        return _portal.run_for_sync_method(self._schedules.list(offset=offset, limit=limit))

    def late(self, by: Duration = "1m", *, limit: int = 100) -> builtins.list[Schedule]:
        """Return the schedules that are late; see `Schedules.late`."""
        return _portal.run_for_sync_method(self._schedules.late(by, limit=limit))

    def pause(self, id: str) -> None:
        """Keep a schedule from adding jobs; see `Schedules.pause`."""
        _portal.run_for_sync_method(self._schedules.pause(id))

    def resume(self, id: str) -> None:
        """End a pause; see `Schedules.resume`."""
        _portal.run_for_sync_method(self._schedules.resume(id))

    def run_now(self, id: str) -> Job[Any]:
        """Add a job that runs at once; see `Schedules.run_now`."""
        return _portal.run_for_sync_method(self._schedules.run_now(id))

    def preview(self, id: str, count: int = 10) -> builtins.list[datetime]:
        """Return the next slots of a schedule; see `Schedules.preview`."""
        return _portal.run_for_sync_method(self._schedules.preview(id, count))

    def remove(self, *ids: str) -> builtins.list[str]:
        """Delete schedules; see `Schedules.remove`."""
        return _portal.run_for_sync_method(self._schedules.remove(*ids))

    def prune(self) -> builtins.list[str]:
        """Delete the schedules that are no longer declared; see `Schedules.prune`."""
        return _portal.run_for_sync_method(self._schedules.prune())


def _name_of(task: object, queue: ScheduledQueue) -> str:
    """Return the name of a task that was given as itself or by name. Raises `InvalidOption`."""
    if isinstance(task, str):
        return check_name("task", task)
    if not isinstance(task, Task):
        raise InvalidOption("task", task, "a task or its name; its options belong into options=")
    if queue.tasks.get(task.name) is not task.definition:
        raise InvalidOption("task", task, f"a task of queue {queue.name!r}")
    return task.name


def _preview(record: ScheduleRecord, count: int, now_ms: int) -> list[datetime]:
    """Return the next slots of a schedule, in its time zone."""
    rule = record.rule
    zone = cron_patterns.load_zone(rule.tz) if rule.cron is not None else UTC
    if rule.limit is not None:
        count = min(count, rule.limit - record.count + record.is_pending)
    slots: list[datetime] = []
    slot_ms = record.slot_ms if record.is_pending else None
    if slot_ms is None:
        if record.has_ended:
            return []
        rule = with_offset(rule, now_ms, record.slot_ms)
        slot_ms = next_slot_ms(rule, now_ms)
    caught_up = 0
    while slot_ms is not None and len(slots) < count:
        plan = plan_slot(rule, record.policy, slot_ms, now_ms, caught_up)
        if not plan.is_dropped:
            slots.append(to_datetime(slot_ms).astimezone(zone))
        slot_ms, caught_up = plan.next_ms, plan.caught_up
    return slots


def _decode_arguments(data: str) -> Any:
    """Return the decoded data of a schedule; the text itself if it is not JSON."""
    try:
        return decode_json(data)
    except UNDECODABLE:
        return data


def _to_timedelta(ms: int | None) -> timedelta | None:
    return None if ms is None else timedelta(milliseconds=ms)


def _to_time(ms: int | None) -> datetime | None:
    return None if ms is None else to_datetime(ms)
