"""Send mail in the background or, for comparison, while the client waits.

SMTP_HOST and SMTP_PORT name the SMTP server. HASTEN_URL names the store of the jobs; the default is
the file `hasten.db`.
"""

import os
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import EmailMessage
from email.utils import make_msgid
from typing import Annotated, Any

import aiosmtplib
from fastapi import APIRouter, HTTPException, Query
from pydantic import BaseModel, EmailStr, Field

from hasten.jobs import Context, Job, Queue, Slot, State, Worker

SMTP_HOST = os.environ.get("SMTP_HOST", "127.0.0.1")
SMTP_PORT = int(os.environ.get("SMTP_PORT", "1025"))

queue = Queue("mail")
worker = Worker(queue, concurrency=10)


class Mail(BaseModel):
    to: EmailStr
    subject: str = Field(max_length=200)
    text: str = Field(max_length=100_000)


class Newsletter(BaseModel):
    to: list[EmailStr] = Field(min_length=1, max_length=100)
    subject: str = Field(max_length=200)
    text: str = Field(max_length=100_000)


# The message id is an argument, so that both mails have the same id if the task runs twice. A
# refused recipient is not tried again: the provider will refuse it each time.
@queue.task(
    attempts=5,
    backoff="exponential",
    timeout=30,
    give_up_on=aiosmtplib.SMTPRecipientsRefused,
)
async def send(mail: Mail, message_id: str) -> str:
    message = EmailMessage()
    message["From"] = "hello@example.org"
    message["To"] = mail.to
    message["Subject"] = " ".join(mail.subject.split())  # a header is one line
    message["Message-ID"] = message_id
    message.set_content(mail.text)
    await aiosmtplib.send(message, hostname=SMTP_HOST, port=SMTP_PORT)
    return message_id


@queue.task
async def report(ctx: Context) -> dict[str, int]:
    """Count the mails of a newsletter, which are the children of this job."""
    mails = await ctx.children.progress()
    return {"sent": mails.completed, "failed": mails.failed}


history: deque[dict[str, object]] = deque(maxlen=100)


# keep_completed: otherwise these jobs would be in the list of mails, too.
@queue.every("1m", keep_completed=0)
@queue.task
async def record_counts(slot: Slot) -> None:
    """Count the jobs every minute, for a chart."""
    history.append({"at": slot.planned, "counts": await queue.counts()})


@asynccontextmanager
async def lifespan(_: object) -> AsyncIterator[None]:
    async with queue, worker:
        yield


router = APIRouter(lifespan=lifespan)


@router.post("/send-email", status_code=202)
async def send_email(mail: Mail) -> dict[str, str]:
    """Queue a mail and return at once. A worker sends the mail."""
    job = await send.enqueue(mail, make_msgid(domain="example.org"))
    return {"status": "queued", "id": job.id}


@router.post("/send-email-now")
async def send_email_now(mail: Mail) -> dict[str, str]:
    """Send a mail, and return when it has been sent."""
    message_id = await send(mail, make_msgid(domain="example.org"))
    return {"status": "sent", "message_id": message_id}


@router.post("/newsletter", status_code=202)
async def send_newsletter(newsletter: Newsletter) -> dict[str, str]:
    """Queue a mail to each address, and a report, which is made when all mails have ended."""
    content = newsletter.model_dump(exclude={"to"})
    mails = [
        send.args(Mail(to=address, **content), make_msgid(domain="example.org"))
        for address in newsletter.to
    ]
    job = await report.after(mails, on_failure="ignore").enqueue()
    return {"status": "queued", "id": job.id}


@router.get("/mails")
async def mails(
    state: State = State.COMPLETED, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> list[dict[str, object]]:
    """Return the mails among the newest jobs in a state, without their texts."""
    jobs = await queue.jobs(state, limit=limit, newest_first=True)
    return [
        {
            "to": job.data["mail"]["to"],
            "subject": job.data["mail"]["subject"],
            "queued_at": job.created_at,
            "finished_at": job.finished_at,
            **status(job),
        }
        for job in jobs
        if job.name == send.name
    ]


@router.get("/jobs")
async def counts() -> dict[State, int]:
    return await queue.counts()


@router.get("/history")
async def counts_until_now() -> list[dict[str, object]]:
    return list(history)


@router.get("/jobs/{job_id}")
async def job_status(job_id: str) -> dict[str, object]:
    job = await queue.get(job_id)
    if job is None:
        raise HTTPException(404, f"no job {job_id!r}")
    return status(job)


def status(job: Job[Any]) -> dict[str, object]:
    return {
        "id": job.id,
        "state": job.state,
        "attempts": job.attempts_made,
        "result": job.value,
        "error": job.error,
    }
