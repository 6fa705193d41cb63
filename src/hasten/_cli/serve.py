"""Run a worker in this process until a signal or its parent process stops it.

With `hasten worker --processes`, a parent process supervises the worker processes. The standard
input of each is a pipe from the parent, which writes nothing to it, or with `--metrics-port` a
socket, over which the parent requests reports (see `reporting.py`). When the pipe is closed, by the
parent or because the parent has died, the worker process stops gracefully. Unlike a signal, this
also works if the parent is killed, cannot arrive twice, and is the same on all operating systems.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from hasten._cli.reporting import answer_requests
from hasten._logs import get_logger
from hasten.jobs import Queue, Worker

logger = get_logger("hasten.cli")

# How long to wait for threads of handlers after the worker has stopped. Their jobs have been
# returned to the queue by then.
THREADS_SECONDS: Final = 3.0


def run_worker_until_stopped(
    worker: Worker,
    queues: Sequence[Queue],
    *,
    parent_pipe: int | None = None,
    make_report_content: Callable[[bytes], bytes] | None = None,
    on_worker_stopped: Callable[[], object] | None = None,
) -> None:
    """Run a worker until a signal or the end of parent_pipe (a file descriptor) stops it.

    If make_report_content is given, parent_pipe is a socket, and requests for reports that arrive
    on it are answered with the returned content; see `answer_requests`. on_worker_stopped is called
    when the worker has stopped, also after an error.
    """
    asyncio.run(_run_worker(worker, queues, parent_pipe, make_report_content, on_worker_stopped))


async def _run_worker(
    worker: Worker,
    queues: Sequence[Queue],
    parent_pipe: int | None,
    make_report_content: Callable[[bytes], bytes] | None,
    on_worker_stopped: Callable[[], object] | None,
) -> None:
    if parent_pipe is not None:
        loop = asyncio.get_running_loop()
        request_stop = partial(_call_in_loop_unless_closed, loop, worker.request_stop)
        listen = partial(_request_stop_at_pipe_end, parent_pipe, request_stop)
        if make_report_content is not None:
            listen = partial(answer_requests, parent_pipe, request_stop, make_report_content)
        threading.Thread(target=listen, name="hasten parent", daemon=True).start()
    try:
        await worker.run()
    finally:
        if on_worker_stopped is not None:
            on_worker_stopped()
    for queue in queues:
        await queue.aclose()
    _start_exit_timer()


def move_parent_pipe_from_stdin() -> int:
    """Move the pipe from the parent process, which is standard input, to a new file descriptor.

    Returns the descriptor. Standard input becomes an empty file, so that handlers cannot read from
    the pipe.
    """
    pipe = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return pipe


def _request_stop_at_pipe_end(pipe: int, request_stop: Callable[[], object]) -> None:
    while os.read(pipe, 1):
        pass
    request_stop()


def _call_in_loop_unless_closed(
    loop: asyncio.AbstractEventLoop, function: Callable[[], object]
) -> None:
    """Call a function in an event loop of another thread, if the loop is not closed."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(function)


def _start_exit_timer() -> None:
    """Start a timer that ends the process after `THREADS_SECONDS`, even if handlers still run.

    Python itself would wait for the threads of the handlers without a limit.
    """

    def exit_without_waiting_for_threads() -> None:
        logger.warning("ending the process although threads of handlers are still running")
        logging.shutdown()
        os._exit(0)

    timer = threading.Timer(THREADS_SECONDS, exit_without_waiting_for_threads)
    timer.daemon = True
    timer.start()


def describe_queue(queue: Queue) -> str:
    """Return a text for the log with the name, the tasks and the store of a queue."""
    tasks = ", ".join(sorted(queue.tasks)) or "no tasks: all its jobs will fail"
    return f"queue {queue.name} ({tasks}) in {queue.engine.url}"
