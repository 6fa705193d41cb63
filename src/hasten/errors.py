"""The exceptions of hasten.

HastenError
├── MissingExtra            an optional dependency is not installed: install the extra it names
├── UsageError              a call is wrong here or now: fix the call         (also RuntimeError)
│   ├── AsyncioRequired     it needs asyncio, and another event loop runs
│   └── MissingMiddleware   it needs a middleware around the application: add it
├── InvalidOption           the value of an option is wrong: fix the value    (also ValueError)
├── InvalidTask             a function cannot be a task: fix the function     (also TypeError)
├── InvalidArgument         an argument does not fit the task: fix the call   (also TypeError)
│   └── PayloadTooLarge     all arguments together are too large: store a reference instead
├── RequestRefused          a request cannot be served: send its status and problem()
│   ├── BodyRefused         the compressed body is malformed or too large
│   ├── InvalidParameter    a parameter of the query is invalid               (also ValueError)
│   ├── RowNotFound         there is no such row                             (also LookupError)
│   └── LimitExceeded       a rate limit is exceeded: retry later
├── LimitNotFound           this request is under no limit of that name      (also LookupError)
├── ResponseBroken          a response cannot be completed: part of it is lost or too long
├── StoreError              an operation failed in the store; most kinds wrote nothing
│   ├── StoreBusy           another process held the lock for too long: retry
│   ├── StoreReadOnly       the store cannot be written: fix its permissions
│   ├── StoreFull           its disk or memory is full: free some
│   ├── StoreCorrupt        it is damaged or of another program: restore it, or use another one
│   ├── StoreTooNew         a newer hasten wrote it: upgrade this one
│   ├── StoreUnavailable    it cannot be reached or opened: see the reason
│   ├── StoreRejected       it refuses this data: change the data
│   ├── StoreInterrupted    the connection broke: the operation may or may not have been applied
│   │   └── StoreTimeout    no response in time: the operation may or may not have been applied
│   └── AddedInPart         only the first jobs of a large call were added: add the others
├── JobNotFound             there is no such job, or it was removed          (also LookupError)
├── WrongState              the job is not in a state that allows this
├── JobFailed               the awaited job failed for good; its error is in the message
│   └── JobCancelled        it was cancelled
├── ResultTimeout           the job did not finish in time, but still may    (also TimeoutError)
├── TargetError             the command line does not name a queue: see the message
└── RunFailed               hasten ended a run of a job; it is the error of the job
    ├── JobTimeout          the run took longer than the job's time-out
    ├── InvalidResult       the result of the handler cannot be stored
    └── ProcessDied         the process of the handler has ended

The class shows what the caller can do. The exceptions that a handler raises to control its own job
(`RetryAfter`, `Unrecoverable`) are in `hasten.jobs`. `PaginationWarning` is a warning.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from hasten._decision import Decision
from hasten._escapes import printable


class HastenError(Exception):
    """The base class of all exceptions that hasten raises on purpose.

    The message escapes control characters of texts from clients and stores; the attributes have the
    original texts.
    """

    def __str__(self) -> str:
        return printable(super().__str__(), keep="\n\t")

    def __reduce__(self) -> tuple[object, ...]:
        # The default calls the class with the message only. These errors must be pickled by a
        # handler that runs in its own process.
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(
    kind: type[HastenError], args: tuple[object, ...], facts: dict[str, object]
) -> HastenError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(facts)
    return error


class MissingExtra(HastenError):
    """An optional dependency is not installed."""

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(
            f"{module} is not installed: it comes with the extra {extra!r} of hasten; "
            f"in a clone of it: pip install -e '.[{extra}]'"
        )
        self.module = module
        self.extra = extra


class UsageError(HastenError, RuntimeError):
    """A call cannot work in this place, at this time or in this combination.

    `InvalidOption` is for a value that is wrong wherever it is passed.
    """


class AsyncioRequired(UsageError):
    """A feature that needs asyncio was used on another event loop, such as trio."""

    def __init__(self, what: str, instead: str) -> None:
        super().__init__(f"{what} needs asyncio, but another event loop runs: {instead}")
        self.what = what
        self.instead = instead


class MissingMiddleware(UsageError):
    """A feature was used in a request without the middleware that it needs."""

    def __init__(self, what: str, middleware: str) -> None:
        super().__init__(
            f"{what} needs {middleware}: add it with app.add_middleware({middleware}, …)"
        )
        self.what = what
        self.middleware = middleware


class InvalidOption(HastenError, ValueError):
    """An option has a value that it cannot have.

    expected completes "must be …" in the message. code is for programs: "invalid" unless the kind
    of mistake has a name of its own, such as "out_of_range", "conflict" (with another option) or
    "duplicate". If is_private, the message shows the type of the value instead of the value.
    """

    def __init__(
        self,
        option: str,
        value: object,
        expected: str,
        *,
        code: str = "invalid",
        is_private: bool = False,
    ) -> None:
        shown = f"<{type(value).__name__}>" if is_private else _shown(value)
        super().__init__(f"{option}={shown}: must be {expected}")
        self.option = option
        self.value = value
        self.code = code

    @classmethod
    def conflict(cls, option: str, value: object, other: str) -> InvalidOption:
        """Return the error of an option that cannot be combined with another one."""
        error = cls(option, value, "", code="conflict")
        error.args = (f"{option}={_shown(value)}: cannot be combined with {other}",)
        return error


def _shown(value: object) -> str:
    try:
        shown = repr(value)
    except Exception:  # noqa: BLE001  # a number of 5,000 digits, or an object with a bad __repr__
        return f"<{type(value).__name__} that has no repr>"
    return shown if len(shown) <= 200 else shown[:200] + "…"


class InvalidArgument(HastenError, TypeError):
    """An argument of a call does not fit the task, cannot be stored as JSON, or would change.

    argument is the name of the parameter, "" if the error is not about a single one. path leads
    from the argument to the invalid part of it: `order.lines[2].price`.
    """

    def __init__(self, task: str, argument: str, reason: str, inside: str = "") -> None:
        self.task = task
        self.argument = argument
        self.path = argument + inside
        super().__init__(f"{task}: argument {self.path!r} {reason}")

    @classmethod
    def of_call(cls, task: str, argument: str, reason: str) -> InvalidArgument:
        """Return the error of a call that the parameters of the task do not accept."""
        error = cls(task, argument, reason)
        error.args = (f"{task}: {reason}",)
        return error


class PayloadTooLarge(InvalidArgument):
    """The arguments of one job, as JSON, are larger than the queue's max_size."""

    def __init__(self, task: str, argument: str, size: int, limit: int) -> None:
        super().__init__(
            task,
            argument,
            f"makes the job too large: {size:,} bytes of JSON, the maximum is {limit:,}. "
            "Store the data elsewhere and pass a reference, or increase Queue(max_size=…)",
        )
        self.size = size
        self.limit = limit


