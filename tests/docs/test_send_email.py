"""The demo works as `make demo` runs it."""

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
from typing import Any

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
    """Read the output up to the line that has the pattern."""
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(pattern, line):
            return found
    assert process.stderr is not None
    raise AssertionError(f"never printed {pattern!r}: {process.stderr.read()}")


Served = tuple[subprocess.Popen[str], str]


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """Yield a demo that serves, while its tour runs, and its address."""
    with demo() as process:
        yield process, read_until(process, r"Serving on (http://\S+),")[1]


def test_once_ends_after_the_tour_with_all_as_expected(served: Served) -> None:
    """Another demo may serve at the same time, on another port and in its own store."""
    with demo("--once") as process:
        out, err = process.communicate(timeout=90)
        assert (process.returncode, err) == (0, "")
        assert "21 of 21" in out
        for encoding in ("gzip", "br", "zstd"):
            assert re.search(rf"in {encoding}, .* [\d,]+ bytes, \d+\.\d times .* yes", out), out
        assert re.search(r"a newsletter to 10 readers, .* 9 sent, 1 failed .* yes", out), out
        assert re.search(r"its report, .* \d+\.\d s .* yes", out), out
        assert re.search(r"read by cursor, each once .* 100,000 of 100,000 .* yes", out), out


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
    read_until(process, "Results of the tour")
    answer = httpx.get(f"{url}/mails?limit=5", headers={"Accept-Encoding": "gzip, br, identity"})
    assert answer.headers["content-encoding"] == "br"
    mails = answer.json()
    # The newest jobs are those of the tour's newsletter: its report, and before that its mails.
    assert {mail["to"] for mail in mails} <= {f"reader{n}@example.org" for n in range(1, 10)}
    assert len(mails) == 4
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


def get(served: Served, path: str, status: int = 200) -> Any:
    answer = httpx.get(served[1] + path)
    assert answer.status_code == status, answer.text
    return answer.json()


def test_posts_are_returned_in_pages(served: Served) -> None:
    first = get(served, "/api/posts")
    assert list(first) == ["data", "pagination"]
    assert first["pagination"] == {"page": 1, "limit": 20, "total": 100_000}
    assert [post["id"] for post in first["data"]] == list(range(100_000, 99_980, -1))
    assert list(first["data"][0]) == ["id", "title", "text", "created_at", "author"]
    assert get(served, "/api/posts?page=5000&fields=id")["data"][-1] == {"id": 1}
    assert get(served, "/api/posts?page=5001") == {
        "data": [],
        "pagination": {"page": 5001, "limit": 20, "total": 100_000},
    }


def test_posts_are_sorted_by_the_requested_key(served: Served) -> None:
    posts = get(served, "/api/posts?sort=title&limit=100")["data"]
    titles = [post["title"] for post in posts]
    assert titles == sorted(titles)
    assert titles[0] == "Boring answers, part 1"


def test_a_cursor_continues_after_its_page(served: Served) -> None:
    first = get(served, "/api/posts?cursor=&sort=title")
    assert first["data"] == get(served, "/api/posts?sort=title")["data"]
    assert first["pagination"]["prev_cursor"] is None
    cursor = first["pagination"]["next_cursor"]
    second = get(served, f"/api/posts?cursor={cursor}&sort=title")
    assert second["data"] == get(served, "/api/posts?page=2&sort=title")["data"]
    back = second["pagination"]["prev_cursor"]
    assert get(served, f"/api/posts?cursor={back}&sort=title")["data"] == first["data"]


def test_only_selected_fields_are_returned(served: Served) -> None:
    posts = get(served, "/api/posts?fields=author(name),id&limit=2")
    assert posts["data"] == [
        {"id": 100_000, "author": {"name": "Hedy 99"}},
        {"id": 99_999, "author": {"name": "Edsger 98"}},
    ]
    ada = {"id": 1, "name": "Ada 1", "email": "ada.1@example.org"}
    assert get(served, "/api/users/1") == ada
    assert get(served, "/api/users/1?fields=email,id") == {"id": 1, "email": ada["email"]}


