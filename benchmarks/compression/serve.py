"""Serve a contestant in Python: `python -m benchmarks.compression.serve MODULE FOLDER SETTINGS`.

The port is printed on a line.
"""

from __future__ import annotations

import importlib
import json
import socket
import sys
from pathlib import Path

import uvicorn

from benchmarks.compression.application import BareApplication


def serve(module: str, folder: str, settings: str) -> None:
    bare = BareApplication(Path(folder), **json.loads(settings))
    app = importlib.import_module(module).CONTESTANT.wrap(bare)
    config = uvicorn.Config(
        app, loop="uvloop", http="httptools", lifespan="off", access_log=False,
        log_level="warning", timeout_keep_alive=120,
    )  # fmt: skip
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(config.backlog)  # before the port is printed
        print(listener.getsockname()[1], flush=True)
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    serve(*sys.argv[1:])
