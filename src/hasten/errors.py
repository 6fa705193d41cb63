"""The exceptions that hasten raises.

HastenError
├── MissingExtra            an optional dependency is missing: install the extra in the message
├── UsageError              a call at the wrong place or time: change the code (also RuntimeError)
│   ├── AsyncioRequired     the call needs asyncio, which is not running
│   └── MissingMiddleware   the call needs a middleware: add it to the application
├── InvalidOption           an option has a wrong value: change the value     (also ValueError)
├── InvalidTask             a function cannot be a task: change the function   (also TypeError)
├── InvalidArgument         an argument does not fit the task: change the call (also TypeError)
│   └── PayloadTooLarge     the arguments are too large: store them elsewhere, pass a reference
├── RequestRefused          a request cannot be served: respond with its status and problem()
│   ├── BodyRefused         the compressed body is malformed or too large
│   ├── InvalidParameter    a query parameter is invalid                      (also ValueError)
│   ├── RowNotFound         the requested row does not exist                 (also LookupError)
│   └── LimitExceeded       a rate limit is exceeded: retry later
├── LimitNotFound           no limit with this name applies to the request   (also LookupError)
├── ResponseBroken          the rest of a compressed response cannot be sent
├── StoreError              an operation in the store failed; nothing was written, but see below
│   ├── StoreBusy           another process has locked the store for too long: retry
│   ├── StoreReadOnly       the store is not writable: change its permissions
│   ├── StoreFull           the disk or memory of the store is full: free space
│   ├── StoreCorrupt        the store is damaged, or of another program: restore it or use another
│   ├── StoreTooNew         a newer version of hasten wrote the store: upgrade hasten
│   ├── StoreUnavailable    the store cannot be reached or opened: see the message
│   ├── StoreRejected       the store does not accept this data: change the data
│   ├── StoreInterrupted    the connection broke: the operation may or may not have been applied
│   │   └── StoreTimeout    no response in time: the operation may or may not have been applied
│   └── AddedInPart         only the first jobs of a large call were added: add the remaining ones
├── JobNotFound             the job never existed, or was removed            (also LookupError)
├── ScheduleNotFound        the schedule never existed, or was removed       (also LookupError)
├── WrongState              the state of the job does not allow the operation
├── BatchClosed             the batch takes no more jobs: open another one
├── JobFailed               the awaited job failed and will not be retried: see the message
│   └── JobCancelled        the awaited job was cancelled
├── ResultTimeout           the awaited job is not finished yet: wait longer (also TimeoutError)
├── TargetError             a queue on the command line cannot be used: see the message
└── RunFailed               hasten ended the run of a job: stored as the error of the job
    ├── JobTimeout          the run took longer than the job's time-out
    ├── InvalidResult       the result of the handler cannot be stored
    ├── UnawaitedChildren   the handler returned without waiting for its child jobs
    └── ProcessDied         the process of the handler has ended

Errors that callers handle in different ways have different classes. The exceptions that a handler
raises to control its own job (`RetryAfter`, `Unrecoverable`) are in `hasten.jobs`.
`PaginationWarning` is a warning.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from hasten._decision import Decision
from hasten._escapes import escape_unprintable


class HastenError(Exception):
    """The base class of the exceptions of hasten.

    Messages may quote texts from clients and stores. Control characters in them are escaped in the
    message, but not in the attributes.
    """

    def __str__(self) -> str:
        return escape_unprintable(super().__str__(), keep="\n\t")

    def __reduce__(self) -> tuple[object, ...]:
        # A handler in its own process sends its exception pickled to the worker. By default, pickle
        # would call the class with the message as its only argument, but most need others.
        return _restore_pickled_error, (type(self), self.args, self.__dict__)


def _restore_pickled_error(
    kind: type[HastenError], args: tuple[object, ...], attributes: dict[str, object]
) -> HastenError:
    """Return a copy of a pickled exception. Its `__init__` is not called."""
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(attributes)
    return error


class MissingExtra(HastenError):
    """An optional dependency is not installed. extra is the extra of hasten that installs it."""

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(
            f"{module} is not installed: install hasten with its extra {extra!r}; "
            f"in a clone of its repository: pip install -e '.[{extra}]'"
        )
        self.module = module
        self.extra = extra


class UsageError(HastenError, RuntimeError):
    """A call is made at the wrong place or time, or cannot be combined with another one.

    An option whose value is always wrong raises `InvalidOption` instead.
    """


class AsyncioRequired(UsageError):
    """A feature that needs asyncio was used without a running asyncio loop.

    For most features, trio is not enough either; middlewares of hasten also run on trio.
    """

    def __init__(self, what: str, instead: str) -> None:
        super().__init__(f"{what} needs asyncio, which is not running in this thread: {instead}")
        self.what = what
        self.instead = instead


class MissingMiddleware(UsageError):
    """A feature was used, but the application does not have the middleware that it needs."""

    def __init__(self, what: str, middleware: str) -> None:
        super().__init__(
            f"{what} needs {middleware}: add it with app.add_middleware({middleware}, …)"
        )
        self.what = what
        self.middleware = middleware


class InvalidOption(HastenError, ValueError):
    """An option has an invalid value.

    expected completes "must be …" in the message. code is the kind of mistake, for programs:
    "out_of_range", "conflict" (with another option), "duplicate", and "invalid" for most others. If
    is_private is set, the value is a secret: the message only shows its type.
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
        shown = f"<{type(value).__name__}>" if is_private else _safe_repr(value)
        super().__init__(f"{option}={shown}: must be {expected}")
        self.option = option
        self.value = value
        self.code = code

    @classmethod
    def conflict(cls, option: str, value: object, other: str) -> InvalidOption:
        """Return the error for an option that cannot be combined with another option (other)."""
        error = cls(option, value, "", code="conflict")
        error.args = (f"{option}={_safe_repr(value)}: cannot be combined with {other}",)
        return error