@pytest.mark.parametrize("path", ["/api/users/1?fields=", "/api/posts?fields=", "/api/posts?sort="])
def test_a_secret_column_is_rejected_like_an_unknown_one(served: Served, path: str) -> None:
    refused = get(served, path + "password_hash", status=422)
    unknown = get(served, path + "no_such_field", status=422)
    assert str(refused) == str(unknown).replace("no_such_field", "password_hash")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/posts?page=0", 422),
        ("/api/posts?page=1_0", 422),
        ("/api/posts?page=99999999999999999999999", 422),
        ("/api/posts?page=1&page=2", 422),
        ("/api/posts?page=1&cursor=", 422),
        ("/api/posts?limit=101", 422),
        ("/api/posts?sort=text", 422),
        ("/api/posts?fields=author(password_hash)", 422),
        ("/api/posts?cursor=forged", 400),
        ("/api/users/0", 422),
        ("/api/users/99999999999999999999999", 422),
        ("/api/users/1001", 404),
        ("/api/users/1001?fields=password_hash", 422),
        ("/api/users/1/", 404),
    ],
)
def test_invalid_requests_get_a_4xx_with_detail(served: Served, path: str, status: int) -> None:
    assert "detail" in get(served, path, status=status)


def test_a_cursor_of_another_query_is_rejected(served: Served) -> None:
    cursor = get(served, "/api/posts?cursor=")["pagination"]["next_cursor"]
    assert get(served, f"/api/posts?cursor={cursor}&limit=7&fields=id")["data"]
    assert get(served, f"/api/posts?cursor={cursor}&sort=title", status=400)
    assert get(served, f"/api/posts?cursor={cursor[:-1]}", status=400)


LOGIN = {"email": "ada.1@example.org", "password": "correct horse"}


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({}, 200),
        ({"password": "wrong"}, 401),
        ({"email": "nobody@example.org"}, 401),
        ({"email": "blaise.1@example.org"}, 401),
        ({"email": "nobody"}, 422),
        ({"password": "x" * 1001}, 422),
        ({"password": None}, 422),
    ],
)
def test_logins(served: Served, wrong: dict[str, str], status: int) -> None:
    # Each request comes from another client, behind a trusted proxy.
    headers = {"X-Forwarded-For": f"203.0.113.{len(str(wrong))}"}
    answer = httpx.post(f"{served[1]}/api/auth/login", json={**LOGIN, **wrong}, headers=headers)
    assert answer.status_code == status
    assert "hash" not in answer.text


def test_too_many_wrong_logins(served: Served) -> None:
    url, headers = f"{served[1]}/api/auth/login", {"X-Forwarded-For": "203.0.113.250"}
    wrong = {**LOGIN, "password": "wrong"}
    answers = [httpx.post(url, json=wrong, headers=headers) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [401] * 5 + [429]
    assert 0 < int(answers[-1].headers["retry-after"]) <= 3600
    assert httpx.post(url, json=LOGIN, headers=headers).status_code == 429


def test_ctrl_c_ends_it_with_status_0(served: Served) -> None:
    """It does so even if a mail was queued right before."""
    process, url = served
    read_until(process, r"Press Ctrl\+C to stop")
    assert httpx.post(f"{url}/send-email", json=MAIL).status_code == 202
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=90)
    assert (process.returncode, err) == (0, "")


def test_ctrl_c_during_the_tour_ends_it_with_status_130() -> None:
    # Not with warnings as errors: a signal in the middle of an import leaves its file unclosed.
    with demo("--once", warnings="default::DeprecationWarning") as process:
        read_until(process, "Serving on")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=90)
    # A busy machine may block the event loop for seconds, which the worker logs.
    blocked = re.compile(r".*worker \S+: the event loop (has been|is no longer) blocked.*")
    rest = [line for line in err.splitlines() if not blocked.fullmatch(line)]
    assert (process.returncode, rest) == (130, [])


def test_a_busy_port_is_named_with_the_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with demo(port=port) as process:
            _, err = process.communicate(timeout=90)
    assert process.returncode == 1
    assert err.startswith(f"Cannot serve on port {port}: Address already in use.")
    assert "PORT=" in err


@pytest.mark.parametrize("port", ["http", "-1", "65536"])
def test_an_invalid_port_is_rejected(port: str) -> None:
    with demo(port=port) as process:
        _, err = process.communicate(timeout=90)
    assert (process.returncode, err) == (1, f"PORT={port}: expected a number from 0 to 65535\n")
