"""Part one: send mail with and without a queue, then read the list of mails in each encoding."""

import gzip
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any, Final

import brotli  # type: ignore[import-untyped]
import httpx

from examples.send_email.smtp import Mailbox
from examples.send_email.tour.shared import Row, console, get_raw, progress_bar

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAILS: Final = 20
TIME_LIMIT_SECONDS: Final = 60
MAIL: Final = {"to": "ada@example.org", "subject": "Welcome", "text": "Good to have you here."}

DECODERS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "gzip": gzip.decompress,
    "br": brotli.decompress,
    "zstd": zstd.decompress,
}


def try_mail(client: httpx.Client, mailbox: Mailbox) -> list[Row]:
    with console.status("One mail by /send-email-now: the response waits for the provider"):
        slow_ms, sent = post_mail(client, "/send-email-now")
    queued = [post_mail(client, "/send-email") for _ in range(MAILS)]
    fast_ms = median(ms for ms, _ in queued)
    mails = f"{MAILS} mails by /send-email"
    jobs = wait_until_finished(client, [answer["id"] for _, answer in queued], mails)
    states = client.get("/jobs").json()
    refused = client.post("/send-email", json={**MAIL, "to": "nobody"}).status_code
    unknown = client.get("/jobs/no-such-job").status_code

    faster = slow_ms / fast_ms
    promised = [sent["message_id"], *(job["result"] for job in jobs)]
    deliveries = [mailbox.message_ids.count(message_id) for message_id in promised]
    each_once = deliveries == [1] * (MAILS + 1)

    return [
        ("POST /send-email-now answered after", f"{slow_ms:,.1f} ms", None),
        (f"POST /send-email, median of {MAILS}", f"{fast_ms:,.1f} ms", None),
        ("times faster, at least 10", f"{faster:,.0f}", faster >= 10),
        ("mails delivered, each once", f"{sum(deliveries)} of {MAILS + 1}", each_once),
        *bytes_sent(client, f"/mails?limit={MAILS}"),
        *((f"jobs {state}", str(count), None) for state, count in states.items() if count),
        ("POST /send-email with a bad address", f"status {refused}", refused == 422),
        ("GET /jobs/no-such-job", f"status {unknown}", unknown == 404),
    ]


def post_mail(client: httpx.Client, path: str) -> tuple[float, dict[str, str]]:
    """Return the response time in milliseconds, and the response."""
    start = time.perf_counter()
    response = client.post(path, json=MAIL)
    elapsed_ms = (time.perf_counter() - start) * 1000
    answer: dict[str, str] = response.raise_for_status().json()
    return elapsed_ms, answer


def wait_until_finished(client: httpx.Client, ids: list[str], what: str) -> list[dict[str, Any]]:
    """Show a progress bar until all jobs have finished or the time is over. Return the jobs."""
    deadline = time.monotonic() + TIME_LIMIT_SECONDS
    with progress_bar() as progress:
        bar = progress.add_task(what, total=len(ids))
        while True:
            jobs = [client.get(f"/jobs/{id}").raise_for_status().json() for id in ids]
            finished = sum(job["state"] in {"completed", "failed"} for job in jobs)
            progress.update(bar, completed=finished)
            if finished == len(ids) or time.monotonic() > deadline:
                return jobs
            time.sleep(0.2)


def bytes_sent(client: httpx.Client, path: str) -> list[Row]:
    """Request the same list in each encoding, and compare the sizes of the bodies."""
    _, plain = get_raw(client, path, "identity")
    rows: list[Row] = [(f"GET {path}, uncompressed", f"{len(plain):,} bytes", None)]
    for encoding, decode in DECODERS.items():
        used, compressed = get_raw(client, path, encoding)
        smaller = len(plain) / len(compressed)
        as_expected = used == encoding and smaller >= 3 and decode(compressed) == plain
        what = f"in {encoding}, at least 3 times smaller"
        rows.append((what, f"{len(compressed):,} bytes, {smaller:.1f} times", as_expected))
    return rows
