"""The signals that stop a program: Ctrl+C, and SIGTERM from a service manager."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def handle_stop_signals(on_first: Callable[[], object]) -> Iterator[None]:
    """Call on_first at the first stop signal, and end the process at the second one.

    For the main thread. Handlers set by `signal.signal` run even while a job blocks the event loop.
    """
    signalled = False

    def on_signal(number: int, _frame: FrameType | None) -> None:
        nonlocal signalled
        if signalled:
            os._exit(128 + number)
        signalled = True
        on_first()

    before = {number: signal.signal(number, on_signal) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
