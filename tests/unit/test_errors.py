"""The docstring of hasten.errors shows the tree of classes, and each message is tested."""

from __future__ import annotations

import copy
import importlib
import json
import pickle
import pkgutil
import re
from typing import Final

import pytest

import hasten
from hasten import errors
from hasten._decision import Decision
from hasten._problems import make_refusal_response
from hasten._responses import EncodedResponse

NOT_INSTALLED = (
    "redis is not installed: install hasten with its extra 'redis'; "
    "in a clone of its repository: pip install -e '.[redis]'"
)
TOO_LARGE = (
    "send: argument 'body' makes the job too large: 2,000,000 bytes of JSON, the maximum "
    "is 1,048,576. Store the data elsewhere and pass a reference, or increase Queue(max_size=…)"
)

DIED_WHILE_STARTING = (
    "the handler's process died while starting: exit code 4; see the standard error of the worker"
)

NO_MIDDLEWARE = (
    "@limit of 'a' needs RateLimitMiddleware: "
    "add it with app.add_middleware(RateLimitMiddleware, …)"
)

STORE_ERRORS = (
    errors.StoreError, errors.StoreBusy, errors.StoreReadOnly, errors.StoreFull,
    errors.StoreCorrupt, errors.StoreTooNew, errors.StoreUnavailable, errors.StoreRejected,
)  # fmt: skip

MESSAGES = [
    (errors.MissingExtra("redis", "redis"), NOT_INSTALLED),
    (
        errors.InvalidOption("attempts", 0, "a whole number from 1 to 1,000,000"),
        "attempts=0: must be a whole number from 1 to 1,000,000",
    ),
    (
        errors.AsyncioRequired("Limiter.wait", "use hit"),
        "Limiter.wait needs asyncio, which is not running in this thread: use hit",
    ),
    (errors.UsageError("a .sync call blocks: await"), "a .sync call blocks: await"),
    (errors.MissingMiddleware("@limit of 'a'", "RateLimitMiddleware"), NO_MIDDLEWARE),
    (
        errors.LimitExceeded(Decision("login", False, 5, 0, 7.2, 3599.5)),
        "limit 'login': exceeded; retry in 3,600 s",
    ),
    (
        errors.LimitExceeded(Decision("login", False, 5, 0, 0.5, 0.5, unavailable=True)),
        "limit 'login': its store is unavailable; retry in 1 s",
    ),
    (
        errors.LimitNotFound("logon", ["login", "all"]),
        "no limit 'logon' applies to this request; limits that apply: 'login', 'all'",
    ),
    (
        errors.InvalidArgument("send", "when", "is a datetime, which JSON does not know"),
        "send: argument 'when' is a datetime, which JSON does not know",
    ),
    (errors.PayloadTooLarge("send", "body", 2_000_000, 1_048_576), TOO_LARGE),
    (errors.RequestRefused("not acceptable"), "not acceptable"),
    (
        errors.BodyRefused(413, "larger than 10 bytes when decoded"),
        "request body refused: larger than 10 bytes when decoded",
    ),
    (
        errors.InvalidParameter(
            "limit", "500", "expected at most 100", code="out_of_range", maximum=100
        ),
        "limit='500': expected at most 100",
    ),
    (errors.RowNotFound("user"), "there is no such user"),
    (
        errors.ResponseBroken("an earlier send was cancelled or failed"),
        "the response cannot be completed: an earlier send was cancelled or failed",
    ),
    *(
        (kind("sqlite:///a.db", "the reason"), "sqlite:///a.db: the reason")
        for kind in STORE_ERRORS
    ),
    (
        errors.StoreInterrupted("redis://a", "it hung up"),
        "redis://a: it hung up; the operation may or may not have been applied",
    ),
    (
        errors.StoreTimeout("redis://a", "no response within 5 s"),
        "redis://a: no response within 5 s; the operation may or may not have been applied",
    ),
    (
        errors.AddedInPart(errors.StoreFull("sqlite:///a.db", "no space left"), ["1", "2"], 3000),
        "sqlite:///a.db: only the first 2 of 3,000 jobs were added, then: no space left",
    ),
    (errors.JobNotFound("mail", "7"), "queue 'mail' has no job '7'"),
    (errors.ScheduleNotFound("mail", "a"), "queue 'mail' has no schedule 'a'"),
    (
        errors.WrongState("mail", "7", "active", ["failed", "completed"]),
        "job '7' of queue 'mail' is active: must be failed or completed",
    ),
    (
        errors.BatchClosed("mail", "nightly"),
        "batch 'nightly' of queue 'mail' takes no more jobs: it was closed or deleted",
    ),
    (errors.JobFailed("7", "no such address"), "job '7' failed: no such address"),
    (errors.JobCancelled("7", "cancelled"), "job '7' failed: cancelled"),
    (errors.ResultTimeout("7", 2.50), "job '7' has not finished within 2.5 s"),
    (
        errors.InvalidArgument.of_call("send", "to", "missing a required argument: 'to'"),
        "send: missing a required argument: 'to'",
    ),
    (errors.InvalidTask("a class cannot be a task"), "a class cannot be a task"),
    (errors.TargetError("no module named 'app'"), "no module named 'app'"),
    (errors.RunFailed("for some reason"), "for some reason"),
    (errors.JobTimeout(1.5), "timed out after 1.5 s"),
    (errors.InvalidResult("the return value is too large"), "the return value is too large"),
    (errors.UnawaitedChildren("2 child jobs"), "2 child jobs"),
    (errors.ProcessDied("exit code 4"), "the handler's process died: exit code 4"),
    (errors.ProcessDied("exit code 4", while_starting=True), DIED_WHILE_STARTING),
]


