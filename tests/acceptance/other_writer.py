"""Another program that writes to a store all the time, and says how long it had to wait.

    python -m tests.acceptance.other_writer sqlite:////folder/jobs.db
    python -m tests.acceptance.other_writer redis://127.0.0.1:6379/0

For each line that it reads it prints the longest wait since the one before, in ms. On SQLite it
waits for the lock, and does not count its own commit; on Redis, for the answer to a SET.
"""

from __future__ import annotations

import sqlite3
import sys
import threading
import time
from collections.abc import Callable

import redis

PAUSE_SECONDS = 0.002


def main(url: str) -> None:
    write = write_to_redis(url) if url.startswith("redis") else write_to_file(url)
    waits = [write()]

    def write_on() -> None:
        while True:
            waits.append(write())
            time.sleep(PAUSE_SECONDS)

    threading.Thread(target=write_on, daemon=True).start()
    for _ in sys.stdin:
        count = len(waits)
        longest = max(waits[:count], default=0.0)
        del waits[:count]
        print(f"{longest * 1000:.1f}", flush=True)


def write_to_file(url: str) -> Callable[[], float]:
    path = url.removeprefix("sqlite:///").partition("?")[0]
    connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    connection.execute("CREATE TABLE IF NOT EXISTS others (n INTEGER)")

    def write() -> float:
        began = time.monotonic()
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
                break
            except sqlite3.OperationalError:
                time.sleep(0.001)
        waited = time.monotonic() - began
        connection.execute("INSERT INTO others VALUES (1)")
        connection.execute("COMMIT")
        return waited

    return write


def write_to_redis(url: str) -> Callable[[], float]:
    client = redis.Redis.from_url(url)

    def write() -> float:
        began = time.monotonic()
        client.set("others", 1)
        return time.monotonic() - began

    return write


if __name__ == "__main__":
    main(sys.argv[1])
