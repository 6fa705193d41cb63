"""Part four: a schedule, a mail that cannot be delivered, in log and metrics, and a flow."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import httpx
from prometheus_client.parser import text_string_to_metric_families

from examples.send_email.smtp import SECONDS_PER_MAIL
from examples.send_email.tour.mail import MAIL, wait_until_finished
from examples.send_email.tour.shared import Row, switch_client

TIME_LIMIT_SECONDS = 30

READERS: Final = 10
NEWSLETTER: Final = {
    "to": [*(f"reader{n}@example.org" for n in range(1, READERS)), "full@example.org"],
    "subject": "News",
    "text": "There are flows now.",
}

FAILED = {"queue": "mail", "task": "send", "outcome": "failed"}


def try_operations(client: httpx.Client) -> list[Row]:
    switch_client(client)
    return [*try_schedule(client), *try_failure(client), *try_flow(client)]


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
        id = queued.raise_for_status().json()["id"]
        (job,) = wait_until_finished(client, [id], "1 mail by /send-email")
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


def try_flow(client: httpx.Client) -> list[Row]:
    """Send a newsletter: one job for each reader, one of whom has a full mailbox, and a report."""
    start = time.perf_counter()
    with errors_of_worker():
        queued = client.post("/newsletter", json=NEWSLETTER)
        id = queued.raise_for_status().json()["id"]
        (job,) = wait_until_finished(client, [id], "1 newsletter by /newsletter")
    seconds = time.perf_counter() - start
    counts = job["result"] or {"sent": 0, "failed": 0}
    one_by_one = (READERS - 1) * SECONDS_PER_MAIL
    return [
        (
            f"a newsletter to {READERS} readers, one mailbox is full",
            f"{counts['sent']} sent, {counts['failed']} failed",
            counts == {"sent": READERS - 1, "failed": 1},
        ),
        (
            f"its report, after less than half of {one_by_one} s",
            f"{seconds:.1f} s",
            SECONDS_PER_MAIL <= seconds < one_by_one / 2,
        ),
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
