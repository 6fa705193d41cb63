"""Part four: a schedule, and a mail that cannot be delivered, in the log and in the metrics."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from prometheus_client.parser import text_string_to_metric_families

from examples.send_email.tour.mail import MAIL, wait_until_finished
from examples.send_email.tour.shared import Row, switch_client

TIME_LIMIT_SECONDS = 30

FAILED = {"queue": "mail", "task": "send", "outcome": "failed"}


def try_operations(client: httpx.Client) -> list[Row]:
    switch_client(client)
    return [*try_schedule(client), *try_failure(client)]


def try_schedule(client: httpx.Client) -> list[Row]:
    """Wait until the schedule of the application has run. Its first slot is at the start."""
    deadline = time.monotonic() + TIME_LIMIT_SECONDS
    while True:
        slots = [each["at"] for each in client.get("/history").raise_for_status().json()]
        if slots or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    each_once = len(set(slots)) == len(slots) >= 1
    return [("runs of a schedule, one for each slot", str(len(slots)), each_once)]


def try_failure(client: httpx.Client) -> list[Row]:
    with errors_of_worker() as errors:
        queued = client.post("/send-email", json={**MAIL, "to": "full@example.org"})
        (job,) = wait_until_finished(client, [queued.raise_for_status().json()["id"]])
    metrics = client.get("/metrics").raise_for_status().text
    failed = [
        sample.value
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        if sample.name == "hasten_job_run_seconds_count" and sample.labels == FAILED
    ]
    with_traceback = [error for error in errors if error.exc_info is not None]
    return [
        ("a mail to a full mailbox", f"job {job['state']}", job["state"] == "failed"),
        ("errors in the log, with a traceback", str(len(with_traceback)), len(with_traceback) == 1),
        ("failed runs in GET /metrics", f"{sum(failed):g}", failed == [1.0]),
    ]


@contextmanager
def errors_of_worker() -> Iterator[list[logging.LogRecord]]:
    """Collect the errors that the worker logs. They are also printed."""
    errors: list[logging.LogRecord] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            errors.append(record)

    printer, collector = logging.StreamHandler(sys.stdout), Collector(logging.ERROR)
    logger = logging.getLogger("hasten.worker")
    for handler in printer, collector:
        logger.addHandler(handler)
    try:
        yield errors
    finally:
        for handler in printer, collector:
            logger.removeHandler(handler)
