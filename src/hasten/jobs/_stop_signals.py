"""The signals that request the end of a program: SIGINT (Ctrl+C) and SIGTERM (service managers)."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Final

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def handle_stop_signals(on_signal: Callable[[int], object]) -> Iterator[None]:
    """Call on_signal with the number of each stop signal, while the context is entered.

    Must be entered in the main thread. Unlike signal handlers of asyncio, on_signal is called even
    while a job blocks the event loop.
    """
    before = {
        number: signal.signal(number, lambda number, _frame: on_signal(number))
        for number in STOP_SIGNALS
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
