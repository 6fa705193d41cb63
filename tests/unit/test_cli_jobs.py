"""Defaults of the command line, and odd jobs in `hasten jobs list --json`."""

from __future__ import annotations

import inspect
from typing import Any, Final

import pytest
from msgspec.structs import replace

pytest.importorskip("typer")

import typer

from hasten._cli import commands
from hasten._cli.durations import parse_duration
from hasten._cli.jobs import _to_json_object
from hasten._cli.output import print_json
from hasten.jobs import Job, Queue, State, Worker
from hasten.jobs._record import JobRecord

RECORD: Final = JobRecord("mail", "1", "send", "{}", "{}", State.DELAYED, 0, 0, 0, 0, 0, 0)


def test_the_grace_of_the_command_is_that_of_a_worker() -> None:
    command, worker = inspect.signature(commands.worker), inspect.signature(Worker)
    assert command.parameters["grace"].default == worker.parameters["grace"].default == 15


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("15", 15), ("0", 0), ("1.5", 1.5), ("15s", 15), ("2m", 120), ("1h30m", 5400), ("500ms", 0.5)],
)
def test_a_duration_is_a_number_of_seconds_or_has_units(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1", "-1s", "15 parsecs", "nan", "inf", "1e99"])
def test_another_text_is_not_a_duration(text: str) -> None:
    with pytest.raises(
        typer.BadParameter, match=f"'{text}': must be a number of seconds or a duration"
    ):
        parse_duration(text)


def describe(**stored: Any) -> dict[str, object]:
    return _to_json_object(Job(Queue("mail", "memory://"), "1", replace(RECORD, **stored)))


def test_a_time_too_late_for_datetime_becomes_the_last(capsys: pytest.CaptureFixture[str]) -> None:
    print_json(describe(due_ms=12 * 10**18))
    assert '"due_at": "9999-12-31' in capsys.readouterr().out


def test_data_nested_too_deeply_is_shown_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_json(describe(progress="[" * 100_000))
    assert '"progress": "[[[[' in capsys.readouterr().out