OUTSIDE: Final = {
    # What handlers and functions of the application raise to steer hasten; hasten catches it.
    "hasten.jobs._control_exceptions.RetryAfter": "a handler raises it",
    "hasten.jobs._control_exceptions.Unrecoverable": "a handler raises it",
    "hasten.jobs._control_exceptions.WaitForChildren": "a handler lets it pass",
    "hasten.jobs._threads.Interrupted": "a handler in a thread is interrupted with it",
    "hasten.testing._killable.Dropped": "ends the thread of a handler whose worker has died",
    # Private control flow: caught inside, where it is raised.
    "hasten._redis.channel.NotSent": "turned into StoreUnavailable",
    "hasten.compression._decoders.MalformedBody": "turned into BodyRefused",
    "hasten.jobs._arguments.UnfitResult": "fails the job; its text is the reason",
    "hasten.jobs._arguments.UnresolvedAnnotation": "turned into the error of the task",
    "hasten.jobs._encoding.NotStorable": "turned into InvalidArgument",
    "hasten.jobs._engines.sqlite.flows.ChildExists": "turned into StoreRejected",
    "hasten.jobs._engines.sqlite.settling.LeaseMismatch": "ends a transaction",
    "hasten.jobs._failure_log.RemoteTraceback": "the cause of an error, shown and never raised",
    "hasten.jobs._processes.ProcessDied": "fails the job; its text is the reason",
    "hasten.jobs._processes._ChildEndedBeforeRequest": "ends an attempt to begin",
    "hasten.ratelimit._http.request_checks.LimitFunctionFailed": "turned into a refusal",
    # Advice.
    "hasten.errors.PaginationWarning": "a warning",
}
"""The exceptions to the rule, by module and name, and why each is one."""


def exception_classes() -> dict[str, type[BaseException]]:
    """Return all exception classes of hasten, by module and name."""
    found: dict[str, type[BaseException]] = {}
    for module in pkgutil.walk_packages(hasten.__path__, "hasten."):
        if "__main__" in module.name or module.name.startswith("hasten.django."):
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            is_own = isinstance(value, type) and value.__module__ == module.name
            if is_own and issubclass(value, BaseException):
                found[f"{module.name}.{name}"] = value
    return found


def classes() -> set[type[errors.HastenError]]:
    found = {value for value in vars(errors).values() if isinstance(value, type)}
    return {kind for kind in found if issubclass(kind, errors.HastenError)}


def drawn() -> dict[str, tuple[str, str | None]]:
    """Return the tree of the docstring: the parent of each class, and its built-in base."""
    tree: dict[str, tuple[str, str | None]] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^((?:[│ ] {3})*)(?:[├└]── )?([A-Z]\w+)(?:  |$)", line)
        if match is None:
            continue
        depth = len(match[1]) // 4 + ("──" in line)
        path[depth:] = [match[2]]
        also = re.search(r"\(also (\w+)\)", line)
        tree[match[2]] = (path[depth - 1] if depth else "Exception", also and also[1])
    return tree


class TestTree:
    def test_the_docstring_draws_the_tree(self) -> None:
        tree = drawn()
        assert set(tree) == {kind.__name__ for kind in classes()}
        for kind in classes():
            parent, also = tree[kind.__name__]
            bases = [base.__name__ for base in kind.__bases__]
            assert bases == ([parent] if also is None else [parent, also])

    def test_every_exception_class_is_in_the_tree(self) -> None:
        """HastenError catches every error that hasten raises on purpose."""
        outside = {
            name: [base.__name__ for base in kind.__mro__]
            for name, kind in exception_classes().items()
            if not issubclass(kind, errors.HastenError)
        }
        assert set(outside) <= OUTSIDE.keys()

    def test_every_class_has_a_docstring(self) -> None:
        assert all(kind.__doc__ for kind in classes())


class TestMessages:
    @pytest.mark.parametrize(("error", "message"), MESSAGES, ids=lambda value: type(value).__name__)
    def test_message(self, error: errors.HastenError, message: str) -> None:
        assert str(error) == message

    def test_every_class_has_a_tested_message(self) -> None:
        """A new class needs a tested message."""
        assert {type(error) for error, _ in MESSAGES} == classes() - {errors.HastenError}

    @pytest.mark.parametrize("error", [error for error, _ in MESSAGES])
    def test_errors_can_be_pickled_and_copied(self, error: errors.HastenError) -> None:
        """An error may come from a handler process.

        One that cannot be unpickled breaks the pool.
        """
        for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
            assert type(twin) is type(error)
            assert str(twin) == str(error)
            assert vars(twin) == vars(error)


