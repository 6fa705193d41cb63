"""The options unique, throttle, debounce and latest: valid values, and the keys that they give."""

from __future__ import annotations

import enum
import json
import re
import uuid
from contextlib import AbstractContextManager
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.errors import InvalidOption
from hasten.jobs import Context, Queue
from hasten.jobs._arguments import TaskParameters
from hasten.jobs._deduplication import (
    MAX_KEY,
    Deduplication,
    DeduplicationMode,
    DeduplicationRule,
    debounced_due_ms,
    make_deduplication,
    read_deduplication_id,
    to_deduplication_id,
    to_deduplication_key,
)
from hasten.jobs._options import (
    DEFAULT_OPTIONS,
    Options,
    merge_job_options,
    merge_task_options,
)
from hasten.jobs._record import JobTemplate
from hasten.jobs._task_definition import INJECTED

UNIQUE, THROTTLE, DEBOUNCE, LATEST = DeduplicationMode

A_TEXT = "text of 1 to 512 characters, without control characters"


def rule(option: str, value: object, base: Options = DEFAULT_OPTIONS) -> DeduplicationRule | None:
    return merge_job_options({option: value}, base, now_ms=0).deduplication


def refused(message: str) -> AbstractContextManager[object]:
    """Expect an option to be refused with exactly this message."""
    return pytest.raises(InvalidOption, match=f"^{re.escape(message)}$")


def of_account(account: str) -> str:
    return f"account {account}"


async def of_account_later(account: str) -> str:
    return account


class TestOptions:
    def test_become_rules(self) -> None:
        assert rule("unique", "k") == DeduplicationRule(UNIQUE, "k")
        assert rule("latest", of_account) == DeduplicationRule(LATEST, of_account)
        assert rule("throttle", ("k", "5s")) == DeduplicationRule(THROTTLE, "k", window_ms=5_000)
        assert rule("debounce", ("k", 0.5, "1m")) == DeduplicationRule(
            DEBOUNCE, "k", window_ms=500, max_wait_ms=60_000
        )

    @pytest.mark.parametrize("option", ["unique", "throttle", "debounce", "latest"])
    def test_none_turns_off_what_the_task_sets(self, option: str) -> None:
        task = merge_task_options({"unique": "rebuild"})
        assert task.deduplication is not None
        assert rule(option, None, task) is None

    def test_of_a_call_replace_that_of_its_task(self) -> None:
        task = merge_task_options({"debounce": ("rebuild", 5, 60)})
        merged = merge_job_options({"unique": "now", "delay": 5}, task, now_ms=0)
        assert merged.deduplication == DeduplicationRule(UNIQUE, "now")
        assert merged.delay_ms == 5_000

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"unique": ""}, f"unique='': must be {A_TEXT}"),
            ({"latest": "a\nb"}, f"latest='a\\nb': must be {A_TEXT}"),
            ({"unique": "\ud800"}, f"unique='\\ud800': must be {A_TEXT}"),
            (
                {"unique": 5},
                "unique=5: must be a text, or a function of arguments that returns one",
            ),
            (
                {"unique": str},
                "unique=<class 'str'>: must be a text, or a function of arguments that returns one",
            ),
            (
                {"throttle": "k"},
                "throttle='k': must be (key, time in which further jobs are dropped)",
            ),
            ({"throttle": ("k", 0)}, "throttle=0: must be at least 0.001 seconds"),
            (
                {"throttle": ("k", "soon")},
                (
                    "throttle='soon': must be seconds (a number), a timedelta or a string such as "
                    "'15m'"
                ),
            ),
            (
                {"debounce": ("k", 5)},
                (
                    "debounce=('k', 5): must be (key, quiet time, longest wait), such as "
                    "('account', 5, '1m')"
                ),
            ),
            (
                {"debounce": ("k", 5, 4)},
                (
                    "debounce=('k', 5, 4): must be (key, quiet time, longest wait), the longest "
                    "wait at least as long as the quiet time"
                ),
            ),
            ({"debounce": ("", 5, 60)}, f"debounce='': must be {A_TEXT}"),
            (
                {"unique": "a", "latest": "b"},
                "latest='b': cannot be combined with unique",
            ),
            ({"unique": "a", "job_id": "x"}, "job_id='x': cannot be combined with unique"),
            (
                {"debounce": ("a", 1, 2), "delay": 5},
                "delay=5: cannot be combined with debounce (it sets the delay)",
            ),
            (
                {"latest": "a", "expires": 5},
                (
                    "expires=5.0: cannot be combined with latest (a job that is kept until another "
                    "one ends would expire meanwhile)"
                ),
            ),
        ],
    )
    def test_are_refused(self, options: dict[str, Any], message: str) -> None:
        with refused(message):
            merge_job_options(options, DEFAULT_OPTIONS, now_ms=0)

    def test_async_functions_are_refused(self) -> None:
        with pytest.raises(InvalidOption, match=r"not async and not a generator$"):
            rule("unique", of_account_later)

    def test_functions_of_any_arguments_are_refused(self) -> None:
        with pytest.raises(InvalidOption, match=r"a function without \*args and \*\*kwargs$"):
            rule("unique", lambda **arguments: "k")

    def test_a_conflict_with_the_task_names_the_remedy(self) -> None:
        task = merge_task_options({"unique": "rebuild"})
        with refused(
            "job_id='x': cannot be combined with unique of its task: add unique=None to add a job "
            "without it"
        ):
            merge_job_options({"job_id": "x"}, task, now_ms=0)

    def test_the_longest_key_is_taken(self) -> None:
        assert rule("unique", "k" * MAX_KEY) is not None
        with pytest.raises(InvalidOption):
            rule("unique", "k" * (MAX_KEY + 1))


