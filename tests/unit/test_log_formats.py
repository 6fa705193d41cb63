"""The lines that `hasten worker --log-format` writes."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from hasten._cli.logs import JsonFormatter, TextFormatter

JOB: dict[str, Any] = {"queue": "mail", "task": "send", "job_id": "7", "attempt": 2}


def record(message: str = "hello", name: str = "app", **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord(name, logging.WARNING, __file__, 1, message, (), None)
    made.__dict__.update(extra)
    return made


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError

    __str__ = __repr__


def deep() -> Any:
    value: Any = 1
    for _ in range(3_000):
        value = [value]
    return value


def test_a_line_of_text_ends_with_the_job() -> None:
    line = TextFormatter().format(record(**JOB))
    assert line.endswith("WARNING  app: hello [mail send 7 #2]")


@pytest.mark.parametrize("extra", [{}, {"job_id": "5"}, {**JOB, "attempt": None}])
def test_but_only_if_the_record_has_all_of_it(extra: dict[str, Any]) -> None:
    assert TextFormatter().format(record(**extra)).endswith("app: hello")


def test_messages_of_hasten_name_the_job_themselves() -> None:
    assert TextFormatter().format(record(name="hasten.worker", **JOB)).endswith(": hello")


def test_a_job_id_cannot_forge_a_line() -> None:
    line = TextFormatter().format(record(**{**JOB, "job_id": "7\n2026 CRITICAL \x1b[31mforged"}))
    assert "\n" not in line
    assert "\x1b" not in line


def test_json_has_the_job_and_what_was_passed_as_extra() -> None:
    line = json.loads(JsonFormatter().format(record(**JOB, user="ada", nothing=None)))
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "warning", "logger": "app", "message": "hello", **JOB, "user": "ada"
    }  # fmt: skip


def test_json_has_the_traceback() -> None:
    made = record()
    try:
        raise LookupError("boom")
    except LookupError as error:
        made.exc_info = (type(error), error, error.__traceback__)
    assert "LookupError: boom" in json.loads(JsonFormatter().format(made))["exception"]


@pytest.mark.parametrize(
    "odd",
    [
        b"x",
        {1: 2},
        {(1, 2): 3},
        float("nan"),
        "\ud800",
        Broken(),
        deep(),
        object(),
        {"s"},
        [Broken()],
    ],
)
def test_any_extra_is_one_line_of_json(odd: object) -> None:
    line = JsonFormatter().format(record(odd=odd))
    assert "\n" not in line
    assert json.loads(line)["message"] == "hello"
