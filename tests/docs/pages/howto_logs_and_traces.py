"""Run docs/howto/logs-and-traces.md: logs, middlewares, traces, and the tools that receive them."""

import contextlib
import io
import logging
import sys
from typing import Any

import sentry_sdk
import structlog
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

from hasten.errors import JobFailed
from hasten.jobs import Queue
from tests.docs.page_session import Page
from tests.jobs.spans import recorded_spans


class Sink(Transport):
    """Receives what the SDK of Sentry would send."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Any] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        if (event := envelope.get_event()) is not None:
            self.events.append(event)


async def check(page: Page) -> None:
    output, sys.stdout = sys.stdout, io.StringIO()
    sink = Sink()
    sentry_sdk.init(dsn="http://key@127.0.0.1/1", transport=sink, default_integrations=True)
    with recorded_spans() as spans:
        code = await page.run()
        mail: Queue = code.mail

        @mail.task
        async def fail() -> None:
            with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as logs:
                structlog.get_logger().warning("failing")
            seen.extend(logs)
            raise LookupError("no such customer")

        seen: list[Any] = []
        code.request_id.set("r-17")
        job = await code.send.enqueue("ada@example.org")
        audit = await code.audit.enqueue("login")
        failing = await fail.enqueue()
        invoice = await code.send_invoice.enqueue("ada", "EUR")
        async with code.worker:
            assert await job.result(timeout=60) == "sent in attempt 1"
            assert await audit.result(timeout=60) == "login by request r-17"
            assert await invoice.result(timeout=60) == "invoice in EUR to ada"
            with contextlib.suppress(JobFailed):
                await failing.result(timeout=60)
        assert len(spans.named("process mail")) == 4
        await mail.aclose()
    printed, sys.stdout = sys.stdout.getvalue(), output
    for handler in logging.getLogger().handlers[:]:
        logging.getLogger().removeHandler(handler)
    assert f"INFO mail send {job.id}: sending to ada@example.org\n" in printed
    assert f"ERROR mail fail {failing.id}: queue mail: job" in printed
    assert job.metadata == {"version": "7", "request_id": "r-17"}
    assert code.failures == {"fail": 1}
    assert seen == [
        {"event": "failing", "log_level": "warning", "task": "fail", "job_id": failing.id}
    ]
    (event,) = [event for event in sink.events if event.get("level") == "error"]
    assert event["exception"]["values"][0]["value"] == "no such customer"
    assert event["tags"]["task"] == "fail"
    assert event["contexts"]["job"]["id"] == failing.id