def _safe_repr(value: object) -> str:
    """Return the repr of a value, at most 200 characters of it. Never raises."""
    try:
        shown = repr(value)
    except Exception:  # noqa: BLE001  # an int of 5,000 digits, or an object whose __repr__ fails
        return f"<{type(value).__name__} whose repr() fails>"
    return shown if len(shown) <= 200 else shown[:200] + "…"


class InvalidArgument(HastenError, TypeError):
    """An argument of a job does not fit the task, or cannot be stored as JSON without a change.

    - task: the name of the task.
    - argument: the name of the parameter, "" if the error is not about a single one.
    - path: the invalid part of the argument, such as `order.lines[2].price`.
    """

    def __init__(self, task: str, argument: str, reason: str, inside: str = "") -> None:
        self.task = task
        self.argument = argument
        self.path = argument + inside
        super().__init__(f"{task}: argument {self.path!r} {reason}")

    @classmethod
    def of_call(cls, task: str, argument: str, reason: str) -> InvalidArgument:
        """Return the error for a call that does not fit the signature of the task.

        Its message does not name the argument, because reason does so.
        """
        error = cls(task, argument, reason)
        error.args = (f"{task}: {reason}",)
        return error


class PayloadTooLarge(InvalidArgument):
    """The arguments of a job are larger than `max_size` of its queue, in bytes of JSON."""

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
    """A request cannot be served: the client has made a mistake, or has to wait.

    status, headers and `problem()` describe the response, which `EncodedResponse.for_error(error)`
    creates. code names the kind of mistake, for programs.
    """

    status: int
    code: str
    headers: Mapping[str, str] = {}

    def problem(self) -> dict[str, object]:
        """Return the body of the response: the members of a problem document (RFC 9457)."""
        return {
            "type": "about:blank",  # only the status tells the type: RFC 9457, section 4.2.1
            "title": _TITLES[self.status],
            "status": self.status,
            "detail": str(self),
            "code": self.code,
        }


