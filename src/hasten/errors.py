"""Every exception that hasten raises on purpose.

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
├── ResponseBroken          a response cannot go on: part of it is lost, or its length was wrong
├── StoreError              the store did not do it; most kinds wrote nothing
│   ├── StoreBusy           another process kept it locked for too long: try again
│   ├── StoreReadOnly       it cannot be written: fix its permissions
│   ├── StoreFull           its disk is full: make room
│   ├── StoreCorrupt        it is damaged or not ours: restore it or name another one
│   ├── StoreTooNew         a newer hasten wrote it: upgrade this one
│   ├── StoreUnavailable    it cannot be reached or opened: see the reason given
│   ├── StoreRejected       it works, but refuses this data: change the data
│   ├── StoreInterrupted    the connection broke before the answer: it was done, or it was not
│   │   └── StoreTimeout    it did not answer in time: it was done, or it was not
│   └── AddedInPart         of a large call, the first jobs were added: go on after them
├── JobNotFound             there is no such job, or it was removed          (also LookupError)
├── WrongState              the job is not in a state that allows this
├── JobFailed               the awaited job failed for good; its error is in the message
│   └── JobCancelled        it was cancelled
├── ResultTimeout           the job did not finish in time; it goes on        (also TimeoutError)
├── TargetError             the command line names no queue: see the message
└── RunFailed               hasten ended a run of a job; it is the error of the job
    ├── JobTimeout          the run took longer than the job's time-out
    ├── InvalidResult       what the handler returned cannot be stored
    └── ProcessDied         the process of the handler has ended

The classes answer "what can the caller do?". What a handler raises to steer its own job
(`RetryAfter`, `Unrecoverable`) is not an error of ours and lives in `hasten.jobs`.

One is no error, but advice that comes as a warning: `PaginationWarning`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from hasten._escapes import printable

if TYPE_CHECKING:
    from hasten._decision import Decision


class HastenError(Exception):
    """The root of the tree: catch it to catch everything that hasten raises on purpose.

    Control characters of texts from outside are escaped in the message; attributes have the texts
    as they are.
    """

    def __str__(self) -> str:
        return printable(super().__str__(), keep="\n\t")

    def __reduce__(self) -> tuple[object, ...]:
        # The default calls the class with the message alone. These errors have to come back from
        # a handler that runs in a process of its own.
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
    """Something was used on an event loop other than asyncio's, such as trio's."""

    def __init__(self, what: str, instead: str) -> None:
        super().__init__(f"{what} needs asyncio, and another event loop runs: {instead}")
        self.what = what
        self.instead = instead


class MissingMiddleware(UsageError):
    """Something was used in a request that needs a middleware around the application."""

    def __init__(self, what: str, middleware: str) -> None:
        super().__init__(
            f"{what} needs {middleware} around the application, and there is none: "
            f"app.add_middleware({middleware}, …)"
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
    """An argument of a call does not fit the task, cannot be stored as JSON, or would not arrive.

    argument is the name of the parameter, "" if no single one is at fault. path leads from the
    argument to the part of it that is at fault: `order.lines[2].price`.
    """

    def __init__(self, task: str, argument: str, reason: str, inside: str = "") -> None:
        self.task = task
        self.argument = argument
        self.path = argument + inside
        super().__init__(f"{task}: argument {self.path!r} {reason}")

    @classmethod
    def of_call(cls, task: str, argument: str, reason: str) -> InvalidArgument:
        """The parameters of the task do not take these arguments."""
        error = cls(task, argument, reason)
        error.args = (f"{task}: {reason}",)
        return error


class PayloadTooLarge(InvalidArgument):
    """The arguments of one job, as JSON, are larger than the queue allows."""

    def __init__(self, task: str, argument: str, size: int, limit: int) -> None:
        super().__init__(
            task,
            argument,
            f"makes the job too large: {size:,} bytes of JSON where {limit:,} are allowed. "
            "Store the data elsewhere and pass a reference, or raise Queue(max_size=…)",
        )
        self.size = size
        self.limit = limit


class RequestRefused(HastenError):
    """A request cannot be served, and the client is at fault or has to wait.

    status and `problem` are for the response, and so are headers, as far as there are any.
    `EncodedResponse.for_error(error)` makes a response of them. code is for programs.
    """

    status: int
    code: str
    headers: Mapping[str, str] = {}

    def problem(self) -> dict[str, object]:
        """Return the body of the response, for ``application/problem+json``. RFC 9457."""
        return {
            "type": "about:blank",  # the status says what kind it is: RFC 9457, section 4.2.1
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
    minimum, maximum and allowed are the bounds that the value missed, as far as it has some.
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
        """Return the body of the response: a problem type that IANA has registered."""
        if self.status == 503:
            kind, detail = "temporary-reduced-capacity", "The server is busy"
        else:
            kind, detail = "quota-exceeded", "Too many requests"
        problem = {
            "type": f"https://iana.org/assignments/http-problem-types#{kind}",
            "title": _TITLES[self.status],
            "status": self.status,
            "detail": f"{detail}, please try again later.",
        }
        if self.status == 429:
            problem["violated-policies"] = [self.decision.name]
        return problem


class LimitNotFound(HastenError, LookupError):
    """The request is under no limit of this name. names are those that it is under."""

    def __init__(self, name: str, names: Collection[str]) -> None:
        there_is = ", ".join(map(repr, names)) or "none"
        super().__init__(f"no limit {name!r} is for this request; there is {there_is}")
        self.name = name
        self.names = tuple(names)


class PaginationWarning(UserWarning):
    """A query is right, but slow on a large table, or ambiguous; the text names the remedy.

    Issued in development only, unless ``advise=`` says otherwise.
    """


class ResponseBroken(HastenError):
    """A response that is being compressed cannot go on, or cannot end as if it were whole."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the response cannot go on: {reason}")
        self.reason = reason


