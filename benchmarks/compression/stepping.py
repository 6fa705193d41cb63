"""Time calls of ASGI applications: `python -m benchmarks.compression.stepping FOLDER ARGUMENTS`.

Each call is a coroutine that is run with `send`, without the overhead of a task. An event loop is
running, because a middleware may need it. The result is printed as JSON: the time, bytes and
content coding of each case, by contestant.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.asgi import Application, Message, discard, receive, scope_of
from benchmarks.compression import chrome, corpora
from benchmarks.compression.application import BareApplication

CALLS: Final = 500
WARM_UP_CALLS: Final = 200

CASES: Final = {
    "200 B JSON": f"/{corpora.SMALL}",
    "PNG of 20 kB": f"/{corpora.PICTURE}",
    "204": "/empty",
    "1 kB JSON": "/json-1kB",
}


async def measure(folder: Path, modules: Mapping[str, str], repeats: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    callers: dict[str, Caller] = {}
    for name, module in modules.items():
        try:
            bare = BareApplication(folder)
            callers[name] = Caller(importlib.import_module(module).CONTESTANT.wrap(bare))
            found[name] = {case: callers[name].look(path) for case, path in CASES.items()}
        except Exception as error:  # noqa: BLE001  # any error of the contestant
            callers.pop(name, None)
            found[name] = {"error": repr(error)}
    gc.disable()
    for case, path in CASES.items():
        for _ in range(repeats):
            for name, caller in callers.items():
                seen = found[name][case]
                seen["us"] = min(seen.get("us", float("inf")), caller.time_us(path))
            gc.collect()
    return found


class Caller:
    def __init__(self, app: Application) -> None:
        self._app = app
        self._headers = chrome.headers(chrome.ALL_CODINGS)

    def look(self, path: str) -> dict[str, Any]:
        """Call the application once to warm up, and return the messages of the response."""
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        for _ in range(WARM_UP_CALLS):
            messages.clear()
            self._call(path, keep)
        headers = dict(messages[0]["headers"])
        return {
            "bytes": sum(len(message.get("body", b"")) for message in messages),
            "coding": headers.get(b"content-encoding", b"identity").decode(),
        }

    def time_us(self, path: str) -> float:
        start = time.process_time()  # processor time, to which other processes do not add
        for _ in range(CALLS):
            self._call(path, discard)
        return (time.process_time() - start) / CALLS * 1e6

    def _call(self, path: str, send: Any) -> None:
        try:
            self._app(scope_of(path, self._headers), receive, send).__await__().__next__()
        except StopIteration:
            return
        raise RuntimeError(f"{path}: the call has suspended")


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(Path(sys.argv[1]), **json.loads(sys.argv[2])))))
