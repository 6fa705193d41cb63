"""The demo, as `make demo` runs it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]
MAIL = {"to": "ada@example.org", "subject": "Hello", "text": "How are you?"}


@contextmanager
def demo(
    *arguments: str, port: int | str = 0, warnings: str = "error"
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "examples.send_email", *arguments],
        cwd=ROOT,
        env={
            **os.environ,
            "COLUMNS": "100",
            "PORT": str(port),
            "PYTHONUNBUFFERED": "1",
            "PYTHONWARNINGS": warnings,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_until(process: subprocess.Popen[str], pattern: str) -> re.Match[str]:
    """Read what it prints until the pattern is there; no further than the end of that line."""
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(pattern, line):
            return found
    assert process.stderr is not None
    raise AssertionError(f"never printed {pattern!r}: {process.stderr.read()}")


Served = tuple[subprocess.Popen[str], str]


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """A demo that serves, in the middle of its tour, and its address."""
    with demo() as process:
        yield process, read_until(process, r"Serving on (http://\S+),")[1]


def test_once_ends_after_the_tour_with_all_as_promised(served: Served) -> None:
    """While another demo, on another port, serves in its own store."""
    with demo("--once") as process:
        out, err = process.communicate(timeout=90)
        assert (process.returncode, err) == (0, "")
        assert "21 of 21" in out
        for coding in ("gzip", "br", "zstd"):
            assert re.search(rf"in {coding}, .* [\d,]+ bytes, \d+\.\d times .* yes", out), out


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"{",
        b"[]",
        b'{"to": "ada@example.org"}',
        *(
            httpx.Request("POST", "http://x", json={**MAIL, **wrong}).content
            for wrong in (
                {"to": "nobody"},
                {"to": "ada@example.org\nBcc: bob@example.org"},
                {"subject": "x" * 201},
                {"text": "x" * 100_001},
                {"text": 7},
                {"text": None},
            )
        ),
        b'{"to": "ada@example.org", "subject": "\\ud800", "text": ""}',
        b'{"to": "ada@example.org", "subject": NaN, "text": ""}',
    ],
)
@pytest.mark.parametrize("path", ["/send-email", "/send-email-now"])
def test_bad_bodies_get_422(served: Served, path: str, broken: bytes) -> None:
    headers = {"content-type": "application/json"}
    answer = httpx.post(served[1] + path, content=broken, headers=headers)
    assert answer.status_code == 422


@pytest.mark.parametrize(
    "job_id", ["no-such-job", "999999", "-1", "%00", "%F0%9F%93%AC", "x" * 999]
)
def test_unknown_jobs_get_404(served: Served, job_id: str) -> None:
    assert httpx.get(f"{served[1]}/jobs/{job_id}").status_code == 404


@pytest.mark.parametrize(
    "wrong", ["limit=0", "limit=-1", "limit=1001", "limit=ten", "state=sent", "state="]
)
def test_unusual_lists_get_422(served: Served, wrong: str) -> None:
    assert httpx.get(f"{served[1]}/mails?{wrong}").status_code == 422


def test_mails_are_listed_newest_first_and_compressed(served: Served) -> None:
    process, url = served
    read_until(process, "What the tour saw")
    answer = httpx.get(f"{url}/mails?limit=5", headers={"Accept-Encoding": "gzip, br, identity"})
    assert answer.headers["content-encoding"] == "br"
    mails = answer.json()
    assert [mail["to"] for mail in mails] == ["ada@example.org"] * 5
    finished = [mail["finished_at"] for mail in mails]
    assert finished == sorted(finished, reverse=True)


async def test_unusual_mails_are_delivered(served: Served) -> None:
    unusual = [
        {"subject": ""},
        {"subject": "two\r\nlines\u2028or three"},
        {"subject": "Grüße 📬"},
        {"to": "jörg@exämple.org"},
        {"text": ""},
        {"text": ".\r\n.\r\nQUIT\r\n"},
        {"text": "x" * 100_000},
        {"text": "\0 \x1b 📬"},
    ]
    async with httpx.AsyncClient(base_url=served[1], timeout=30) as client:
        answers = await asyncio.gather(
            *(client.post("/send-email-now", json={**MAIL, **each}) for each in unusual)
        )
    assert [answer.status_code for answer in answers] == [200] * len(unusual)


def test_ends_neatly_by_ctrl_c(served: Served) -> None:
    """Also right after it has taken on another mail."""
    process, url = served
    read_until(process, r"Ctrl\+C ends it")
    assert httpx.post(f"{url}/send-email", json=MAIL).status_code == 202
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")


def test_ctrl_c_during_the_tour_is_no_success() -> None:
    # Not with warnings as errors: a signal in the middle of an import leaves its file unclosed.
    with demo("--once", warnings="default::DeprecationWarning") as process:
        read_until(process, "Serving on")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert (process.returncode, err) == (130, "")


def test_a_busy_port_is_named_with_the_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with demo(port=port) as process:
            _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert err.startswith(f"Cannot serve on port {port}: Address already in use.")
    assert "PORT=" in err


@pytest.mark.parametrize("port", ["http", "-1", "65536"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    with demo(port=port) as process:
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (1, f"PORT={port}: expected a number from 0 to 65535\n")
