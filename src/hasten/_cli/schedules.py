"""The commands of `hasten schedules`: show, store, pause and delete the schedules of queues."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated, Any, Final, cast, get_args

import typer

from hasten._cli.durations import format_duration, parse_duration
from hasten._cli.output import is_stdout_terminal, print_json, print_tab_separated, print_table
from hasten._cli.run_in_store import run_in_existing_store
from hasten._cli.target import load_queue, load_queues
from hasten._escapes import escape_unprintable
from hasten.errors import ScheduleNotFound, UsageError
from hasten.jobs import Missed, Overlap, Queue, Schedule
from hasten.jobs._epoch import to_datetime
from hasten.jobs._late_schedules import LATE_SECONDS
from hasten.jobs._options import JobOptions

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Show schedules, store, pause or delete them.",
)

OneQueue = Annotated[str, typer.Argument(metavar="MODULE:QUEUE", help="A queue, such as app:mail.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="The id of a schedule.")]
Ids = Annotated[list[str], typer.Argument(metavar="ID", help="Ids of schedules.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print a JSON array of objects.")]

PAGE: Final = 100  # how many schedules are read at once


def _parse_time(text: object) -> datetime:
    """Return the time of a text such as 2026-12-24T08:00:00+01:00. Raises `BadParameter`."""
    try:
        time = datetime.fromisoformat(str(text))
        if time.tzinfo is not None:
            return time
    except ValueError:
        pass
    raise typer.BadParameter(
        f"{text!r}: must be a time with its offset from UTC, such as 2026-12-24T08:00:00+01:00"
    )


def _parse_object(text: object) -> dict[str, Any]:
    """Return the dict of a JSON object. Raises `BadParameter`."""
    try:
        value = json.loads(str(text))
    except ValueError:
        value = None
    if isinstance(value, dict):
        return value
    raise typer.BadParameter(f'{text!r}: must be a JSON object, such as \'{{"to": "ada"}}\'')


# Showing ------------------------------------------------------------------------------------------


@app.command(name="list")
def list_schedules(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="MODULE[:QUEUE]",
            help="Queues, such as app:mail. A module stands for all its queues.",
        ),
    ],
    only_late: Annotated[
        bool,
        typer.Option("--late", help="Only those whose next run has been due for over a minute."),
    ] = False,
    limit: Annotated[
        int, typer.Option(min=1, help="The maximum number of schedules of each queue to show.")
    ] = 100,
    as_json: AsJson = False,
) -> None:
    """Show the schedules of queues, those with the next slot first.

    On a terminal, the output is a table. In a pipe or file, each line has these fields, separated
    by tabs: queue, id, task, cron pattern or interval, time zone, next slot and slot of the latest
    run (UTC), number of jobs added, number of slots without a run, and state. Unknown values are
    empty. The state is active, late, held (an earlier run has not finished), paused, ended or
    broken (its next job was deleted), followed by ",undeclared" if the code no longer declares the
    schedule. With --json, there is an object with all attributes for each schedule.
    """
    queues = load_queues(targets)
    found: list[tuple[Queue, Schedule]] = []
    cut: list[Queue] = []
    for queue in queues:
        # One more than is shown, to find out whether there are more.
        read = run_in_existing_store(queue, partial(_read, queue, only_late, limit + 1))
        found += ((queue, schedule) for schedule in read[:limit])
        if len(read) > limit:
            cut.append(queue)
    if as_json:
        print_json([_to_json_object(*each) for each in found])
    elif not is_stdout_terminal():
        print_tab_separated(_to_fields(*each) for each in found)
    elif found:
        print_table(
            ["id", "queue", "task", "slots", "next", "jobs", "no run", "state"],
            [_to_cells(*each) for each in found],
        )
    else:
        names = ", ".join(escape_unprintable(queue.name) for queue in queues)
        late = "late " if only_late else ""
        typer.echo(f"no {late}schedules in {names}", err=True)
    for queue in cut:
        name = escape_unprintable(queue.name)
        typer.echo(
            f"queue {name}: only the first {limit:,} schedules are shown: use --limit", err=True
        )


async def _read(queue: Queue, only_late: bool, limit: int) -> list[Schedule]:
    if only_late:
        return await queue.schedules.late(LATE_SECONDS, limit=limit)
    return await queue.schedules.list(limit=limit)


@app.command()
def show(target: OneQueue, ids: Ids, as_json: AsJson = False) -> None:
    """Show all attributes of schedules.

    On a terminal, the output has a line for each attribute. In a pipe or file, each line has the
    id, the name of the attribute and its value, separated by tabs. With --json, there is an object
    for each schedule. The exit status is 1 if one of the schedules does not exist.
    """
    queue = load_queue(target)
    ids = list(dict.fromkeys(ids))
    found = run_in_existing_store(queue, partial(_get, queue, ids))
    objects = [_to_json_object(queue, schedule) for schedule in found.values()]
    if as_json:
        print_json(objects)
    elif is_stdout_terminal():
        for each in objects:
            width = max(map(len, each))
            for name, value in each.items():
                typer.echo(f"{name:{width}}  {escape_unprintable(_to_text(value))}")
            typer.echo()
    else:
        print_tab_separated(
            [str(each["id"]), name, _to_text(value)]
            for each in objects
            for name, value in each.items()
        )
    _end_with_missing(queue, [id for id in ids if id not in found])


async def _get(queue: Queue, ids: Sequence[str]) -> dict[str, Schedule]:
    found = {id: await queue.schedules.get(id) for id in ids}
    return {id: schedule for id, schedule in found.items() if schedule is not None}


@app.command()
def preview(
    target: OneQueue,
    id: Id,
    count: Annotated[int, typer.Option(min=1, max=10_000, help="How many slots to show.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Show the next slots of a schedule, in its time zone.

    Those of a paused schedule are the slots that it would have if it was resumed now. In a pipe or
    file, each line has a time in the format ISO 8601. With --json, there is an object with "slot"
    for each. The exit status is 1 if the schedule does not exist.
    """
    queue = load_queue(target)
    try:
        slots = run_in_existing_store(queue, partial(queue.schedules.preview, id, count))
    except ScheduleNotFound:
        _end_with_missing(queue, [id])
        return
    if as_json:
        print_json([{"slot": slot.isoformat()} for slot in slots])
    elif is_stdout_terminal():
        now = to_datetime(queue.clock.now_ms())
        for slot in slots:
            zone = slot.strftime("%z %Z").replace("+0000 UTC", "UTC")
            typer.echo(f"{slot:%a %Y-%m-%d %H:%M:%S} {zone}  {_describe_distance(slot, now)}")
        if not slots:
            typer.echo(f"schedule {escape_unprintable(id)} has no next slot", err=True)
    else:
        print_tab_separated([slot.isoformat()] for slot in slots)


