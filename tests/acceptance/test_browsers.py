"""curl and Chromium decode the responses of the middleware."""

from __future__ import annotations

import contextlib
import html
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path
from typing import Final, NamedTuple

import httpx
import pytest

from hasten.jobs import Queue
from tests.acceptance.web import CODINGS, EVENTS
from tests.patience import DEADLINE_SECONDS
from tests.servers.programs import leave_out, program

ROOT: Final = Path(__file__).parents[2]
MAILS: Final = 300
ANSWER: Final = f"/mails?state=delayed&limit={MAILS}"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with many jobs that are not due during the test."""
    url = f"sqlite:///{tmp_path_factory.mktemp('store')}/jobs.db"
    queue = Queue("mail", url)
    queue.sync.add_many(
        (
            "send",
            {
                "mail": {"to": f"ada+{n}@example.org", "subject": f"Grüße <{n}>", "text": ""},
                "message_id": f"<{n}@example.org>",
            },
            {"delay": 86_400},
        )
        for n in range(MAILS)
    )
    queue.sync.close()
    return url


@contextlib.contextmanager
def served(app: str, store: str) -> Iterator[str]:
    """Serve an application in a process. Yields its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", app, "--port", "0", "--no-access-log"],
        cwd=ROOT,
        env={**os.environ, "HASTEN_URL": store, "PYTHONWARNINGS": "error"},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    log = ""
    try:
        for line in process.stderr:
            log += line
            # Browsers accept zstd and br only over HTTPS or from localhost.
            if address := re.search(r"running on http://127\.0\.0\.1:(\d+)", line):
                yield f"http://localhost:{address[1]}"
                break
        process.terminate()
        log += process.communicate(timeout=DEADLINE_SECONDS)[1]
    finally:
        process.kill()
        process.communicate()
    assert "Application shutdown complete." in log, log
    assert "Traceback" not in log, log


@pytest.fixture(scope="module")
def demo(store: str) -> Iterator[str]:
    with served("examples.send_email.app:app", store) as url:
        yield url


@pytest.fixture(scope="module")
def web(store: str) -> Iterator[str]:
    with served("tests.acceptance.web:app", store) as url:
        yield url


def plain(url: str) -> bytes:
    answer = httpx.get(url, headers={"Accept-Encoding": "identity"}).raise_for_status()
    assert "content-encoding" not in answer.headers
    return answer.content


class Told(NamedTuple):
    coding: str | None
    body: bytes


class Curl:
    def __init__(self, folder: Path) -> None:
        self._program = program("curl")
        self._folder = folder

    @property
    def codings(self) -> list[str]:
        """Return the supported codings, in the order of the server."""
        version = subprocess.run([self._program, "--version"], capture_output=True, check=True)
        features = version.stdout.decode().partition("Features:")[2].split()
        names = {"zstd": "zstd", "br": "brotli", "gzip": "libz"}
        return [coding for coding in CODINGS if names[coding] in features]

    def get(self, url: str, *options: str) -> Told:
        head, body = self._folder / "head", self._folder / "body"
        subprocess.run(
            [
                self._program, "--silent", "--show-error", "--fail", "--noproxy", "*",
                "--max-time", str(DEADLINE_SECONDS), "--dump-header", head, "--output", body,
                *options, url,
            ],
            check=True,
        )  # fmt: skip
        headers = HeaderParser().parsestr(head.read_text().partition("\n")[2])
        return Told(headers["content-encoding"], body.read_bytes())

    def get_in(self, coding: str, url: str) -> Told:
        if coding not in self.codings:
            leave_out(f"this curl was built without {coding}")
        return self.get(url, "--compressed", "--header", f"Accept-Encoding: {coding}")


@pytest.fixture
def curl(tmp_path: Path) -> Curl:
    return Curl(tmp_path)


class Chromium:
    def __init__(self, folder: Path) -> None:
        self._command = [
            program("chromium", "google-chrome"),
            "--headless=new",
            "--no-sandbox",  # it does not work for root, nor in most containers
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--no-proxy-server",
            "--disable-background-networking",
            f"--user-data-dir={folder}",
        ]
        self._log = folder / "log"

    def read(self, url: str) -> str:
        """Return the text of a page that is not HTML."""
        with self._running("--dump-dom", url) as process:
            document, _ = process.communicate(timeout=DEADLINE_SECONDS)
        shown = re.search("<pre[^>]*>(.*?)</pre>", document, re.DOTALL)
        assert shown is not None, f"{document}\n{self._log.read_text()}"
        return html.unescape(shown[1])

    @contextlib.contextmanager
    def showing(self, url: str) -> Iterator[None]:
        """Show a page and run its scripts within the block."""
        with self._running(url):
            yield

    @contextlib.contextmanager
    def _running(self, *options: str) -> Iterator[subprocess.Popen[str]]:
        with self._log.open("w") as log:
            process = subprocess.Popen(
                [*self._command, *options],
                stdout=subprocess.PIPE,
                stderr=log,
                encoding="utf-8",
                start_new_session=True,  # a group of its own, to be ended with all its children
            )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.fixture
def chromium(tmp_path: Path) -> Chromium:
    return Chromium(tmp_path)


def report(web: str, name: str) -> bytes:
    """Wait for the report of a page, and return it."""
    answer = httpx.get(f"{web}/reports/{name}", timeout=DEADLINE_SECONDS)
    return answer.raise_for_status().content


def sent(web: str, path: str) -> dict[str, str | None]:
    """Return what the server recorded of the latest response at this path."""
    seen: dict[str, str | None] = httpx.get(f"{web}/seen{path}").raise_for_status().json()
    return seen


class TestCurl:
    @pytest.mark.parametrize("coding", CODINGS)
    def test_decodes_the_demo_s_answer(self, curl: Curl, demo: str, coding: str) -> None:
        told = curl.get_in(coding, demo + ANSWER)
        assert told == Told(coding, plain(demo + ANSWER))
        assert told.body.count(b'"to"') == MAILS

    def test_is_answered_in_the_best_of_what_it_offers(self, curl: Curl, demo: str) -> None:
        told = curl.get(demo + ANSWER, "--compressed")
        assert told == Told(curl.codings[0], plain(demo + ANSWER))

    def test_gets_it_plain_where_it_offers_nothing(self, curl: Curl, demo: str) -> None:
        assert curl.get(demo + ANSWER) == Told(None, plain(demo + ANSWER))


class TestChromium:
    @pytest.mark.parametrize("coding", CODINGS)
    def test_shows_the_demo_s_answer(self, chromium: Chromium, web: str, coding: str) -> None:
        """With the options of the demo, for a client with one coding."""
        path = f"/demo/{coding}/mails"
        url = web + path + ANSWER.partition("/mails")[2]
        expected = plain(url).decode()
        assert sent(web, path)["used"] is None
        assert chromium.read(url) == expected
        assert sent(web, path)["used"] == coding

    @pytest.mark.parametrize("coding", CODINGS)
    def test_hears_each_event_when_sent(self, chromium: Chromium, web: str, coding: str) -> None:
        """The server sends each event after the page has reported the one before it."""
        with chromium.showing(f"{web}/listening/{coding}"):
            report(web, f"{coding}-{EVENTS}")
        assert sent(web, f"/events/{coding}")["used"] == coding