class RequestRefused(HastenError):
    """A request cannot be served: the client made a mistake, or has to wait.

    status, headers and `problem` describe the response; `EncodedResponse.for_error(error)` builds
    it. code is for programs.
    """

    status: int
    code: str
    headers: Mapping[str, str] = {}

    def problem(self) -> dict[str, object]:
        """Return the body of the response, for ``application/problem+json``. RFC 9457."""
        return {
            "type": "about:blank",  # the status has the kind: RFC 9457, section 4.2.1
            "title": _TITLES[self.status],
            "status": self.status,
            "detail": str(self),
            "code": self.code,
        }


# Python's own HTTPStatus has older phrases for some. RFC 9110, section 15.
_TITLES: Final = {
    400: "Bad Request",
    404: "Not Found",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    503: "Service Unavailable",
}


class BodyRefused(RequestRefused):
    """The compressed body of a request was not decoded to its end.

    status is 413 for a body that is too large or takes too long, 415 for an encoding that is not
    accepted, and 400 for a malformed body.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"request body refused: {reason}")
        self.status = status
        self.reason = reason
        self.code = _BODY_CODES[status]


_BODY_CODES: Final = {400: "malformed_body", 413: "body_too_large", 415: "unsupported_encoding"}


class InvalidParameter(RequestRefused, ValueError):
    """A parameter of a request has a value that it cannot have. The database was not queried.

    code is for programs: "out_of_range", "unknown_name". status is 422, or 400 for an invalid
    cursor. value is the text that the client sent, None if the response must not repeat it.
    minimum, maximum and allowed are the bounds that the value violates, if it has bounds.
    """

    def __init__(
        self,
        parameter: str,
        value: str | None,
        reason: str,
        *,
        code: str,
        status: int = 422,
        minimum: int | None = None,
        maximum: int | None = None,
        allowed: Sequence[str] = (),
    ) -> None:
        super().__init__(f"{_assignment(parameter, value)}: {reason}")
        self.parameter = parameter
        self.value = value
        self.code = code
        self.status = status
        self.minimum = minimum
        self.maximum = maximum
        self.allowed = tuple(allowed)

    def problem(self) -> dict[str, object]:
        """Return the body of the response, with parameter, minimum, maximum and allowed."""
        problem = {**super().problem(), "parameter": self.parameter}
        if self.minimum is not None:
            problem["minimum"] = self.minimum
        if self.maximum is not None:
            problem["maximum"] = self.maximum
        if self.allowed:
            problem["allowed"] = list(self.allowed)
        return problem


def _assignment(parameter: str, value: str | None) -> str:
    if value is None:
        return parameter
    # repr, so that the text can be encoded whatever bytes the client has sent.
    return f"{parameter}={value!r}" if len(value) <= 100 else f"{parameter}={value[:100]!r}…"


class RowNotFound(RequestRefused, LookupError):
    """The requested row does not exist, or this client must not see it."""

    status = 404
    code = "not_found"

    def __init__(self, kind: str) -> None:
        super().__init__(f"there is no such {kind}")
        self.kind = kind


class LimitExceeded(RequestRefused):
    """A rate limit is exceeded. decision has the facts.

    status is 429, or 503 if the store is unavailable and `on_store_error` is "deny".
    """

    def __init__(self, decision: Decision) -> None:
        reason = "its store is unavailable" if decision.unavailable else "exceeded"
        super().__init__(
            f"limit {decision.name!r}: {reason}; retry in {math.ceil(decision.retry_after):,} s"
        )
        self.decision = decision
        self.retry_after = decision.retry_after
        self.status = 503 if decision.unavailable else 429
        self.code = "store_unavailable" if decision.unavailable else "limit_exceeded"
        self.headers = {
            "retry-after": str(max(1, math.ceil(self.retry_after))),
            "cache-control": "no-store",
        }

    def problem(self) -> dict[str, object]:
        """Return the body of the response: a problem of a type that IANA has registered."""
        limits = [self.decision.name]
        return _limit_problem(self.status, _TITLES[self.status], limits, self.decision.unavailable)


def _limit_problem(
    status: int, title: str, limits: Sequence[str], is_busy: bool
) -> dict[str, object]:
    """Return the problem document for a request that a limit or load shedding has refused."""
    kind = "temporary-reduced-capacity" if is_busy else "quota-exceeded"
    detail = "The server is busy" if is_busy else "Too many requests"
    problem: dict[str, object] = {
        "type": f"https://iana.org/assignments/http-problem-types#{kind}",
        "title": title,
        "status": status,
        "detail": f"{detail}, please try again later.",
    }
    return problem if is_busy else {**problem, "violated-policies": list(limits)}


class LimitNotFound(HastenError, LookupError):
    """The request has no limit with this name. names are those of its limits."""

    def __init__(self, name: str, names: Collection[str]) -> None:
        there_is = ", ".join(map(repr, names)) or "none"
        super().__init__(f"this request has no limit {name!r}; its limits: {there_is}")
        self.name = name
        self.names = tuple(names)


class PaginationWarning(UserWarning):
    """A query is slow on a large table, or ambiguous. The message has the remedy.

    By default it is issued in development only: see the option ``advise``.
    """


class ResponseBroken(HastenError):
    """A compressed response cannot be continued or completed."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the response cannot be completed: {reason}")
        self.reason = reason