def task_with(**options: Any) -> Any:
    """Return a task with these options."""
    queue = Queue("mail", "memory://")

    @queue.task(name="send", **options)
    async def send(ctx: Context, account: str, n: int = 0, *, tags: str = "x") -> None: ...

    return send


class TestKeysOfATask:
    @pytest.mark.parametrize("text", ["acount", "accounts", "account_"])
    def test_a_mistyped_parameter_is_refused(self, text: str) -> None:
        """It would be one key for all jobs of the task, and most of them would be dropped."""
        with refused(
            f"unique={text!r}: must be the name of a parameter, or a text less similar to "
            "'account': the task 'send' has account, n, tags"
        ):
            task_with(unique=text)

    def test_another_text_is_a_key_for_all_jobs(self) -> None:
        assert key_of(task_with(unique="everything")) == "everything"

    def test_a_function_must_name_parameters_of_the_task(self) -> None:
        with pytest.raises(
            InvalidOption,
            match=r"of its task: it needs 'user', and the task 'send' has account, n, tags$",
        ):
            task_with(unique=lambda user: f"{user}")

    def test_a_function_gets_no_context(self) -> None:
        with pytest.raises(InvalidOption, match="it needs 'ctx', and the task 'send' has account"):
            task_with(unique=lambda ctx: "k")

    def test_a_text_of_a_call_is_literal(self) -> None:
        """It is often made of data, which may be equal to the name of a parameter."""
        task = task_with()
        options = merge_job_options({"unique": "account"}, task.definition.options, now_ms=0)
        assert key_of(task, options) == "account"


def key_of(task: Any, options: Options | None = None, **arguments: Any) -> str:
    """Return the key of a job of the task."""
    used: Options = task.definition.options if options is None else options
    arguments = {"account": "ada", **arguments}
    assert used.deduplication is not None
    resolved = make_deduplication(used.deduplication, "send", arguments, task.definition.parameters)
    return to_deduplication_key("send", resolved.id)


class Color(enum.Enum):
    RED = "red"