class StoreError(HastenError):
    """The store did not do what was asked. Nothing of the failed step was written.

    There are two exceptions. After `StoreInterrupted` and `StoreTimeout` the step may or may not
    have been applied. `AddedInPart` names what was added.
    """

    def __init__(self, store: str, reason: str) -> None:
        super().__init__(f"{store}: {reason}")
        self.store = store
        self.reason = reason


class StoreBusy(StoreError):
    """Another process held the store's lock for longer than the time-out."""


class StoreReadOnly(StoreError):
    """The store, or the folder it is in, may not be written."""


class StoreFull(StoreError):
    """The disk under the store is full."""


class StoreCorrupt(StoreError):
    """The store is damaged, or is no store of ours."""


class StoreTooNew(StoreError):
    """A newer version of hasten wrote the store; this one does not touch it."""


class StoreUnavailable(StoreError):
    """The store cannot be reached or opened."""


class StoreRejected(StoreError):
    """The store is available, but refuses this data.

    Nothing was written. Repeating the call would fail again.
    """


class StoreInterrupted(StoreError):
    """The store was asked, and no answer came: the step was applied as a whole, or not at all.

    To add a job again is safe if it has a job_id.
    """

    def __init__(self, store: str, reason: str) -> None:
        super().__init__(store, f"{reason}; the operation may or may not have been applied")


class StoreTimeout(StoreInterrupted):
    """The store did not answer in time. It may still do what it was asked."""


class AddedInPart(StoreError):
    """A call added more jobs than one transaction takes, and the store failed after the first.

    ids are those of the jobs that are stored: the first ones of the call, in its order. Of the
    others none is, unless the cause is `StoreInterrupted`: then the next transaction may be. To go
    on, add the jobs from the place `len(error.ids)` on.
    """

    def __init__(self, cause: StoreError, ids: Sequence[str], total: int) -> None:
        super().__init__(
            cause.store,
            f"the first {len(ids):,} of {total:,} jobs were added; the next failed: {cause.reason}",
        )
        self.ids = list(ids)


class JobNotFound(HastenError, LookupError):
    """There is no job with this id in the queue; it never was, or it has been removed."""

    def __init__(self, queue: str, job_id: str, reason: str = "") -> None:
        super().__init__(f"queue {queue!r} has no job {job_id!r}{reason and ': '}{reason}")
        self.queue = queue
        self.job_id = job_id


class WrongState(HastenError):
    """The job is in a state that does not allow what was asked."""

    def __init__(self, queue: str, job_id: str, state: str, needed: Collection[str]) -> None:
        super().__init__(
            f"job {job_id!r} of queue {queue!r} is {state}: "
            f"this needs it to be {' or '.join(needed)}"
        )
        self.queue = queue
        self.job_id = job_id
        self.state = state


class JobFailed(HastenError):
    """The job whose result was awaited has failed for good."""

    def __init__(self, job_id: str, error: str) -> None:
        super().__init__(f"job {job_id!r} failed: {printable(error)}")
        self.job_id = job_id
        self.error = error


class JobCancelled(JobFailed):
    """The job whose result was awaited was cancelled."""


class ResultTimeout(HastenError, TimeoutError):
    """The job did not finish within the time-out. It is not disturbed and may still finish."""

    def __init__(self, job_id: str, seconds: float) -> None:
        super().__init__(f"job {job_id!r} has not finished within {seconds:g} s")
        self.job_id = job_id
        self.seconds = seconds


# Tasks and runs of jobs --------------------------------------------------------------------------


class InvalidTask(HastenError, TypeError):
    """A function cannot be a task, or an annotation of it has no JSON form."""


class TargetError(HastenError):
    """What the command line names cannot be used; the message says why, and what could be."""


class RunFailed(HastenError):
    """A run of a job was ended, or its end could not be stored: it counts as a failed attempt.

    Nobody catches these: they are the error of the job, and `give_up_on` may name them.
    """


class JobTimeout(RunFailed):
    """A run has taken longer than its time-out."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"timed out after {seconds:g} s")
        self.seconds = seconds


class InvalidResult(RunFailed):
    """What a handler returned cannot be stored. The job is not run again."""


class ProcessDied(RunFailed):
    """The process of a handler has ended in the middle of a job, or before it could begin."""

    def __init__(self, how: str, *, while_starting: bool = False) -> None:
        if while_starting:
            super().__init__(
                f"the process that was to run it has died while starting: {how}; "
                "the worker's standard error may say why"
            )
        else:
            super().__init__(f"the process that ran it has died: {how}")
        self.how = how