class StoreError(HastenError):
    """An operation failed in the store, and nothing of it was written.

    There are two exceptions. After `StoreInterrupted` and `StoreTimeout` the operation may or may
    not have been applied. `AddedInPart` has the ids of the jobs that were added.
    """

    def __init__(self, store: str, reason: str) -> None:
        super().__init__(f"{store}: {reason}")
        self.store = store
        self.reason = reason


class StoreBusy(StoreError):
    """Another process held the lock of the store for longer than the time-out."""


class StoreReadOnly(StoreError):
    """The store or its folder is not writable."""


class StoreFull(StoreError):
    """The disk or the memory of the store is full."""


class StoreCorrupt(StoreError):
    """The store is damaged, or is a database of another program."""


class StoreTooNew(StoreError):
    """A newer version of hasten wrote the store; this version does not change it."""


class StoreUnavailable(StoreError):
    """The store cannot be reached or opened."""


class StoreRejected(StoreError):
    """The store is available, but refuses this data. A retry would fail again."""


class StoreInterrupted(StoreError):
    """The connection broke before the response: all of the operation was applied, or nothing.

    Adding a job again is safe if it has a job_id.
    """

    def __init__(self, store: str, reason: str) -> None:
        super().__init__(store, f"{reason}; the operation may or may not have been applied")