class TestKeysOfAJob:
    def test_are_the_argument_of_a_parameter(self) -> None:
        assert key_of(task_with(unique="account"), account="eve") == "eve"

    def test_may_be_the_default_of_a_parameter(self) -> None:
        assert key_of(task_with(unique="n")) == "0"

    @pytest.mark.parametrize(
        ("argument", "key"),
        [
            (7, "7"),
            (1.5, "1.5"),
            (True, "true"),
            (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
            (datetime(2030, 1, 1, tzinfo=UTC), "2030-01-01T00:00:00Z"),
            (date(2030, 1, 1), "2030-01-01"),
            (Decimal("1.10"), "1.10"),
            (Color.RED, "red"),
            ("é\u200d", "é\u200d"),
        ],
    )
    def test_may_be_any_scalar(self, argument: object, key: str) -> None:
        assert key_of(task_with(unique="account"), account=argument) == key

    @pytest.mark.parametrize(
        ("argument", "found"),
        [
            ("", "empty"),
            ("x" * 513, "too long"),
            (None, "of another type"),
            ([1], "of another type"),
            ({"a": 1}, "of another type"),
            (float("nan"), "of another type"),
        ],
    )
    def test_other_arguments_are_refused(self, argument: object, found: str) -> None:
        """The message does not show the argument, which may be private."""
        with refused(
            f"unique='account': must be a parameter whose argument is {A_TEXT}, or a number, a "
            f"flag, a UUID or a time: the argument of this job is {found}. Use a function that "
            "returns text"
        ):
            key_of(task_with(unique="account"), account=argument)

    def test_are_what_the_function_returns(self) -> None:
        task = task_with(unique=lambda n, account: f"{account}-{n}")
        assert key_of(task) == "ada-0"
        assert key_of(task, n=5) == "ada-5"

    def test_a_function_may_have_defaults_of_its_own(self) -> None:
        task = task_with(unique=lambda account, region="eu", /: f"{account}-{region}")
        assert key_of(task) == "ada-eu"

    @pytest.mark.parametrize(
        ("function", "reason"),
        [
            (lambda n: 1 // n, "it raised ZeroDivisionError: integer division or modulo by zero"),
            (lambda n: n, "it returned an object of another type, int"),
            (lambda n: None, "it returned an object of another type, NoneType"),
            (lambda n: "", "it returned 0 characters"),
            (lambda n: "x" * 600, "it returned 600 characters"),
        ],
    )
    def test_a_function_that_gives_no_key_is_refused(self, function: Any, reason: str) -> None:
        with pytest.raises(InvalidOption, match=f"{re.escape(reason)}$"):
            key_of(task_with(unique=function))

    def test_of_a_task_that_is_not_known_here(self) -> None:
        """`queue.add` may add jobs of other programs: their data is what the function gets."""
        of_data = DeduplicationRule(UNIQUE, of_account)
        assert (
            make_deduplication(of_data, "send", {"account": "eve"}, None).id == "send:account eve"
        )
        with pytest.raises(InvalidOption, match=r"it has no 'account'$"):
            make_deduplication(of_data, "send", [1], None)
        named = DeduplicationRule(UNIQUE, "account", may_be_parameter=True)
        assert make_deduplication(named, "send", {"account": "eve"}, None).id == "send:account"

    @given(st.text(min_size=1, max_size=MAX_KEY))
    def test_any_text_is_a_key_or_refused(self, text: str) -> None:
        try:
            found = rule("unique", text)
        except InvalidOption:
            assert any(ord(each) < 32 or 127 <= ord(each) < 160 for each in text) or any(
                0xD800 <= ord(each) < 0xE000 for each in text
            )
            return
        assert found is not None
        resolved = make_deduplication(found, "a:b", {}, None)
        template = JobTemplate.of("a:b", Options(), now_ms=0, deduplication=resolved)
        stored = read_deduplication_id(template.opts)
        assert stored is not None
        assert to_deduplication_key("a:b", stored) == text

    def test_two_tasks_have_different_ids(self) -> None:
        assert to_deduplication_id("send", "a:b%") == "send:a:b%"
        names = [("a", "b:c"), ("a:b", "c"), ("a%3Ab", "c")]
        assert len({to_deduplication_id(task, key) for task, key in names}) == 3


class TestStoredOptions:
    @pytest.mark.parametrize(
        ("opts", "id"),
        [
            ("{}", None),
            ('{"de":{"id":"k"}}', "k"),
            ('{"de":{"id":5}}', None),
            ('{"de":"k"}', None),
            ('{"de":{}}', None),
            ('{"de"', None),
            ('{"metadata":"\\"de\\""}', None),
            ('{"de":' + "[" * 100_000, None),
        ],
    )
    def test_of_other_programs_may_have_anything(self, opts: str, id: str | None) -> None:
        assert read_deduplication_id(opts) == id

    def test_debounce_sets_the_delay(self) -> None:
        resolved = Deduplication(DEBOUNCE, "send:k", 500, 9_000)
        template = JobTemplate.of("send", Options(delay_ms=5), now_ms=0, deduplication=resolved)
        assert json.loads(template.opts)["delay"] == template.options.delay_ms == 500


class TestDebounce:
    @given(
        st.integers(0, 10**6),
        st.integers(0, 10**6),
        st.integers(1, 10**5),
        st.integers(0, 10**5),
        st.integers(0, 10**5),
    )
    def test_is_due_after_the_quiet_time_and_within_the_longest_wait(
        self, first_ms: int, later_ms: int, quiet_ms: int, more_ms: int, due_after_ms: int
    ) -> None:
        settings = Deduplication(DEBOUNCE, "k", quiet_ms, quiet_ms + more_ms)
        now_ms = first_ms + later_ms
        due_ms = debounced_due_ms(settings, first_ms, first_ms + due_after_ms, now_ms)
        assert due_ms <= max(now_ms, first_ms + settings.max_wait_ms)
        assert due_ms <= now_ms + quiet_ms
        if later_ms + quiet_ms <= settings.max_wait_ms:
            assert due_ms == now_ms + quiet_ms


def test_parameters_have_names_and_defaults() -> None:
    def send(account: str, n: int = 3, *, tags: str = "x") -> None: ...

    parameters = TaskParameters(send, "send", INJECTED)
    assert parameters.stored_names == ("account", "n", "tags")
    assert parameters.add_defaults({"n": 5}) == {"n": 5, "tags": "x"}
