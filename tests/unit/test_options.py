"""Options: which values are valid, the errors, and the form that BullMQ reads."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hasten._durations import MAX_MS
from hasten.errors import InvalidOption
from hasten.jobs._backoff import Backoff, Custom, Exponential, Fixed
from hasten.jobs._options import (
    DEFAULT_KEEP_COMPLETED,
    DEFAULT_KEEP_FAILED,
    DEFAULT_OPTIONS,
    KEEP_ALL,
    KEEP_NONE,
    MAX_COUNT,
    MAX_JOB_ID,
    MAX_KEEP_LOGS,
    MAX_PRIORITY,
    RESERVED_IDS,
    JobOptions,
    Keep,
    Options,
    TaskOptions,
    check_job_id,
    decode_options,
    encode_options,
    merge_job_options,
    merge_task_options,
)

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
NOON_MS = 1_893_499_200_000

A_DURATION = "seconds (a number), a timedelta or a string such as '15m'"
IN_RANGE = "less than a hundred years; numbers are in seconds"
A_BACKOFF = "a delay, 'exponential', Fixed(…), Exponential(…) or a function"
A_KEEP = "Keep(count=…, age=…), a count from 0 to 9,007,199,254,740,991, True (all) or False (none)"
PER_TASK = (
    "attempts, backoff, debounce, delay, expires, keep_completed, keep_failed, keep_logs, latest, "
    "lifo, priority, since, throttle, timeout, unique"
)
PER_JOB = (
    "at, attempts, backoff, debounce, delay, expires, job_id, keep_completed, keep_failed, "
    "keep_logs, latest, lifo, priority, since, throttle, timeout, unique"
)


def check(base: Options = DEFAULT_OPTIONS, *, now_ms: int = 0, **given: Any) -> Options:
    return merge_job_options(given, base, now_ms=now_ms)


def refused(message: str) -> AbstractContextManager[object]:
    """Expect an option to be refused with exactly this message."""
    return pytest.raises(InvalidOption, match=f"^{re.escape(message)}$")


def decide(attempt: int, error: BaseException) -> float:
    return 1.0


async def decide_later(attempt: int, error: BaseException) -> float:
    return 1.0


def decide_in_steps(attempt: int, error: BaseException) -> Iterator[float]:
    yield 1.0


class DecidesLater:
    async def __call__(self, attempt: int, error: BaseException) -> float:
        return 1.0


class TestGoodValues:
    @pytest.mark.parametrize(
        ("option", "value", "expected"),
        [
            ("attempts", 1, Options(attempts=1)),
            ("attempts", 1_000_000, Options(attempts=1_000_000)),
            ("priority", 0, Options()),
            ("priority", MAX_PRIORITY, Options(priority=2_097_151)),
            ("lifo", True, Options(lifo=True)),
            ("lifo", False, Options()),
            ("delay", 0, Options()),
            ("delay", 1.5, Options(delay_ms=1500)),
            ("delay", timedelta(hours=1), Options(delay_ms=3_600_000)),
            ("timeout", 30, Options(timeout_ms=30_000)),
            ("timeout", None, Options()),
            ("expires", timedelta(minutes=1), Options(expires_ms=60_000)),
            ("expires", None, Options()),
            ("backoff", None, Options()),
            ("backoff", "1m", Options(backoff=Fixed("1m"))),
            ("backoff", "exponential", Options(backoff=Exponential())),
            ("backoff", 5, Options(backoff=Fixed(5))),
            ("backoff", timedelta(seconds=5), Options(backoff=Fixed(timedelta(seconds=5)))),
            ("backoff", Fixed(1, jitter=0.5), Options(backoff=Fixed(1, jitter=0.5))),
            ("backoff", Exponential(2), Options(backoff=Exponential(2))),
            ("backoff", Custom(), Options(backoff=Custom())),
            ("keep_completed", None, Options()),
            ("keep_completed", True, Options(keep_completed=KEEP_ALL)),
            ("keep_completed", False, Options(keep_completed=KEEP_NONE)),
            ("keep_completed", 5, Options(keep_completed=Keep(count=5))),
            ("keep_completed", Keep(age=60), Options(keep_completed=Keep(age=60))),
            ("keep_completed", MAX_COUNT, Options(keep_completed=Keep(count=MAX_COUNT))),
            ("keep_failed", 0, Options(keep_failed=KEEP_NONE)),
            ("keep_logs", 1, Options(keep_logs=1)),
            ("keep_logs", 1_000_000, Options(keep_logs=1_000_000)),
            ("job_id", "welcome-7", Options(job_id="welcome-7")),
            ("since", "2026.12.1", Options(since="2026.12.1")),
            ("since", None, Options()),
        ],
    )
    def test_are_taken(self, option: str, value: object, expected: Options) -> None:
        assert merge_job_options({option: value}, DEFAULT_OPTIONS, now_ms=0) == expected

    def test_of_a_call_lie_over_those_of_its_task(self) -> None:
        """Options that the call does not set are those of the task."""
        task = merge_task_options({"attempts": 5, "delay": 60, "timeout": 30})
        call = check(task, delay=0, timeout=None)
        assert call == Options(attempts=5, delay_ms=0, timeout_ms=None)

    def test_are_all_tried_here(self) -> None:
        """A new option needs tests. Those of deduplication are in `test_deduplication`."""
        assert ", ".join(sorted(TaskOptions.__annotations__)) == PER_TASK
        assert ", ".join(sorted(JobOptions.__annotations__)) == PER_JOB

    def test_a_function_is_for_tasks(self) -> None:
        """The worker calls the function of its own task."""
        assert merge_task_options({"backoff": decide}).backoff == Custom()


class TestAt:
    def test_becomes_a_delay(self) -> None:
        assert check(at=NOON, now_ms=NOON_MS - 250).delay_ms == 250

    def test_knows_time_zones(self) -> None:
        there = NOON.astimezone(timezone(timedelta(hours=-8)))
        assert check(at=there, now_ms=NOON_MS - 250).delay_ms == 250

    def test_in_the_past_means_now(self) -> None:
        assert check(at=NOON, now_ms=NOON_MS + 250).delay_ms == 0

    def test_takes_the_place_of_the_delay_of_the_task(self) -> None:
        task = merge_task_options({"delay": 60})
        assert check(task, at=NOON, now_ms=NOON_MS).delay_ms == 0


class TestBadValues:
    @pytest.mark.parametrize(
        ("option", "value", "expected"),
        [
            ("attempts", 0, "a whole number from 1 to 1,000,000"),
            ("attempts", 1_000_001, "a whole number from 1 to 1,000,000"),
            ("attempts", True, "a whole number from 1 to 1,000,000"),
            ("attempts", 3.0, "a whole number from 1 to 1,000,000"),
            ("attempts", None, "a whole number from 1 to 1,000,000"),
            ("priority", -1, "a whole number from 0 to 2,097,151"),
            ("priority", MAX_PRIORITY + 1, "a whole number from 0 to 2,097,151"),
            ("priority", "high", "a whole number from 0 to 2,097,151"),
            ("lifo", 1, "True or False"),
            ("delay", -1, "at least 0 seconds"),
            ("delay", "5 s.", A_DURATION),
            ("delay", None, A_DURATION),
            ("timeout", 0, "at least 0.001 seconds"),
            ("timeout", "30", A_DURATION),
            ("expires", 0, "at least 0.001 seconds"),
            ("expires", True, A_DURATION),
            ("backoff", "linear", A_BACKOFF),
            ("backoff", "fixed", "given with a delay: backoff=5 or Fixed(5)"),
            ("backoff", True, A_BACKOFF),
            ("backoff", -1, "at least 0 seconds"),
            ("backoff", [1, 2], A_DURATION),
            ("keep_completed", -1, A_KEEP),
            ("keep_completed", 1.5, A_KEEP),
            ("keep_completed", "all", A_KEEP),
            ("keep_completed", 10**20, A_KEEP),
            ("keep_failed", {"count": 1}, A_KEEP),
            ("keep_logs", 0, "a whole number from 1 to 1,000,000"),
            ("keep_logs", 10**20, "a whole number from 1 to 1,000,000"),
            ("keep_logs", None, "a whole number from 1 to 1,000,000"),
            ("delay", 10**400, IN_RANGE),
            ("timeout", float("inf"), IN_RANGE),
            ("expires", float("nan"), "at least 0.001 seconds"),
            ("backoff", timedelta.max, IN_RANGE),
        ],
    )
    @pytest.mark.parametrize("whose", [merge_task_options, check])
    def test_have_their_remedy(self, whose: Any, option: str, value: object, expected: str) -> None:
        """For options of a task and of a call."""
        with pytest.raises(InvalidOption) as caught:
            merge_task_options({option: value}) if whose is not check else check(**{option: value})
        shown = repr(value) if len(repr(value)) <= 200 else f"{value!r}"[:200] + "…"
        assert str(caught.value) == f"{option}={shown}: must be {expected}"
        assert caught.value.option == option

    def test_are_named_even_if_they_cannot_be_shown(self) -> None:
        """Python raises for the repr of integers with thousands of digits."""
        with refused(
            "attempts=<int whose repr() fails>: must be a whole number from 1 to 1,000,000"
        ):
            check(attempts=10**5000)

    @pytest.mark.parametrize("value", [True, 1_893_499_200, "2030-01-01", None])
    def test_at_is_a_datetime(self, value: object) -> None:
        with refused(f"at={value!r}: must be a datetime"):
            check(at=value)

    def test_at_has_a_time_zone(self) -> None:
        """Without one it would mean another time on each machine."""
        naive = NOON.replace(tzinfo=None)
        with refused(
            f"at={naive!r}: must be a datetime with a time zone, such as datetime.now(UTC)"
        ):
            check(at=naive)

    @pytest.mark.parametrize("order", [("at", "delay"), ("delay", "at")])
    def test_at_and_delay_exclude_each_other(self, order: tuple[str, str]) -> None:
        both = {"at": NOON, "delay": 5}
        with refused(f"at={NOON!r}: must be given without delay=: use either at or delay"):
            merge_job_options({o: both[o] for o in order}, DEFAULT_OPTIONS, now_ms=0)

    def test_a_function_is_not_for_calls(self) -> None:
        """A function cannot be stored with a job."""
        with refused(
            f"backoff={decide!r}: must be a delay, 'exponential', Fixed(…) or Exponential(…): a "
            "function cannot be stored with a job, so set it in @queue.task(backoff=…)"
        ):
            check(backoff=decide)

    def test_a_back_off_is_made_before_it_is_given(self) -> None:
        """A class is callable, too, but no backoff function."""
        with refused(f"backoff={Exponential!r}: must be {A_BACKOFF}"):
            merge_task_options({"backoff": Exponential})

    @pytest.mark.parametrize(
        "function", [decide_later, functools.partial(decide_later), DecidesLater(), decide_in_steps]
    )
    def test_a_back_off_function_is_not_async(self, function: Any) -> None:
        """The worker does not await it."""
        with refused(
            f"backoff={function!r}: must be a plain function, not async and not a generator"
        ):
            merge_task_options({"backoff": function})

    @pytest.mark.parametrize(
        ("function", "complaint"),
        [
            (lambda: 1, "too many positional arguments"),
            (lambda attempt: 1, "too many positional arguments"),
            (lambda attempt, error, job: 1, "missing a required argument: 'job'"),
            (lambda *, attempt, error: 1, "too many positional arguments"),
            (functools.partial(decide, 1), "too many positional arguments"),
            (functools.partial(decide, error=ValueError()), "too many positional arguments"),
        ],
    )
    def test_backoff_functions_take_attempt_and_error(self, function: Any, complaint: str) -> None:
        """Otherwise it would fail after each failed run."""
        with pytest.raises(InvalidOption) as caught:
            merge_task_options({"backoff": function})
        expected = "a function of two arguments, the number of the attempt and its error: "
        assert str(caught.value).endswith(f": must be {expected}{complaint}")

    @pytest.mark.parametrize(
        "function",
        [
            decide,
            lambda *arguments: 1,
            lambda attempt, error, cap=60: 1,
            functools.partial(lambda base, attempt, error: base, 2),
            max,  # its signature is unknown
        ],
    )
    def test_a_back_off_function_may_be_anything_else(self, function: Any) -> None:
        assert merge_task_options({"backoff": function}).backoff == Custom()

    def test_an_unknown_option_gets_the_list(self) -> None:
        with refused(f"retries=3: must be one of the options {PER_JOB}"):
            check(retries=3)

    @pytest.mark.parametrize("option", ["at", "job_id"])
    def test_a_task_has_no_options_of_a_single_job(self, option: str) -> None:
        with refused(f"{option}='x': must be one of the options {PER_TASK}"):
            merge_task_options({option: "x"})

    def test_leave_the_base_as_it_was(self) -> None:
        base = Options(attempts=5)
        with pytest.raises(InvalidOption):
            check(base, attempts=2, priority=-1)
        assert base == Options(attempts=5)


class TestJobIds:
    @pytest.mark.parametrize(
        "id", ["a", "order-7", "7a", "a b", "ünïcode", "🐇", "'; --", "a" * MAX_JOB_ID, "de.luxe"]
    )
    def test_may_be_most_texts(self, id: str) -> None:
        assert check_job_id(id) == id

    @pytest.mark.parametrize("value", ["", "a" * (MAX_JOB_ID + 1), 7, None, b"a"])
    def test_are_texts_of_some_length(self, value: object) -> None:
        self.refused(value, "a string of 1 to 512 characters")

    @pytest.mark.parametrize("value", ["0", "17", "007", "٣"])
    def test_are_no_numbers(self, value: str) -> None:
        """The queue assigns numbers itself, and would assign this one, too."""
        self.refused(value, "an id that is not a number, because the queue assigns numbers itself")

    @pytest.mark.parametrize("value", [":", "a:b", "0:1"])
    def test_have_no_colon(self, value: str) -> None:
        self.refused(value, "an id without ':', because ':' separates the parts of a Redis key")

    @pytest.mark.parametrize("value", ["a\0b", "\ud800", "a\nb", "\x1b[2J", "a\u202eb"])
    def test_are_text_that_stores_can_hold_and_terminals_can_show(self, value: str) -> None:
        self.refused(
            value,
            "valid text without control characters or invisible characters, "
            "such as direction marks",
        )

    @pytest.mark.parametrize("value", ["東京", "می\u200cخواهم", "👩\u200d🚀", "a b"])
    def test_may_be_of_any_language(self, value: str) -> None:
        assert check_job_id(value) == value

    @pytest.mark.parametrize("value", sorted(RESERVED_IDS))
    def test_are_not_the_names_that_the_store_uses(self, value: str) -> None:
        """In Redis, a job named `wait` would overwrite the list of waiting jobs."""
        self.refused(
            value, "an id that is not one of the names the queue uses for its own keys in the store"
        )

    @staticmethod
    def refused(value: object, expected: str) -> None:
        with pytest.raises(InvalidOption) as caught:
            check_job_id(value)
        shown = repr(value) if len(repr(value)) <= 200 else f"{value!r}"[:200] + "…"
        assert str(caught.value) == f"job_id={shown}: must be {expected}"


class TestKeep:
    def test_has_its_age_in_milliseconds_too(self) -> None:
        assert Keep(age=1.5).age_ms == 1500
        assert Keep(age=timedelta(days=1)).age_ms == 86_400_000
        assert Keep().age_ms is None

    def test_nothing_means_a_count_of_zero(self) -> None:
        assert KEEP_NONE.keeps_nothing
        assert Keep(count=0, age=60).keeps_nothing
        assert not KEEP_ALL.keeps_nothing
        assert not Keep(count=1).keeps_nothing
        assert not Keep(age=0).keeps_nothing

    def test_is_limited_unless_told_otherwise(self) -> None:
        """A store must not grow for ever."""
        for keep in (DEFAULT_KEEP_COMPLETED, DEFAULT_KEEP_FAILED):
            assert keep.count is not None
            assert keep.age is not None

    @pytest.mark.parametrize("count", [-1, 1.5, True, "5", 2**53])
    def test_counts_in_whole_numbers(self, count: Any) -> None:
        with refused(
            f"Keep(count)={count!r}: must be a whole number from 0 to 9,007,199,254,740,991"
        ):
            Keep(count=count)

    def test_ages_in_seconds(self) -> None:
        with refused(f"Keep(age)='1 day': must be {A_DURATION}"):
            Keep(age="1 day")


class TestExpiry:
    def test_is_fixed_when_the_job_is_added(self) -> None:
        """Its time begins when the job is due."""
        options = Options(expires_ms=500, delay_ms=1000).with_expiry_time(NOON_MS)
        assert options == Options(expires_at_ms=NOON_MS + 1500, delay_ms=1000)

    def test_stays_away_when_not_asked_for(self) -> None:
        assert Options(delay_ms=1000).with_expiry_time(NOON_MS) == Options(delay_ms=1000)


# On the wire ------------------------------------------------------------------------------------

waits = st.integers(0, MAX_MS).map(lambda ms: ms / 1000)
jitters = st.floats(0, 1)
backoffs: st.SearchStrategy[Backoff | None] = st.one_of(
    st.none(),
    st.builds(Fixed, waits, jitters),
    st.builds(Exponential, waits, st.none() | waits, jitters),
    st.builds(Custom, st.text().filter(lambda name: name not in {"fixed", "exponential"})),
)
keeps = st.one_of(
    st.none(),
    st.just(KEEP_NONE),
    st.builds(Keep, st.none() | st.integers(1, MAX_COUNT), st.none() | waits),
)
times = st.integers(1, MAX_MS)
options = st.builds(
    Options,
    attempts=st.integers(1, 1_000_000),
    backoff=backoffs,
    delay_ms=st.integers(0, MAX_MS),
    priority=st.integers(0, MAX_PRIORITY),
    lifo=st.booleans(),
    timeout_ms=st.none() | times,
    expires_at_ms=st.none() | times,
    keep_completed=keeps,
    keep_failed=keeps,
    keep_logs=st.none() | st.integers(1, MAX_KEEP_LOGS),
    job_id=st.none() | st.text(min_size=1),
    since=st.sampled_from([None, "1", "2026.12"]),
    metadata=st.none() | st.dictionaries(st.text(), st.text(), min_size=1),
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
members = st.sampled_from(
    "attempts backoff delay priority lifo jobId removeOnComplete removeOnFail kl hasten "
    "type jitter count age timeout expiresAt cap since metadata tm".split()
)
# Numbers as JSON may have them. Some fit no type of Python or msgspec.
numbers = st.one_of(
    st.integers().map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(["1e25", "-1e25", "1e400", "-1e400", "1" * 400, "-" + "9" * 5000, "-0.0"]),
)
odd_options = st.recursive(
    st.one_of(numbers, numbers.map(lambda number: f'"{number}"'), json_values.map(json.dumps)),
    lambda inner: st.dictionaries(members, inner).map(
        lambda found: "{" + ",".join(f'"{name}":{value}' for name, value in found.items()) + "}"
    ),
    max_leaves=12,
)


class TestRoundTrip:
    @given(options)
    @example(Options(keep_completed=Keep(count=MAX_COUNT), keep_failed=Keep(count=MAX_COUNT - 1)))
    def test_loses_nothing(self, options: Options) -> None:
        assert decode_options(encode_options(options)) == options

    def test_keeps_durations_to_the_millisecond(self) -> None:
        """They are read as seconds."""
        given = Options(
            backoff=Exponential(timedelta(milliseconds=1), cap=timedelta(minutes=1)),
            keep_failed=Keep(count=3, age=timedelta(days=1)),
        )
        assert decode_options(encode_options(given)) == replace(
            given, backoff=Exponential(0.001, cap=60.0), keep_failed=Keep(count=3, age=86_400.0)
        )


class TestEncode:
    def test_writes_bullmqs_names_and_units(self) -> None:
        """Node reads the text.

        Durations are in milliseconds, except in the rules for keeping jobs.
        """
        text = encode_options(
            Options(
                attempts=5,
                backoff=Exponential(2, cap=60, jitter=0.25),
                delay_ms=1500,
                priority=7,
                lifo=True,
                timeout_ms=30_000,
                expires_at_ms=NOON_MS,
                keep_completed=Keep(count=10, age=timedelta(hours=1)),
                keep_failed=KEEP_ALL,
                keep_logs=20,
                job_id="welcome-7",
            )
        )
        assert json.loads(text) == {
            "attempts": 5,
            "backoff": {"type": "exponential", "delay": 2000, "jitter": 0.25},
            "delay": 1500,
            "priority": 7,
            "lifo": True,
            "jobId": "welcome-7",
            "removeOnComplete": {"count": 10, "age": 3600},
            "removeOnFail": False,
            "kl": 20,
            "hasten": {"timeout": 30_000, "expiresAt": NOON_MS, "cap": 60_000},
        }

    def test_says_no_more_than_needed(self) -> None:
        """Every job stores the text."""
        assert encode_options(DEFAULT_OPTIONS) == '{"attempts":1}'

    @pytest.mark.parametrize(
        ("keep", "wire"),
        [
            (KEEP_ALL, False),
            (KEEP_NONE, True),
            (Keep(count=0, age=60), True),
            (Keep(count=3), {"count": 3}),
            (Keep(age=0.5), {"age": 0.5}),
        ],
    )
    def test_writes_keeping_as_removing(self, keep: Keep, wire: object) -> None:
        """BullMQ's rules say what to remove, and hasten's what to keep."""
        text = encode_options(Options(keep_completed=keep))
        assert json.loads(text)["removeOnComplete"] == wire


class TestDecodeWhatNodeWrites:
    @pytest.mark.parametrize(
        ("wire", "expected"),
        [
            ({}, Options()),
            ({"attempts": 0}, Options(attempts=1)),
            ({"attempts": 3}, Options(attempts=3)),
            ({"backoff": {"type": "fixed", "delay": 500}}, Options(backoff=Fixed(0.5))),
            ({"backoff": 500}, Options(backoff=Fixed(0.5))),
            ({"backoff": 0}, Options()),
            (
                {"backoff": {"type": "exponential", "delay": 1000}},
                Options(backoff=Exponential(1, cap=None, jitter=0)),
            ),
            (
                {"backoff": {"type": "exponential", "delay": 1000, "jitter": 0.5}},
                Options(backoff=Exponential(1, cap=None, jitter=0.5)),
            ),
            ({"backoff": {"type": "mine"}}, Options(backoff=Custom("mine"))),
            ({"backoff": {"type": "mine", "delay": 7}}, Options(backoff=Custom("mine"))),
            ({"delay": 1500}, Options(delay_ms=1500)),
            ({"delay": 1500.4}, Options(delay_ms=1500)),
            ({"lifo": True, "priority": 3}, Options(lifo=True, priority=3)),
            ({"removeOnComplete": True}, Options(keep_completed=KEEP_NONE)),
            ({"removeOnComplete": False}, Options(keep_completed=KEEP_ALL)),
            ({"removeOnComplete": 0}, Options(keep_completed=KEEP_NONE)),
            ({"removeOnComplete": 100}, Options(keep_completed=Keep(count=100))),
            ({"removeOnComplete": -1}, Options(keep_completed=KEEP_ALL)),
            ({"removeOnComplete": {"count": -1}}, Options(keep_completed=KEEP_ALL)),
            ({"removeOnComplete": {}}, Options(keep_completed=KEEP_ALL)),
            (
                {"removeOnFail": {"age": 3600, "count": 100, "limit": 10}},
                Options(keep_failed=Keep(count=100, age=3600)),
            ),
            ({"kl": 5}, Options(keep_logs=5)),
            ({"kl": 0}, Options()),
            ({"attempts": "3"}, Options(attempts=3)),
            ({"attempts": None, "backoff": None, "delay": None}, Options()),
            ({"attempts": 1.5}, Options(attempts=2)),
            ({"lifo": None, "priority": None, "kl": None, "jobId": None}, Options()),
            ({"removeOnFail": {"age": None, "count": None}}, Options(keep_failed=KEEP_ALL)),
        ],
    )
    def test_reads_each_form(self, wire: dict[str, Any], expected: Options) -> None:
        assert decode_options(json.dumps(wire)) == expected

    def test_reads_for_ever(self) -> None:
        """Number.MAX_SAFE_INTEGER, as Redis writes it with 14 digits."""
        assert decode_options('{"attempts":9.007199254741e+15}').attempts == MAX_COUNT

    @pytest.mark.parametrize("number", ["1e25", "1e400", "1" * 400, "9" * 5000, '"1e400"'])
    def test_takes_the_most_for_more_than_that(self, number: str) -> None:
        """A worker that failed on it would claim and lose the same job again and again."""
        text = (
            '{"attempts":N,"delay":N,"priority":N,"removeOnComplete":N,"kl":N,'
            '"removeOnFail":{"count":N,"age":N},"hasten":{"timeout":N,"expiresAt":N,"cap":N},'
            '"backoff":{"type":"exponential","delay":N,"jitter":N}}'
        )
        most = MAX_MS / 1000
        assert decode_options(text.replace("N", number)) == Options(
            attempts=MAX_COUNT,
            delay_ms=MAX_MS,
            priority=MAX_PRIORITY,
            keep_completed=Keep(count=MAX_COUNT),
            keep_failed=Keep(count=MAX_COUNT, age=most),
            keep_logs=MAX_KEEP_LOGS,
            timeout_ms=MAX_MS,
            expires_at_ms=MAX_COUNT,
            backoff=Exponential(most, cap=most, jitter=1),
        )

    @pytest.mark.parametrize("number", ["-1", "-0.5", "-1e25", "-1e400", "-" + "1" * 400])
    def test_takes_none_for_less_than_nothing(self, number: str) -> None:
        text = (
            '{"attempts":N,"delay":N,"priority":N,"removeOnComplete":N,"kl":N,'
            '"removeOnFail":{"count":N,"age":N},"hasten":{"timeout":N,"expiresAt":N},'
            '"backoff":{"type":"fixed","delay":N,"jitter":N}}'
        )
        assert decode_options(text.replace("N", number)) == Options(
            keep_completed=KEEP_ALL, keep_failed=KEEP_ALL, backoff=Fixed(0.0, jitter=0)
        )

    def test_ignores_what_it_does_not_know(self) -> None:
        """Other versions and features of BullMQ add members, and the job still runs."""
        text = (
            '{"attempts":2,"tm":"md","omc":true,"stackTraceLimit":2,"de":{"id":"x"},'
            '"parent":{"id":"1","queue":"bull:p"},"hasten":{"later":1}}'
        )
        assert decode_options(text) == Options(attempts=2)

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("", "Input data was truncated"),
            ("nope", "JSON is malformed"),
            ("[]", "Expected `object`, got `array`"),
            ("null", "Expected `object`, got `null`"),
            ("\ud800", "surrogates not allowed"),
            ('{"attempts":NaN}', "JSON is malformed"),
            ('{"attempts":"many"}', "attempts='many': must be a number"),
            ('{"attempts":"nan"}', "attempts='nan': must be a number"),
            ('{"attempts":true}', "attempts=True: must be a number"),
            ('{"attempts":{"a":1e400}}', r"attempts=\{'a': inf\}: must be a number"),
            ('{"delay":[]}', r"delay=\[\]: must be a number"),
            ('{"backoff":"5s"}', "backoff='5s': must be a number"),
            ('{"backoff":{"type":7}}', r"backoff\.type=7: must be a string"),
            ('{"removeOnComplete":"yes"}', "removeOnComplete='yes': must be a number"),
            ('{"removeOnFail":{"age":[]}}', r"removeOnFail\.age=\[\]: must be a number"),
            ('{"hasten":5}', r"\$\.hasten"),
            # Python 3.14 counts bytes of the stack, not levels: there may be room for all of them.
            ('{"x":' + "[" * 100_000, "(nested too deeply|Input data was truncated)"),
        ],
    )
    def test_gives_garbage_a_reason(self, text: str, reason: str) -> None:
        """The job fails with it, and the worker continues."""
        with pytest.raises(ValueError, match=f"^the options of the job cannot be read: .*{reason}"):
            decode_options(text)

    @given(st.text())
    def test_raises_nothing_but_value_errors_for_any_text(self, text: str) -> None:
        with pytest.raises(ValueError, match=r".+"):
            decode_options(text + "]")

    @given(st.dictionaries(members, json_values))
    def test_reads_any_object_or_raises_a_value_error(self, wire: dict[str, Any]) -> None:
        try:
            options = decode_options(json.dumps(wire))
        except ValueError:
            return
        assert isinstance(options, Options)

    @given(odd_options)
    def test_stays_in_bounds_or_says_what_is_wrong(self, text: str) -> None:
        try:
            options = decode_options(text)
        except ValueError as error:
            assert str(error).startswith("the options of the job cannot be read: ")  # noqa: PT017
        else:
            assert decode_options(encode_options(options)) == options
