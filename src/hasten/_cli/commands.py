"""The commands: `hasten worker`, and those of `jobs.py`, `schedules.py` and `workers.py`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

import hasten
from hasten._cli import jobs, logs, schedules, workers
from hasten._cli.durations import parse_duration
from hasten._cli.output import make_stdout_escape_unencodable
from hasten._cli.serve import describe_queue, move_parent_pipe_from_stdin, run_worker_until_stopped
from hasten._cli.supervisor import supervise
from hasten._cli.target import load_queues
from hasten._logs import get_logger
from hasten.errors import StoreUnavailable
from hasten.jobs import Queue, Worker
from hasten.jobs._health_app import HealthChecks
from hasten.jobs._options import MAX_METRICS_MINUTES

if TYPE_CHECKING:
    from hasten._cli.monitor import Monitor
    from hasten._cli.sources import OwnProcess

logger = get_logger("hasten.cli")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(jobs.app, name="jobs")
app.add_typer(schedules.app, name="schedules")
app.command()(workers.workers)


def run_command_line(arguments: Sequence[str] | None, name: str, launch: Sequence[str]) -> None:
    """Run the command line. The parameters are those of `hasten._cli.main`."""
    make_stdout_escape_unencodable()
    app(arguments, prog_name=name, obj=launch)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hasten {hasten.__version__}")
        raise typer.Exit


@app.callback()
def hasten_command(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Background jobs for Python backends."""


@app.command()
def worker(
    context: typer.Context,
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="MODULE[:QUEUE]",
            help="Queues whose jobs to run, such as app:mail. A module stands for all its queues.",
        ),
    ],
    concurrency: Annotated[
        int, typer.Option(min=1, help="How many jobs each process runs at once.")
    ] = 100,
    processes: Annotated[int, typer.Option(min=1, help="How many processes to run.")] = 1,
    grace: Annotated[
        float,
        typer.Option(
            parser=parse_duration,
            metavar="DURATION",
            show_default=False,
            help="How long running jobs may take to finish at shutdown, such as 2m or 30s.  "
            "[default: 15s]",
        ),
    ] = 15.0,
    name: Annotated[
        str | None,
        typer.Option(help="The name of this worker.  [default: host:pid]"),
    ] = None,
    log_level: Annotated[
        logs.Level,
        typer.Option(case_sensitive=False, help="The lowest level of messages to log."),
    ] = logs.Level.INFO,
    log_format: Annotated[
        logs.Format, typer.Option(case_sensitive=False, help="Log lines of text or JSON objects.")
    ] = logs.Format.TEXT,
    release: Annotated[
        str | None,
        typer.Option(
            help="The release of your code, as 2026.12.1: jobs that need a later one are handed "
            "back.  [default: HASTEN_RELEASE]"
        ),
    ] = None,
    bullmq_metrics_minutes: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_METRICS_MINUTES,
            help="Count finished jobs on Redis as BullMQ does, and keep this many minutes, such as "
            "10080.  [default: off]",
        ),
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65535,
            show_default=False,
            help="Serve /metrics for Prometheus, /livez, /readyz and /scale on this port.",
        ),
    ] = None,
    metrics_host: Annotated[
        str,
        typer.Option(help="The address of --metrics-port. In a container, use 0.0.0.0."),
    ] = "127.0.0.1",
    max_blocked: Annotated[
        float,
        typer.Option(
            parser=parse_duration,
            metavar="DURATION",
            show_default=False,
            help="How long the event loop may be blocked until /livez fails.  [default: 30s]",
        ),
    ] = 30.0,
    max_fetch_age: Annotated[
        float,
        typer.Option(
            parser=parse_duration,
            metavar="DURATION",
            show_default=False,
            help="How long ago the last successful fetch of jobs may be until /readyz fails.  "
            "[default: 30s]",
        ),
    ] = 30.0,
    max_schedule_lateness: Annotated[
        float | None,
        typer.Option(
            parser=parse_duration,
            metavar="DURATION",
            show_default=False,
            help="How late the run of a schedule may be until /readyz fails, such as 5m.  "
            "[default: late schedules do not affect /readyz]",
        ),
    ] = None,
    is_supervised: Annotated[
        bool,
        typer.Option(
            "--supervised", hidden=True, help="Standard input is the pipe from the parent."
        ),
    ] = False,
    is_reporting: Annotated[
        bool,
        typer.Option(
            "--reporting",
            hidden=True,
            help="Standard input is a socket. Respond to requests for reports on it.",
        ),
    ] = False,
) -> None:
    """Run the jobs of queues until SIGTERM or Ctrl+C.

    After the signal, the worker takes no new jobs. Running jobs may finish within the time --grace;
    those that do not are returned to their queue, to be run again. A second signal ends the worker
    at once.
    """
    pipe = move_parent_pipe_from_stdin() if is_supervised else None
    logs.set_up(log_level, log_format)
    queues = load_queues(targets)
    if not is_supervised:
        for queue in queues:
            logger.info("serving %s", describe_queue(queue))
            _warn_if_store_is_missing(queue)
        each = f" in each of {processes} processes" if processes > 1 else ""
        logger.info("running up to %d jobs at once%s", concurrency, each)
    if metrics_port is not None and processes > 1 and sys.platform == "win32":
        raise typer.BadParameter("--metrics-port needs --processes 1 on Windows")
    # Before anything starts: an optional package may be missing, or the port be in use.
    monitor = None
    if metrics_port is not None:
        checks = HealthChecks(
            queues,
            max_blocked=max_blocked,
            max_fetch_age=max_fetch_age,
            max_schedule_lateness=max_schedule_lateness,
        )
        monitor = _make_listening_monitor(metrics_host, metrics_port, queues, checks)
    if processes == 1:
        worker = Worker(
            *queues,
            concurrency=concurrency,
            grace=grace,
            name=name,
            release=release,
            bullmq_metrics_minutes=bullmq_metrics_minutes,
        )
        if is_reporting:
            make_report = _make_own_process(worker).make_report_content
            run_worker_until_stopped(
                worker, queues, parent_pipe=pipe, make_report_content=make_report
            )
        elif monitor is not None:
            monitor.start(_make_own_process(worker))
            run_worker_until_stopped(
                worker, queues, parent_pipe=pipe, on_worker_stopped=monitor.close
            )
        else:
            run_worker_until_stopped(worker, queues, parent_pipe=pipe)
        return
    options = ["--concurrency", str(concurrency), "--grace", str(grace)]
    options += ["--log-level", log_level, "--log-format", log_format]
    options += ["--release", release] if release is not None else []
    if bullmq_metrics_minutes is not None:
        options += ["--bullmq-metrics-minutes", str(bullmq_metrics_minutes)]
    options += ["--reporting"] if monitor is not None else []
    commands = [
        _make_worker_command(
            context.obj, targets, [*options, *(["--name", f"{name}-{n}"] if name else [])]
        )
        for n in range(1, processes + 1)
    ]
    if monitor is None:
        raise typer.Exit(supervise(commands, grace=grace))
    raise typer.Exit(_supervise_with_monitor(commands, grace, monitor))


