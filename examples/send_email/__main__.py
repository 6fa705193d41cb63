"""Start a slow SMTP server and the web application, send a tour of requests, and keep serving."""

import argparse
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx
import uvicorn

from examples.send_email.seed import POSTS
from examples.send_email.smtp import Mailbox, smtp_server
from examples.send_email.tour import console, tour


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m examples.send_email",
        description=__doc__,
        epilog="The environment variable PORT sets the port (default: 8000); 0 uses any free port.",
    )
    parser.add_argument(
        "--once",
        action="store_true",
        help="exit after the tour, with status 0 if all responses are as expected",
    )
    once = parser.parse_args().once
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl+C does
    mailbox = Mailbox()
    with (
        listen_on(port_from_environment()) as listener,
        tempfile.TemporaryDirectory(prefix="hasten-demo-") as folder,
        smtp_server(mailbox) as smtp_port,
    ):
        os.environ["HASTEN_URL"] = f"sqlite:///{folder}/demo.db"
        os.environ["SMTP_PORT"] = str(smtp_port)
        with serving(listener) as url, httpx.Client(base_url=url, timeout=60) as client:
            console.print(f"Serving on {url}, jobs in {folder}/demo.db", soft_wrap=True)
            as_expected = tour(client, mailbox)
            if not once:
                with suppress(KeyboardInterrupt):
                    console.print(f"Still serving on {url} (API at /docs). Press Ctrl+C to stop.")
                    threading.Event().wait()
    return 0 if as_expected else 1


def port_from_environment() -> int:
    text = os.environ.get("PORT") or "8000"
    if not text.isdecimal() or int(text) > 65535:
        sys.exit(f"PORT={text}: expected a number from 0 to 65535")
    return int(text)


def listen_on(port: int) -> socket.socket:
    # With an explicit protocol: else asyncio does not disable Nagle's algorithm, which delays each
    # response by 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen()
    except OSError as exc:
        listener.close()
        sys.exit(
            f"Cannot serve on port {port}: {exc.strerror}. "
            "Set another port with PORT=…, or use any free port with PORT=0."
        )
    return listener


@contextmanager
def serving(listener: socket.socket) -> Iterator[str]:
    """Run the application in a thread while the context is open. Yield its URL."""
    server = uvicorn.Server(uvicorn.Config("examples.send_email.app:app", log_level="warning"))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        with console.status(f"Creating {POSTS:,} posts"):
            while not server.started:
                if not thread.is_alive():
                    sys.exit("The application did not start.")
                time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