class StoreTimeout(StoreInterrupted):
    """The store did not respond in time. It may still apply the operation."""


class AddedInPart(StoreError):
    """A call added more jobs than one transaction takes, and the store failed after the first.

    ids are the ids of the stored jobs: the first ones of the call, in its order. The others are not
    stored, but if the cause is `StoreInterrupted`, the next transaction may be. To continue, add
    the jobs from index `len(error.ids)` on.
    """

    def __init__(self, cause: StoreError, ids: Sequence[str], total: int) -> None:
        super().__init__(
            cause.store,
            f"the first {len(ids):,} of {total:,} jobs were added; the next failed: {cause.reason}",
        )
        self.ids = list(ids)


class JobNotFound(HastenError, LookupError):
    """The queue has no job with this id: it never existed, or was removed."""

    def __init__(self, queue: str, job_id: str, reason: str = "") -> None:
        super().__init__(f"queue {queue!r} has no job {job_id!r}{reason and ': '}{reason}")
        self.queue = queue
        self.job_id = job_id


class WrongState(HastenError):
    """The state of the job does not allow this operation."""

    def __init__(self, queue: str, job_id: str, state: str, needed: Collection[str]) -> None:
        super().__init__(
            f"job {job_id!r} of queue {queue!r} is {state}: must be {' or '.join(needed)}"
        )
        self.queue = queue
        self.job_id = job_id
        self.state = state


class JobFailed(HastenError):
    """The awaited job failed, and will not be retried."""

    def __init__(self, job_id: str, error: str) -> None:
        super().__init__(f"job {job_id!r} failed: {printable(error)}")
        self.job_id = job_id
        self.error = error


class JobCancelled(JobFailed):
    """The awaited job was cancelled."""


class ResultTimeout(HastenError, TimeoutError):
    """The job did not finish within the time-out. It may still finish."""

    def __init__(self, job_id: str, seconds: float) -> None:
        super().__init__(f"job {job_id!r} has not finished within {seconds:g} s")
        self.job_id = job_id
        self.seconds = seconds


# Tasks and runs of jobs --------------------------------------------------------------------------


class InvalidTask(HastenError, TypeError):
    """A function cannot be a task, or one of its annotations has no JSON form."""


class TargetError(HastenError):
    """A target of the command line cannot be used; the message has the reason and the remedy."""


class RunFailed(HastenError):
    """hasten ended a run of a job, or could not store its result: the attempt has failed.

    These are not raised to callers: they are the error of the job, and `give_up_on` accepts them.
    """


class JobTimeout(RunFailed):
    """A run took longer than its time-out."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"timed out after {seconds:g} s")
        self.seconds = seconds


class InvalidResult(RunFailed):
    """The result of a handler cannot be stored. The job is not run again."""


class ProcessDied(RunFailed):
    """The process of a handler ended during a job, or before it could start."""

    def __init__(self, how: str, *, while_starting: bool = False) -> None:
        if while_starting:
            super().__init__(
                f"the handler's process died while starting: {how}; "
                "see the standard error of the worker"
            )
        else:
            super().__init__(f"the handler's process died: {how}")
        self.how = how