# The phrases of RFC 9110, section 15. HTTPStatus of Python 3.11 and 3.12 has older ones for some.
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
    """The compressed body of a request could not be decoded completely.

    status is 413 for a body that is too large or takes too long to decode, 415 for an encoding that
    is not supported, and 400 for a malformed body.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"request body refused: {reason}")
        self.status = status
        self.reason = reason
        self.code = _BODY_CODES[status]


_BODY_CODES: Final = {400: "malformed_body", 413: "body_too_large", 415: "unsupported_encoding"}


class InvalidParameter(RequestRefused, ValueError):
    """A parameter of a request has an invalid value. The database was not queried.

    - parameter: the name of the parameter.
    - value: the text that the client sent, or None if the response must not repeat it.
    - code: the kind of mistake, for programs, such as "out_of_range" or "unknown_name".
    - status: 422, or 400 for an invalid cursor.
    - minimum, maximum, allowed: the smallest and the largest valid value, and the list of valid
      values. They are None or empty where they do not apply.
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
        super().__init__(f"{_format_assignment(parameter, value)}: {reason}")
        self.parameter = parameter
        self.value = value
        self.code = code
        self.status = status
        self.minimum = minimum
        self.maximum = maximum
        self.allowed = tuple(allowed)

    def problem(self) -> dict[str, object]:
        """Return the problem document, with the members parameter, minimum, maximum and allowed."""
        problem = {**super().problem(), "parameter": self.parameter}
        if self.minimum is not None:
            problem["minimum"] = self.minimum
        if self.maximum is not None:
            problem["maximum"] = self.maximum
        if self.allowed:
            problem["allowed"] = list(self.allowed)
        return problem


def _format_assignment(parameter: str, value: str | None) -> str:
    if value is None:
        return parameter
    # repr() escapes surrogates, which come from malformed bytes and cannot be encoded as UTF-8.
    return f"{parameter}={value!r}" if len(value) <= 100 else f"{parameter}={value[:100]!r}…"


class RowNotFound(RequestRefused, LookupError):
    """The requested row does not exist, or the client may not see it. kind names it: "user"."""

    status = 404
    code = "not_found"

    def __init__(self, kind: str) -> None:
        super().__init__(f"there is no such {kind}")
        self.kind = kind


class LimitExceeded(RequestRefused):
    """A rate limit is exceeded, or its store is unavailable and `on_store_error` is "deny".

    status is 429 in the first case, 503 in the second. decision has the details, and retry_after
    the seconds to wait.
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
        """Return the body of the response: a problem document of a type registered with IANA."""
        limits = [self.decision.name]
        return _limit_problem(self.status, _TITLES[self.status], limits, self.decision.unavailable)


def _limit_problem(
    status: int, title: str, limits: Sequence[str], server_lacks_capacity: bool
) -> dict[str, object]:
    """Return the problem document of a request that was refused by a limit or by load shedding.

    server_lacks_capacity chooses the problem type for a server without capacity or store, instead
    of the one for a client that has exceeded a limit.
    """
    kind = "temporary-reduced-capacity" if server_lacks_capacity else "quota-exceeded"
    detail = "The server is busy" if server_lacks_capacity else "Too many requests"
    problem: dict[str, object] = {
        "type": f"https://iana.org/assignments/http-problem-types#{kind}",
        "title": title,
        "status": status,
        "detail": f"{detail}, please try again later.",
    }
    return problem if server_lacks_capacity else {**problem, "violated-policies": list(limits)}


class LimitNotFound(HastenError, LookupError):
    """No limit with this name applies to the request. names are those of the limits that apply."""

    def __init__(self, name: str, names: Collection[str]) -> None:
        known = ", ".join(map(repr, names)) or "none"
        super().__init__(f"no limit {name!r} applies to this request; limits that apply: {known}")
        self.name = name
        self.names = tuple(names)


class PaginationWarning(UserWarning):
    """A query of a page will be slow on a large table, or its order or result is ambiguous.

    The message says what to change. Warnings are issued in development only, unless the option
    ``advise`` says otherwise.
    """


class ResponseBroken(HastenError):
    """The rest of a compressed response cannot be sent, so the client receives a part of it."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the response cannot be completed: {reason}")
        self.reason = reason


