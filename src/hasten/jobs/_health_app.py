"""`Health`: the health endpoints of workers as an ASGI application."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Final
from urllib.parse import parse_qs

from hasten._asgi import Receive, Scope, Send
from hasten._durations import Duration, to_nearest_ms
from hasten._loops import wait_for_concurrent_future
from hasten._responses import send_response
from hasten.errors import InvalidOption
from hasten.jobs._health import (
    HealthResponse,
    judge_liveness,
    judge_readiness,
    make_no_such_queue_response,
    make_store_unavailable_response,
    predict_wait,
)
from hasten.jobs._late_schedules import describe_late_schedules
from hasten.jobs._queue import Queue
from hasten.jobs._queue_readings import (
    QueueReading,
    start_reading_paused_flags,
    start_reading_queues,
)
from hasten.jobs._run_totals import add_totals
from hasten.jobs._states import State
from hasten.jobs._worker import Worker
from hasten.jobs._worker_state import WorkerProcessReport

DEFAULT_MAX_BLOCKED: Final = 30.0
DEFAULT_MAX_FETCH_AGE: Final = 30.0
DEFAULT_STORE_TIMEOUT: Final = 2.0

LIVENESS: Final = "livez"
READINESS: Final = "readyz"
SCALE: Final = "scale"
ENDPOINTS: Final = (LIVENESS, READINESS, SCALE)


class HealthChecks:
    """Responds to requests for the health of the workers of one or more processes.

    Durations are in seconds. queues are all queues of the workers. Without max_schedule_lateness,
    late schedules do not affect the readiness.
    """

    def __init__(
        self,
        queues: Sequence[Queue],
        *,
        max_blocked: float = DEFAULT_MAX_BLOCKED,
        max_fetch_age: float = DEFAULT_MAX_FETCH_AGE,
        max_schedule_lateness: float | None = None,
        store_timeout: float = DEFAULT_STORE_TIMEOUT,
    ) -> None:
        self._queues = {queue.name: queue for queue in queues}
        self._max_blocked = max_blocked
        self._max_fetch_age = max_fetch_age
        self._max_schedule_lateness = max_schedule_lateness
        self._store_timeout = store_timeout

    def start_check(
        self, endpoint: str, query: str, reports: Sequence[WorkerProcessReport]
    ) -> Future[HealthResponse]:
        """Begin to respond to a request, and return the future of the response.

        endpoint is one of `ENDPOINTS`, and query the query string of the request.
        """
        if endpoint == LIVENESS:
            return _completed_future(judge_liveness(reports, max_blocked=self._max_blocked))
        if endpoint == READINESS:
            queues = list(self._queues.values())
            with_schedules = self._max_schedule_lateness is not None
            pauses = start_reading_paused_flags(
                queues, self._store_timeout, with_schedules=with_schedules
            )
            return _respond_when_read(
                pauses, lambda readings: self._judge_readiness(reports, readings)
            )
        name = parse_qs(query).get("queue", [None])[-1]
        queue = None if name is None else self._queues.get(name)
        if queue is None:
            return _completed_future(make_no_such_queue_response(name, list(self._queues)))
        found = start_reading_queues([queue], self._store_timeout)
        return _respond_when_read(found, lambda readings: _predict_wait(reports, readings[0]))

    def _judge_readiness(
        self, reports: Sequence[WorkerProcessReport], readings: Sequence[QueueReading]
    ) -> HealthResponse:
        paused = [each.queue for each in readings if each.is_paused]
        late: list[str] = []
        seconds = self._max_schedule_lateness
        if seconds is not None:
            for each in readings:
                # The runs of a paused queue wait because somebody wants that.
                if not each.is_paused:
                    late += describe_late_schedules(each.queue, each.find_late(seconds), seconds)
        return judge_readiness(
            reports, paused, max_fetch_age=self._max_fetch_age, late_schedules=late
        )


def _predict_wait(reports: Sequence[WorkerProcessReport], reading: QueueReading) -> HealthResponse:
    if reading.error is not None:
        return make_store_unavailable_response(reading.error)
    return predict_wait(
        reports,
        reading.queue,
        backlog=reading.backlog,
        running=reading.counts[State.ACTIVE],
        slots=reading.slots,
        is_paused=reading.is_paused,
    )


def _completed_future(response: HealthResponse) -> Future[HealthResponse]:
    future: Future[HealthResponse] = Future()
    future.set_result(response)
    return future


def _respond_when_read(
    readings: Future[list[QueueReading]], respond: Callable[[list[QueueReading]], HealthResponse]
) -> Future[HealthResponse]:
    """Return the future of a response that is made from readings."""
    response: Future[HealthResponse] = Future()

    def finish(done: Future[list[QueueReading]]) -> None:
        try:
            response.set_result(respond(done.result()))
        except Exception as error:  # noqa: BLE001  # raised again where the response is awaited
            response.set_exception(error)

    readings.add_done_callback(finish)
    return response


def encode_response(response: HealthResponse) -> bytes:
    """Return the body of a response as JSON."""
    return json.dumps(response.body).encode() + b"\n"


def report_of_workers(workers: Sequence[Worker], process_number: int = 1) -> WorkerProcessReport:
    """Return the report of the workers of this process. Safe to call from any thread.

    process_number is the number of this process among several, from 1.
    """
    return WorkerProcessReport(
        process_number,
        [worker.state() for worker in workers],
        add_totals([worker.totals() for worker in workers]),
    )


class Health:
    """The health of workers of this process, as an ASGI application with three endpoints.

        app.mount("/health", Health(worker))

    - ``/livez`` is 200 while the event loop of each worker turns, and 503 if one has been blocked
      for more than max_blocked, or a worker has stopped because of an internal error.
    - ``/readyz`` is 200 if each worker has successfully asked the store for jobs of each of its
      queues within max_fetch_age, and 503 with the reasons if not: the store is unavailable, the
      event loop is blocked, or the worker is stopping or not running. A paused queue is reported,
      and is ready. If max_schedule_lateness is set, it is also 503 while the next run of a schedule
      has been due for longer than that, unless its queue is paused.
    - ``/scale?queue=mail`` predicts how long a new job of the queue will wait: an object with the
      numbers wait_seconds, backlog (jobs that are ready), running and slots (of all workers of the
      queue). It is 404 for a queue that no worker here has, and 503 if the store is unavailable.

    All respond with JSON. store_timeout is how long to wait for the store.
    """

    def __init__(
        self,
        *workers: Worker,
        max_blocked: Duration = DEFAULT_MAX_BLOCKED,
        max_fetch_age: Duration = DEFAULT_MAX_FETCH_AGE,
        max_schedule_lateness: Duration | None = None,
        store_timeout: Duration = DEFAULT_STORE_TIMEOUT,
    ) -> None:
        if not workers or not all(isinstance(worker, Worker) for worker in workers):
            raise InvalidOption("workers", workers, "one or more Worker objects")
        self._workers = workers
        self._checks = HealthChecks(
            list(dict.fromkeys(queue for worker in workers for queue in worker.queues)),
            max_blocked=to_nearest_ms("max_blocked", max_blocked, at_least_ms=1) / 1000,
            max_fetch_age=to_nearest_ms("max_fetch_age", max_fetch_age, at_least_ms=1) / 1000,
            max_schedule_lateness=None
            if max_schedule_lateness is None
            else to_nearest_ms("max_schedule_lateness", max_schedule_lateness, at_least_ms=1000)
            / 1000,
            store_timeout=to_nearest_ms("store_timeout", store_timeout, at_least_ms=1) / 1000,
        )
        for worker in workers:
            worker.start_counting_runs()

    def __repr__(self) -> str:
        return f"<Health of {', '.join(worker.name for worker in self._workers)}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to a request. The last part of its path is the name of the endpoint."""
        if scope["type"] != "http":
            return
        endpoint = scope["path"].rstrip("/").rpartition("/")[2]
        if endpoint not in ENDPOINTS:
            body = {"status": "no such page", "detail": "the pages are /livez, /readyz and /scale"}
            response = HealthResponse(404, body)
        elif scope["method"] not in ("GET", "HEAD"):
            response = HealthResponse(405, {"status": "only GET and HEAD are allowed"})
        else:
            query = scope.get("query_string", b"").decode("latin-1")
            report = report_of_workers(self._workers)
            response = await wait_for_concurrent_future(
                self._checks.start_check(endpoint, query, [report])
            )
        headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
        if response.status == 405:
            headers.append((b"allow", b"GET, HEAD"))
        await send_response(scope, send, response.status, headers, encode_response(response))