# Changing -----------------------------------------------------------------------------------------


@app.command()
def add(
    target: OneQueue,
    id: Id,
    task: Annotated[str, typer.Argument(metavar="TASK", help="The name of the task to run.")],
    every: Annotated[
        float | None,
        typer.Option(
            parser=parse_duration,
            metavar="DURATION",
            show_default=False,
            help="The interval between slots, such as 10m.",
        ),
    ] = None,
    cron: Annotated[
        str | None,
        typer.Option(metavar="PATTERN", help="A cron pattern, such as '0 7 * * mon-fri'."),
    ] = None,
    tz: Annotated[
        str | None,
        typer.Option(
            metavar="ZONE",
            help="The time zone of the cron pattern, such as Europe/Madrid.  [default: UTC]",
        ),
    ] = None,
    offset: Annotated[
        float | None,
        typer.Option(
            parser=parse_duration,
            metavar="DURATION",
            show_default=False,
            help="How long after each multiple of the interval (since 1970, in UTC) the slots are.",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="The largest number of runs.  [default: no limit]")
    ] = None,
    start: Annotated[
        datetime | None,
        typer.Option(
            parser=_parse_time, metavar="TIME", show_default=False, help="No slot is before this."
        ),
    ] = None,
    end: Annotated[
        datetime | None,
        typer.Option(
            parser=_parse_time, metavar="TIME", show_default=False, help="No slot is after this."
        ),
    ] = None,
    jitter: Annotated[
        float,
        typer.Option(
            parser=parse_duration,
            metavar="DURATION",
            show_default=False,
            help="Delay each job by a different time, up to this.  [default: 0]",
        ),
    ] = 0.0,
    missed: Annotated[
        str, typer.Option(help="What happens with missed slots: last, skip or all.")
    ] = "last",
    overlap: Annotated[
        str,
        typer.Option(
            help="What happens while an earlier run has not finished: allow, skip or queue."
        ),
    ] = "allow",
    arguments: Annotated[
        dict[str, Any] | None,
        typer.Option(
            parser=_parse_object,
            metavar="JSON",
            show_default=False,
            help='The arguments of the task, such as \'{"to": "ada"}\'.',
        ),
    ] = None,
    options: Annotated[
        dict[str, Any] | None,
        typer.Option(
            parser=_parse_object,
            metavar="JSON",
            show_default=False,
            help="Options of the jobs, such as '{\"attempts\": 3}'.",
        ),
    ] = None,
    replaces: Annotated[
        bool, typer.Option("--replace", help="Change the schedule if there is one with this id.")
    ] = False,
    any_task: Annotated[
        bool,
        typer.Option("--any-task", help="The task may be one that only other programs define."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Store a schedule, which runs a task at an interval or at the times of a cron pattern.

    Pass --every or --cron. A schedule whose id exists is only changed with --replace: the options
    that you do not pass get their defaults. Prints the next slot; with --json, an object with all
    attributes of the schedule.
    """
    if (every is None) is (cron is None):
        raise typer.BadParameter("pass either --every or --cron")
    _check_choice("--missed", missed, get_args(Missed))
    _check_choice("--overlap", overlap, get_args(Overlap))
    queue = load_queue(target)
    if task not in queue.tasks and not any_task:
        names = ", ".join(sorted(queue.tasks)) or "none at all"
        raise UsageError(
            f"{target} defines no task {task!r}, but {names}. If another program runs it, pass "
            "--any-task"
        )

    async def store() -> tuple[Schedule, bool]:
        existed = await queue.schedules.get(id) is not None
        if existed and not replaces:
            raise UsageError(
                f"queue {queue.name!r} has a schedule {id!r} already: pass --replace to change it"
            )
        schedule = await queue.schedules.upsert(
            id,
            task,
            every=every,
            cron=cron,
            tz=tz,
            offset=offset,
            limit=limit,
            start=start,
            end=end,
            jitter=jitter,
            arguments=arguments,
            options=cast(JobOptions | None, options),
            missed=cast(Missed, missed),
            overlap=cast(Overlap, overlap),
        )
        return schedule, existed

    schedule, existed = run_in_existing_store(queue, store)
    if as_json:
        print_json([_to_json_object(queue, schedule)])
    else:
        when = "none" if schedule.next is None else _to_iso(schedule.next)
        if is_stdout_terminal() and schedule.next is not None:
            when = _to_local_time(schedule.next)
        what = "changed" if existed else "added"
        paused = ", but the schedule is paused" if schedule.is_paused else ""
        typer.echo(f"{escape_unprintable(id)}: {what}; next slot: {when}{paused}")
    if schedule.has_ended:
        typer.echo(
            f"{escape_unprintable(id)}: has ended: its limit is reached, or its end is before the "
            "next slot, so it adds no more jobs",
            err=True,
        )
    if id in queue.schedules.declared:
        typer.echo(
            f"{escape_unprintable(id)}: declared by the code, too: a worker that starts stores the "
            "declared schedule again",
            err=True,
        )


def _check_choice(option: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise typer.BadParameter(f"{option} {value!r}: must be one of {', '.join(choices)}")


@app.command()
def pause(target: OneQueue, ids: Ids) -> None:
    """Keep schedules from adding jobs until they are resumed.

    Prints a line for each schedule. Jobs that have started continue. The exit status is 1 if one of
    the schedules does not exist.
    """
    queue = load_queue(target)
    _change(queue, ids, queue.schedules.pause, "paused")


@app.command()
def resume(target: OneQueue, ids: Ids) -> None:
    """End the pauses of schedules. Slots that passed meanwhile get no runs.

    Prints a line for each schedule. The exit status is 1 if one of the schedules does not exist.
    """
    queue = load_queue(target)
    _change(queue, ids, queue.schedules.resume, "resumed")


def _change(
    queue: Queue, ids: Sequence[str], change: Callable[[str], Coroutine[Any, Any, None]], done: str
) -> None:
    """Change each of the schedules, and print a line for it."""
    ids = list(dict.fromkeys(ids))

    async def change_all() -> list[str]:
        missing = []
        for id in ids:
            try:
                await change(id)
            except ScheduleNotFound:
                missing.append(id)
            else:
                typer.echo(f"{escape_unprintable(id)}: {done}")
        return missing

    _end_with_missing(queue, run_in_existing_store(queue, change_all))


@app.command()
def run(target: OneQueue, ids: Ids, as_json: AsJson = False) -> None:
    """Add a job of each of the schedules that runs at once, also if the schedule is paused.

    Its slots are not affected. Prints the id of each job. The exit status is 1 if one of the
    schedules does not exist.
    """
    queue = load_queue(target)
    ids = list(dict.fromkeys(ids))

    async def run_all() -> dict[str, str]:
        jobs = {}
        for id in ids:
            try:
                jobs[id] = (await queue.schedules.run_now(id)).id
            except ScheduleNotFound:
                continue
        return jobs

    jobs = run_in_existing_store(queue, run_all)
    if as_json:
        print_json([{"queue": queue.name, "schedule": id, "job": job} for id, job in jobs.items()])
    else:
        for id, job in jobs.items():
            typer.echo(f"{escape_unprintable(id)}: added job {escape_unprintable(job)}")
    _end_with_missing(queue, [id for id in ids if id not in jobs])


@app.command()
def remove(target: OneQueue, ids: Ids) -> None:
    """Delete schedules and the jobs of their next slots. Jobs that have started are kept.

    Prints a line for each schedule. The exit status is 1 if one of the schedules does not exist.
    """
    queue = load_queue(target)
    ids = list(dict.fromkeys(ids))
    removed = run_in_existing_store(queue, partial(queue.schedules.remove, *ids))
    for id in removed:
        typer.echo(f"{escape_unprintable(id)}: deleted")
        if id in queue.schedules.declared:
            typer.echo(
                f"{escape_unprintable(id)}: declared by the code: a worker that starts stores it "
                "again. To prevent this, delete the declaration, or pause the schedule instead",
                err=True,
            )
    _end_with_missing(queue, [id for id in ids if id not in removed])


@app.command()
def prune(
    target: OneQueue,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what would be deleted.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Delete the schedules that the code declared once and no longer does.

    Schedules that were never declared are kept, such as those of `hasten schedules add`. Prints the
    id of each deleted schedule.
    """
    queue = load_queue(target)
    find = partial(_find_undeclared, queue) if dry_run else queue.schedules.prune
    ids = run_in_existing_store(queue, find)
    if as_json:
        print_json([{"queue": queue.name, "id": id} for id in ids])
        return
    for id in ids:
        typer.echo(f"{escape_unprintable(id)}: {'would be deleted' if dry_run else 'deleted'}")
    if not ids:
        name = escape_unprintable(queue.name)
        typer.echo(f"queue {name} has no schedule that is no longer declared", err=True)


async def _find_undeclared(queue: Queue) -> list[str]:
    ids: list[str] = []
    offset = 0
    while page := await queue.schedules.list(offset=offset, limit=PAGE):
        ids += [schedule.id for schedule in page if schedule.no_longer_declared]
        offset += len(page)
    return ids


def _end_with_missing(queue: Queue, missing: Sequence[str]) -> None:
    """Print which schedules do not exist, and end with the exit status 1 if there are any."""
    for id in missing:
        typer.echo(
            f"{escape_unprintable(id)}: no such schedule in queue "
            f"{escape_unprintable(queue.name)}. To see all, use: hasten schedules list",
            err=True,
        )
    if missing:
        raise typer.Exit(1)


# Formatting ---------------------------------------------------------------------------------------


def _late_by(queue: Queue, schedule: Schedule) -> timedelta | None:
    return schedule.late_by(to_datetime(queue.clock.now_ms()))


def _state_of(schedule: Schedule, late: timedelta | None) -> str:
    """Return the state of a schedule in one word."""
    if schedule.is_paused:
        return "paused"
    if schedule.has_ended:
        return "ended"
    if schedule.is_broken:
        return "broken"
    if schedule.is_held:
        return "held"
    is_late = late is not None and late.total_seconds() > LATE_SECONDS
    return "late" if is_late else "active"


def _to_fields(queue: Queue, schedule: Schedule) -> Sequence[str]:
    """Return the fields of a tab-separated line, which programs read."""
    state = _state_of(schedule, _late_by(queue, schedule))
    return (
        queue.name,
        schedule.id,
        schedule.task,
        schedule.cron or _format_interval(schedule),
        schedule.tz or "",
        "" if schedule.next is None else _to_iso(schedule.next),
        "" if schedule.previous is None else _to_iso(schedule.previous),
        str(schedule.count),
        str(schedule.dropped),
        state + (",undeclared" if schedule.no_longer_declared else ""),
    )


def _to_cells(queue: Queue, schedule: Schedule) -> Sequence[str]:
    """Return the cells of a table row, which people read."""
    late = _late_by(queue, schedule)
    state = _state_of(schedule, late)
    if state == "late" and late is not None:
        state = f"late by {format_duration(late.total_seconds())}"
    elif state == "broken":
        state = "broken: its next job was deleted"
    elif state == "held":
        state = "held: an earlier run has not finished"
    slots = f"every {_format_interval(schedule)}"
    if schedule.cron is not None:
        slots = f"{schedule.cron} {schedule.tz or '(time zone of the worker)'}"
    return (
        schedule.id,
        queue.name,
        schedule.task,
        slots,
        "" if schedule.next is None else _to_local_time(schedule.next),
        f"{schedule.count:,}",
        f"{schedule.dropped:,}",
        state + (", no longer declared" if schedule.no_longer_declared else ""),
    )


def _format_interval(schedule: Schedule) -> str:
    return "" if schedule.every is None else format_duration(schedule.every.total_seconds())


def _to_json_object(queue: Queue, schedule: Schedule) -> dict[str, object]:
    late = _late_by(queue, schedule)
    return {
        "queue": queue.name,
        "id": schedule.id,
        "task": schedule.task,
        "state": _state_of(schedule, late),
        "arguments": schedule.arguments,
        "every": _to_seconds(schedule.every),
        "cron": schedule.cron,
        "tz": schedule.tz,
        "offset": _to_seconds(schedule.offset),
        "limit": schedule.limit,
        "start": schedule.start and _to_iso(schedule.start),
        "end": schedule.end and _to_iso(schedule.end),
        "missed": schedule.missed,
        "overlap": schedule.overlap,
        "jitter": _to_seconds(schedule.jitter),
        "next": schedule.next and _to_iso(schedule.next),
        "previous": schedule.previous and _to_iso(schedule.previous),
        "due": schedule.due and _to_iso(schedule.due),
        "late_by": _to_seconds(late),
        "count": schedule.count,
        "dropped": schedule.dropped,
        "is_held": schedule.is_held,
        "is_paused": schedule.is_paused,
        "has_ended": schedule.has_ended,
        "is_broken": schedule.is_broken,
        "is_declared": schedule.is_declared,
        "no_longer_declared": schedule.no_longer_declared,
    }


def _to_text(value: object) -> str:
    """Return a value of a JSON object as text; the empty text for None."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _to_seconds(duration: timedelta | None) -> float | None:
    return None if duration is None else duration.total_seconds()


def _to_iso(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds")


def _to_local_time(time: datetime) -> str:
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _describe_distance(slot: datetime, now: datetime) -> str:
    seconds = round((slot - now).total_seconds())
    if seconds <= 0:
        return "due now"
    return f"in {format_duration(seconds, units=2)}"