class StoreError(HastenError):
    """An operation in the store failed. It wrote nothing, except in two cases:

    - After `StoreInterrupted` and `StoreTimeout`, the operation may or may not have been applied.
    - After `AddedInPart`, the first jobs were added: the error has their ids.

    store is the URL of the store, without its password.
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
    """The database is damaged, or belongs to another program."""


class StoreTooNew(StoreError):
    """The store was written by a newer version of hasten. This version does not change it."""


class StoreUnavailable(StoreError):
    """The store cannot be reached or opened."""


class StoreRejected(StoreError):
    """The store is available, but does not accept this data. A retry would fail again."""


class StoreInterrupted(StoreError):
    """The connection broke before the response to an operation arrived.

    The operation may or may not have been applied, but never only in part. Adding a job again is
    safe if it has a job_id.
    """

    def __init__(self, store: str, reason: str) -> None:
        super().__init__(store, f"{reason}; the operation may or may not have been applied")


class StoreTimeout(StoreInterrupted):
    """The store did not respond within the time-out. It may still apply the operation."""


class AddedInPart(StoreError):
    """A call added too many jobs for one transaction, and a transaction after the first one failed.

    ids are the ids of the jobs that were added: the first jobs of the call, in its order. To add
    the remaining jobs, pass those from index `len(error.ids)` on. If the cause of this error is
    `StoreInterrupted`, some of these may have been added, too.
    """

    def __init__(self, cause: StoreError, ids: Sequence[str], total: int) -> None:
        super().__init__(
            cause.store,
            f"only the first {len(ids):,} of {total:,} jobs were added, then: {cause.reason}",
        )
        self.ids = list(ids)


class JobNotFound(HastenError, LookupError):
    """The queue has no job with this id: it never existed, or was removed."""

    def __init__(self, queue: str, job_id: str, reason: str = "") -> None:
        super().__init__(f"queue {queue!r} has no job {job_id!r}{reason and ': '}{reason}")
        self.queue = queue
        self.job_id = job_id


class ScheduleNotFound(HastenError, LookupError):
    """The queue has no schedule with this id: it never existed, or was removed."""

    def __init__(self, queue: str, schedule_id: str) -> None:
        super().__init__(f"queue {queue!r} has no schedule {schedule_id!r}")
        self.queue = queue
        self.schedule_id = schedule_id


class WrongState(HastenError):
    """The state of the job does not allow this operation."""

    def __init__(self, queue: str, job_id: str, state: str, needed: Collection[str]) -> None:
        super().__init__(
            f"job {job_id!r} of queue {queue!r} is {state}: must be {' or '.join(needed)}"
        )
        self.queue = queue
        self.job_id = job_id
        self.state = state


class BatchClosed(HastenError):
    """The batch was closed or deleted, so no more jobs can be added to it."""

    def __init__(self, queue: str, batch_id: str) -> None:
        super().__init__(
            f"batch {batch_id!r} of queue {queue!r} takes no more jobs: it was closed or deleted"
        )
        self.queue = queue
        self.batch_id = batch_id


class JobFailed(HastenError):
    """The awaited job failed and will not be retried. error is the stored error of the job."""

    def __init__(self, job_id: str, error: str) -> None:
        super().__init__(f"job {job_id!r} failed: {escape_unprintable(error)}")
        self.job_id = job_id
        self.error = error


class JobCancelled(JobFailed):
    """The awaited job was cancelled."""


class ResultTimeout(HastenError, TimeoutError):
    """The awaited job did not finish within the time-out. It may finish later."""

    def __init__(self, job_id: str, seconds: float) -> None:
        super().__init__(f"job {job_id!r} has not finished within {seconds:g} s")
        self.job_id = job_id
        self.seconds = seconds


# Tasks, the command line, and runs of jobs -------------------------------------------------------


class InvalidTask(HastenError, TypeError):
    """A function cannot be a task.

    For example, JSON data can never be converted to the type of one of its parameters.
    """


class TargetError(HastenError):
    """A target on the command line, such as `app.tasks:queue`, cannot be found or imported."""


class RunFailed(HastenError):
    """An attempt to run a job failed, but not with an exception of its handler.

    hasten has ended the run, or could not store its result.

    Such an exception is not raised to a caller. It is stored as the error of the job. To fail a job
    at once instead of retrying it, list the class in the option `give_up_on` of its task.
    """


class JobTimeout(RunFailed):
    """One run of a job took longer than the option `timeout` allows for a run."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"timed out after {seconds:g} s")
        self.seconds = seconds


class InvalidResult(RunFailed):
    """The result of a handler cannot be stored. The job fails without a retry."""


class UnawaitedChildren(RunFailed):
    """A handler has returned without waiting for its child jobs. The job fails without a retry."""


class ProcessDied(RunFailed):
    """The process of a handler ended while it ran a job, or while it started."""

    def __init__(self, how: str, *, while_starting: bool = False) -> None:
        if while_starting:
            super().__init__(
                f"the handler's process died while starting: {how}; "
                "see the standard error of the worker"
            )
        else:
            super().__init__(f"the handler's process died: {how}")
        self.how = how