class TestFacts:
    def test_facts_are_attributes(self) -> None:
        """Callers need not parse the message."""
        missing = errors.JobNotFound("mail", "7")
        assert (missing.queue, missing.job_id) == ("mail", "7")
        wrong = errors.WrongState("mail", "7", "active", ["failed"])
        assert (wrong.queue, wrong.job_id, wrong.state) == ("mail", "7", "active")
        option = errors.InvalidOption("attempts", 0, "more")
        assert (option.option, option.value, option.code) == ("attempts", 0, "invalid")
        assert (
            errors.InvalidOption("attempts", 0, "more", code="out_of_range").code == "out_of_range"
        )
        large = errors.PayloadTooLarge("send", "body", 2, 1)
        assert (large.task, large.argument, large.size, large.limit) == ("send", "body", 2, 1)
        failed = errors.JobFailed("7", "no such address")
        assert (failed.job_id, failed.error) == ("7", "no such address")
        parameter = errors.InvalidParameter(
            "sort", "x", "unknown", code="unknown_name", allowed=["id"], minimum=0, maximum=9
        )
        assert (parameter.parameter, parameter.value) == ("sort", "x")
        assert (parameter.code, parameter.status) == ("unknown_name", 422)
        assert (parameter.minimum, parameter.maximum, parameter.allowed) == (0, 9, ("id",))
        late = errors.ResultTimeout("7", 2.5)
        assert (late.job_id, late.seconds) == ("7", 2.5)
        store = errors.StoreFull("sqlite:///a.db", "full")
        assert (store.store, store.reason) == ("sqlite:///a.db", "full")
        extra = errors.MissingExtra("redis", "redis")
        assert (extra.module, extra.extra) == ("redis", "redis")


class TestLimitExceeded:
    def test_its_response_is_that_of_the_middleware(self) -> None:
        error = errors.LimitExceeded(Decision("login", False, 5, 0, 7.2, 3599.5))
        answer = EncodedResponse.for_error(error)
        assert (answer.status, answer.headers["retry-after"]) == (429, "3600")
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["cache-control"] == "no-store"
        refused = make_refusal_response(None, status=429, exceeded_limits=["login"])
        assert json.loads(answer.body) == json.loads(refused.body)

    def test_without_a_store_it_is_a_503(self) -> None:
        away = Decision("login", False, 5, 0, 1, 1, unavailable=True)
        answer = EncodedResponse.for_error(errors.LimitExceeded(away))
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        refused = make_refusal_response(
            None, status=503, exceeded_limits=[], server_lacks_capacity=True
        )
        assert json.loads(answer.body) == json.loads(refused.body)


class TestProblems:
    @pytest.mark.parametrize(
        "error",
        [error for error, _ in MESSAGES if errors.RequestRefused in type(error).__mro__[1:]],
    )
    def test_all_problems_have_one_shape(self, error: errors.RequestRefused) -> None:
        """So clients can handle all refusals of hasten alike."""
        response = EncodedResponse.for_error(error)
        assert response.status == error.status
        assert response.headers["content-type"] == "application/problem+json"
        problem = json.loads(response.body)
        assert {"type", "title", "status", "detail"} <= problem.keys()
        assert problem["status"] == error.status
        if problem["type"] == "about:blank":  # otherwise programs read the type
            assert problem["code"] == error.code

    def test_an_invalid_parameter_is_a_problem_of_rfc_9457(self) -> None:
        error = errors.InvalidParameter(
            "limit", "500", "expected at most 100", code="out_of_range", minimum=1, maximum=100
        )
        assert error.problem() == {
            "type": "about:blank",
            "title": "Unprocessable Content",
            "status": 422,
            "detail": "limit='500': expected at most 100",
            "code": "out_of_range",
            "parameter": "limit",
            "minimum": 1,
            "maximum": 100,
        }

    def test_a_problem_without_bounds_has_no_bounds(self) -> None:
        error = errors.InvalidParameter(
            "cursor", None, "not ours", code="invalid_cursor", status=400
        )
        assert error.problem() == {
            "type": "about:blank",
            "title": "Bad Request",
            "status": 400,
            "detail": "cursor: not ours",
            "code": "invalid_cursor",
            "parameter": "cursor",
        }

    def test_a_problem_can_be_encoded_whatever_the_client_sent(self) -> None:
        """Lone surrogates and long values must not cause an error while a 422 is encoded."""
        error = errors.InvalidParameter(
            "sort", "\udc80\0" + "x" * 1_000_000, "unknown", code="unknown"
        )
        body = json.dumps(error.problem(), ensure_ascii=False).encode()
        assert len(body) < 500
