"""The command line: `hasten worker` and, from `jobs.py`, `hasten jobs`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

import hasten
from hasten.cli import jobs, logs
from hasten.cli.serve import describe, serve, take_leash
from hasten.cli.supervisor import supervise
from hasten.cli.target import load
from hasten.jobs import Worker

logger = logging.getLogger("hasten.cli")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(jobs.app, name="jobs")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hasten {hasten.__version__}")
        raise typer.Exit


@app.callback()
def hasten_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    """Background jobs for Python backends."""


@app.command()
def worker(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="MODULE[:QUEUE]", help="The queues to serve; MODULE alone means all in it."
        ),
    ],
    concurrency: Annotated[
        int, typer.Option(min=1, help="How many jobs each process runs at once.")
    ] = 100,
    processes: Annotated[int, typer.Option(min=1, help="How many processes to keep running.")] = 1,
    grace: Annotated[
        float, typer.Option(min=0, help="Seconds that running jobs get to finish at the end.")
    ] = 20.0,
    name: Annotated[
        str | None, typer.Option(help="How jobs name this worker; host:pid if not given.")
    ] = None,
    log_level: Annotated[
        logs.Level, typer.Option(case_sensitive=False, help="The least that is logged.")
    ] = logs.Level.INFO,
    leashed: Annotated[bool, typer.Option("--leashed", hidden=True)] = False,
) -> None:
    """Run the jobs of queues until SIGTERM or Ctrl+C; a second one ends it at once."""
    leash = take_leash() if leashed else None
    logs.set_up(log_level)
    queues = load(targets)
    if not leashed:
        for queue in queues:
            logger.info("serving %s", describe(queue))
        several = f"{processes} processes, each " if processes > 1 else ""
        logger.info("%sup to %d jobs at once", several, concurrency)
    if processes == 1:
        serve(Worker(*queues, concurrency=concurrency, grace=grace, name=name), queues, leash=leash)
        return
    options = ["--concurrency", str(concurrency), "--grace", str(grace), "--log-level", log_level]
    commands = [
        _child(targets, [*options, *(["--name", f"{name}-{n}"] if name else [])])
        for n in range(1, processes + 1)
    ]
    raise typer.Exit(supervise(commands, grace=grace))


def _child(targets: Sequence[str], options: Sequence[str]) -> list[str]:
    # -P: what is in the working directory cannot stand in for what hasten itself imports.
    return [sys.executable, "-P", "-m", "hasten", "worker", "--leashed", *options, "--", *targets]