# The modules of the monitor import prometheus_client, which is optional.


def _make_listening_monitor(
    host: str, port: int, queues: Sequence[Queue], checks: HealthChecks
) -> Monitor:
    from hasten._cli.monitor import Monitor  # noqa: PLC0415

    return Monitor(host, port, queues, checks)


def _make_own_process(worker: Worker) -> OwnProcess:
    from hasten._cli.sources import OwnProcess  # noqa: PLC0415

    return OwnProcess(worker)


def _supervise_with_monitor(
    commands: Sequence[Sequence[str]], grace: float, monitor: Monitor
) -> int:
    from hasten._cli.sources import ChildProcess, ChildProcesses  # noqa: PLC0415

    children = [ChildProcess(number) for number in range(1, len(commands) + 1)]
    monitor.start(ChildProcesses(children))
    try:
        return supervise(commands, grace=grace, observers=children)
    finally:
        monitor.close()


def _warn_if_store_is_missing(queue: Queue) -> None:
    """Log a warning if the store of a queue does not exist yet.

    This is normal for the first worker of an application. But if the store is expected to exist,
    the worker was probably started in the wrong folder.
    """
    try:
        queue.engine.require_existing_store()
    except StoreUnavailable as error:
        logger.warning("queue %s: no store found, creating a new one: %s", queue.name, error)


def _make_worker_command(
    launch: Sequence[str], targets: Sequence[str], options: Sequence[str]
) -> list[str]:
    return [*launch, "worker", "--supervised", *options, "--", *targets]
