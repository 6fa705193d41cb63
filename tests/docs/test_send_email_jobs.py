"""The jobs and limits of the demo, tested as docs/howto/testing.md says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from email.message import EmailMessage
from typing import Any

import aiosmtplib
import httpx
import pytest

from examples.send_email import mail
from examples.send_email.app import app
from hasten.testing import JobRun, JobsTester

MAIL = {"to": "ada@example.org", "subject": "Hello", "text": "How are you?"}


class Provider:
    """A provider of mail that fails as often as the test wants."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.failures: list[Exception] = []

    async def send(self, message: EmailMessage, **_: Any) -> None:
        if self.failures:
            raise self.failures.pop()
        self.mails.append(message)


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Provider:
    provider = Provider()
    monkeypatch.setattr(aiosmtplib, "send", provider.send)
    return provider


@pytest.fixture
async def client(hasten_jobs: JobsTester) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with (
        mail.lifespan(app),
        httpx.AsyncClient(transport=transport, base_url="http://x") as client,
    ):
        yield client


def sent(runs: Iterable[JobRun]) -> list[JobRun]:
    """Return the runs that send mails, without those of the demo's schedule."""
    return [run for run in runs if run.task == mail.send.name]


async def test_a_mail_is_queued_and_sent(
    client: httpx.AsyncClient, provider: Provider, hasten_jobs: JobsTester
) -> None:
    queued = (await client.post("/send-email", json=MAIL)).json()
    assert hasten_jobs.assert_enqueued(mail.send, mail=mail.Mail(**MAIL)).job_id == queued["id"]
    assert provider.mails == []
    assert (await client.get("/jobs")).json()["waiting"] == 1
    (run,) = sent(await hasten_jobs.run_until_idle())
    (message,) = provider.mails
    assert (message["To"], message["Message-ID"]) == ("ada@example.org", run.result)
    status = (await client.get(f"/jobs/{queued['id']}")).json()
    assert (status["state"], status["result"]) == ("completed", run.result)
    assert [each["to"] for each in (await client.get("/mails")).json()] == ["ada@example.org"]


async def test_a_mail_is_retried_with_the_same_id(
    client: httpx.AsyncClient, provider: Provider, hasten_jobs: JobsTester
) -> None:
    provider.failures = [aiosmtplib.SMTPServerDisconnected("gone")] * 2
    await client.post("/send-email", json=MAIL)
    runs = sent(await hasten_jobs.advance(hours=1))
    assert [run.outcome for run in runs] == ["retry", "retry", "completed"]
    assert [each["Message-ID"] for each in provider.mails] == [runs[-1].result]


async def test_a_refused_recipient_is_not_tried_again(
    client: httpx.AsyncClient, provider: Provider, hasten_jobs: JobsTester
) -> None:
    provider.failures.append(aiosmtplib.SMTPRecipientsRefused([]))
    await client.post("/send-email", json=MAIL)
    with pytest.raises(aiosmtplib.SMTPRecipientsRefused):
        await hasten_jobs.advance(hours=1)
    assert len(sent(hasten_jobs.runs)) == 1


async def test_a_newsletter_is_reported_when_all_mails_have_ended(
    client: httpx.AsyncClient, provider: Provider, hasten_jobs: JobsTester
) -> None:
    """One mail fails for good, another one is retried."""
    provider.failures = [
        aiosmtplib.SMTPServerDisconnected("gone"),
        aiosmtplib.SMTPRecipientsRefused([]),
    ]
    addresses = ["ada@example.org", "blaise@example.org", "chien@example.org"]
    newsletter = {**MAIL, "to": addresses}
    queued = (await client.post("/newsletter", json=newsletter)).json()
    assert len(sent(await hasten_jobs.run_until_idle(raises=False))) == 3
    assert (await client.get("/jobs")).json()["waiting-children"] == 1
    await hasten_jobs.advance(hours=1, raises=False)
    report = (await client.get(f"/jobs/{queued['id']}")).json()
    assert (report["state"], report["result"]) == ("completed", {"sent": 2, "failed": 1})
    assert len(provider.mails) == 2
    assert {each["To"] for each in provider.mails} < set(addresses)


@pytest.mark.parametrize("to", [[], ["nobody"], ["ada@example.org"] * 101])
async def test_a_newsletter_without_valid_addresses_is_rejected(
    client: httpx.AsyncClient, hasten_jobs: JobsTester, to: list[str]
) -> None:
    assert (await client.post("/newsletter", json={**MAIL, "to": to})).status_code == 422
    assert (await client.get("/jobs")).json()["waiting-children"] == 0


async def test_a_crash_sends_the_same_mail_twice_at_most(
    provider: Provider, hasten_jobs: JobsTester
) -> None:
    """The provider can recognize the second one by its id."""
    report = await hasten_jobs.crash_everywhere(
        mail.send,
        {"mail": MAIL, "message_id": "<1@example.org>"},
        snapshot=lambda: {each["Message-ID"] for each in provider.mails},
        reset=provider.mails.clear,
    )
    assert len(report.points) == 2


async def test_logins_are_limited_for_an_hour(
    client: httpx.AsyncClient, hasten_jobs: JobsTester
) -> None:
    async def log_in() -> int:
        response = await client.post("/api/auth/login", json={"email": "nobody"})
        return response.status_code

    assert [await log_in() for _ in range(6)] == [422] * 5 + [429]
    await hasten_jobs.advance(hours=1)
    assert await log_in() == 422
