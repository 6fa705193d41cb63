"""The commands: `hasten worker`, and those of `jobs.py` and `workers.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

import hasten
from hasten._cli import jobs, logs, workers
from hasten._cli.durations import parse_duration
from hasten._cli.output import escape_unencodable_output
from hasten._cli.serve import describe_queue, serve, take_parent_pipe
from hasten._cli.supervisor import supervise
from hasten._cli.target import load_queues
from hasten._logs import get_logger
from hasten.errors import StoreUnavailable
from hasten.jobs import Queue, Worker
from hasten.jobs._options import MAX_METRICS_MINUTES

logger = get_logger("hasten.cli")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(jobs.app, name="jobs")
app.command()(workers.workers)


def run(arguments: Sequence[str] | None, name: str, launch: Sequence[str]) -> None:
    """Run the command line. The parameters are those of `hasten._cli.main`."""
    escape_unencodable_output()
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
    is_supervised: Annotated[bool, typer.Option("--supervised", hidden=True)] = False,
) -> None:
    """Run the jobs of queues until SIGTERM or Ctrl+C.

    After the signal, the worker takes no new jobs. Running jobs may finish within the time --grace;
    those that do not are returned to their queue, to be run again. A second signal ends the worker
    at once.
    """
    pipe = take_parent_pipe() if is_supervised else None
    logs.set_up(log_level, log_format)
    queues = load_queues(targets)
    if not is_supervised:
        for queue in queues:
            logger.info("serving %s", describe_queue(queue))
            _warn_of_new_store(queue)
        each = f" in each of {processes} processes" if processes > 1 else ""
        logger.info("running up to %d jobs at once%s", concurrency, each)
    if processes == 1:
        serve(
            Worker(
                *queues,
                concurrency=concurrency,
                grace=grace,
                name=name,
                release=release,
                bullmq_metrics_minutes=bullmq_metrics_minutes,
            ),
            queues,
            parent_pipe=pipe,
        )
        return
    options = ["--concurrency", str(concurrency), "--grace", str(grace)]
    options += ["--log-level", log_level, "--log-format", log_format]
    options += ["--release", release] if release is not None else []
    if bullmq_metrics_minutes is not None:
        options += ["--bullmq-metrics-minutes", str(bullmq_metrics_minutes)]
    commands = [
        _make_worker_command(
            context.obj, targets, [*options, *(["--name", f"{name}-{n}"] if name else [])]
        )
        for n in range(1, processes + 1)
    ]
    raise typer.Exit(supervise(commands, grace=grace))


def _warn_of_new_store(queue: Queue) -> None:
    """Log a warning if the store of a queue does not exist yet.

    This is normal for the first worker of an application. But if the store is expected to exist,
    the worker was probably started in the wrong folder.
    """
    try:
        queue.engine.require_existing_store()
    except StoreUnavailable as error:
        logger.warning("queue %s: creating a new store: %s", queue.name, error)


def _make_worker_command(
    launch: Sequence[str], targets: Sequence[str], options: Sequence[str]
) -> list[str]:
    return [*launch, "worker", "--supervised", *options, "--", *targets]
