"""Arguments and results with the types of the handler, and data that does not fit them."""

from __future__ import annotations

import enum
import sqlite3
import traceback
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, TypedDict
from uuid import UUID

import msgspec
import pydantic
import pytest

from hasten import Store
from hasten.errors import InvalidArgument, InvalidOption, StoreRejected
from hasten.jobs import Queue, State, Worker
from tests.jobs.eventually import fails, result_of


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Parcel:
    weight: float
    tags: list[str] = field(default_factory=list)


class Stop(NamedTuple):
    city: str
    minutes: int


class Address(TypedDict):
    street: str
    zip: NotRequired[str]


class Item(msgspec.Struct):
    sku: str
    amount: Annotated[int, msgspec.Meta(ge=1)] = 1


class User(pydantic.BaseModel):
    name: str
    email: pydantic.SecretStr | None = None
    born: date


VALUES: dict[str, tuple[Any, object]] = {
    "int": (int, 2**60),
    "float": (float, 0.1),
    "text": (str, "naïve ☃ \0 \U0001f600"),
    "bytes": (bytes, b"\0\xff"),
    "bool": (bool, False),
    "none": (None, None),
    "optional": (int | None, None),
    "list": (list[int], [1, 2]),
    "tuple": (tuple[int, str], (1, "a")),
    "set": (set[int], {1, 2}),
    "dict": (dict[str, float], {"null": 1.5}),
    "sequence": (Sequence[int], [1, 2]),
    "literal": (Literal["a", "b"], "b"),
    "enum": (Colour, Colour.RED),
    "datetime": (datetime, datetime(2030, 1, 2, 3, 4, 5, 678, tzinfo=UTC)),
    "date": (date, date(2030, 1, 2)),
    "timedelta": (timedelta, timedelta(days=1, milliseconds=5)),
    "decimal": (Decimal, Decimal("1.10")),
    "uuid": (UUID, UUID("12345678123456781234567812345678")),
    "dataclass": (Parcel, Parcel(1.5, ["fragile"])),
    "named tuple": (Stop, Stop("Oslo", 5)),
    "typed dict": (Address, {"street": "Main"}),
    "struct": (Item, Item("a", 3)),
    "list of structs": (list[Item], [Item("a"), Item("b", 2)]),
    "pydantic": (User, User(name="Ada", born=date(1815, 12, 10))),
    "list of pydantic": (list[User], [User(name="Ada", born=date(1815, 12, 10))]),
    "any": (Any, {"a": [1, None, "x"]}),
}


class TestTypes:
    @pytest.mark.parametrize("kind", VALUES)
    async def test_arrive_as_given_and_come_back_as_returned(self, queue: Queue, kind: str) -> None:
        annotation, value = VALUES[kind]
        seen: list[object] = []

        async def echo(value):  # type: ignore[no-untyped-def]
            seen.append(value)
            return value

        echo.__annotations__ = {"value": annotation, "return": annotation}
        job = await queue.task(echo).enqueue(value)
        result = await result_of(queue, job)
        assert seen == [value]
        assert type(seen[0]) is type(value)
        assert result == value
        assert type(result) is type(value)
        assert (await job.refresh()).value == value

    async def test_without_annotations_are_what_json_says(self, queue: Queue) -> None:
        """None, bool, int, float, str, and lists and dicts of them, are not changed."""

        async def echo(value):  # type: ignore[no-untyped-def]
            return value

        value = {"a": [1, "b", {}], "c": None, "d": 1.0, "e": True}
        result = await result_of(queue, await queue.task(echo).enqueue(value))
        assert result == value
        assert type(result["d"]) is float

    async def test_of_results_are_not_enforced(self, queue: Queue) -> None:
        """A wrong annotation must not fail a job whose work is done."""

        @queue.task
        async def lie() -> int:
            return "text"  # type: ignore[return-value]

        job = await lie.enqueue()
        assert await result_of(queue, job) == "text"  # type: ignore[comparison-overlap]


WRONG: dict[str, tuple[dict[str, Any], object, str]] = {
    "type": ({"n": int}, {"n": "seven"}, "Expected `int`, got `str` - at `$.n`"),
    "missing": ({"n": int}, {}, "missing required field `n`"),
    "unknown": ({"n": int}, {"n": 1, "m": 2}, "unknown field `m`"),
    "no object": ({"n": int}, [1], "Expected `object`, got `array`"),
    "dataclass": ({"p": Parcel}, {"p": {"weight": "x"}}, "at `$.p.weight`"),
    "typed dict": ({"a": Address}, {"a": {"zip": "1"}}, "missing required field `street`"),
    "struct": ({"i": Item}, {"i": {"sku": "a", "amount": 0}}, "Expected `int` >= 1"),
    "pydantic": ({"u": User}, {"u": {"name": "Ada"}}, "born"),
    "date": ({"d": datetime}, {"d": "yesterday"}, "Invalid RFC3339"),
    "enum": ({"c": Colour}, {"c": "blue"}, "Invalid enum value - at `$.c`"),
}


class Cat(msgspec.Struct, tag=True):
    name: str


class Dog(msgspec.Struct, tag=True):
    name: str


class Card(pydantic.BaseModel):
    number: int
    owner: User | None = None


class Small(pydantic.BaseModel):
    kind: Literal["small"]


class Large(pydantic.BaseModel):
    kind: Literal["large"]


class Box(pydantic.BaseModel):
    size: Annotated[Small | Large, pydantic.Field(discriminator="kind")]


# Data with a SECRET, the reason without it, and whether the reason with values has it.
PRIVATE: dict[str, tuple[object, object, str]] = {
    "pydantic": (
        Card,
        {"number": "SECRET", "owner": {"name": "Ada"}},
        "unable to parse string as an integer; owner.born: Field required - at `$.value`",
    ),
    "inside": (list[Card], [{"number": "SECRET"}], "unable to parse string as an integer"),
    "tag of a model": (
        Box,
        {"size": {"kind": "SECRET"}},
        "Box: size: Input tag does not match any of the expected tags",
    ),
    "enum": (Colour, "SECRET' - at `$.x`", "Invalid enum value - at `$.value`"),
    "literal": (Literal["a", "b"], "SECRET\n", "Invalid enum value - at `$.value`"),
    "tag": (Cat | Dog, {"type": "SECRET", "name": "x"}, "Invalid value - at `$.value.type`"),
}


class TestValues:
    """Values of data that does not fit may be private, so logs and error trackers omit them."""

    @pytest.mark.parametrize("show_values", [False, True])
    @pytest.mark.parametrize("kind", PRIVATE)
    async def test_are_in_no_reason_unless_a_queue_shows_them(
        self, kind: str, show_values: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        annotation, value, reason = PRIVATE[kind]
        store = Store("memory://")
        queue = Queue("private", store, show_values=show_values)
        elsewhere = Queue("private", store)

        async def handler(value: Any) -> None: ...

        handler.__annotations__["value"] = annotation
        queue.task(handler)
        with pytest.raises(InvalidArgument) as refused:
            await queue.add("handler", {"value": value})
        job = await elsewhere.add("handler", {"value": value})
        error = await fails(result_of(queue, job, grace=0))
        for shown in (str(refused.value), error):
            assert ("SECRET" in shown) is show_values
            assert (reason in shown) is not show_values or kind == "inside"
        whole = "".join(traceback.format_exception(refused.value))
        assert ("SECRET" in whole + caplog.text) is show_values
        await store.aclose()

    async def test_of_progress_and_of_jobs_are_in_no_error(self, queue: Queue) -> None:
        job = await queue.add("send", {"to": "ada"})
        for progress in ({"SECRET": object()}, {"to": "SECRET" * 1_000_000}):
            with pytest.raises(InvalidOption, match=r"^progress=<dict>: must be") as caught:
                await job.update(progress=progress)
            assert "SECRET" not in str(caught.value)
        with pytest.raises(InvalidOption, match=r"^jobs=<tuple>: must be tuples \(name, data\)"):
            await queue.add_many([("send", {"to": "SECRET"}, "oops")])  # type: ignore[list-item]

    async def test_that_a_store_refuses_are_in_no_error(self, tmp_path: Path) -> None:
        queue = Queue("mail", f"sqlite:///{tmp_path}/jobs.db")
        with pytest.raises(StoreRejected, match="has a lone surrogate at index 6") as caught:
            await queue.engine.get("mail", ["SECRET\ud800"])
        assert "SECRET" not in str(caught.value)
        await queue.aclose()

    def test_of_show_values_are_checked(self) -> None:
        with pytest.raises(InvalidOption, match="show_values='no': must be True or False"):
            Queue("mail", "memory://", show_values="no")  # type: ignore[arg-type]


class TestWrongData:
    @pytest.mark.parametrize("kind", WRONG)
    async def test_never_reaches_handlers(self, queue: Queue, elsewhere: Queue, kind: str) -> None:
        """The data comes from another language or an older version, so a retry would not help."""
        annotations, data, why = WRONG[kind]
        (name,) = annotations

        namespace: dict[str, Any] = {}
        exec(f"async def handler({name}): raise AssertionError('it ran')", namespace)
        handler = namespace["handler"]
        handler.__annotations__ = annotations
        queue.task(attempts=5, backoff=60)(handler)
        job = await elsewhere.add("handler", data, attempts=5, backoff=60)
        error = await fails(result_of(queue, job))
        assert "the data of the job does not fit the task 'handler'" in error
        assert why in error
        assert (await job.refresh()).tracebacks in ([], [""])

    async def test_an_unknown_task_fails_and_names_the_known_ones(self, queue: Queue) -> None:
        """The name has a typing error, or the worker is not deployed."""

        @queue.task
        async def known() -> None: ...

        job = await queue.add("unknown", attempts=3)
        async with Worker(queue):
            why = r"this worker has no task 'unknown' \(its tasks: known\)"
            await fails(job.result(timeout=30), why)
            await (await known.enqueue()).result(timeout=30)
        assert (await job.refresh()).attempts_made == 0

    @pytest.mark.parametrize(
        ("column", "text", "why"),
        [
            (
                "data",
                "{",
                "the data of the job does not fit the task 'known': Input data was truncated",
            ),
            ("data", "", "the data of the job does not fit the task 'known'"),
            ("data", "[[" * 100_000, "the data of the job does not fit the task 'known'"),
            ("opts", "{", "the options of the job cannot be read: Input data was truncated"),
            (
                "opts",
                '{"attempts": "many"}',
                "the options of the job cannot be read: attempts='many'",
            ),
            (
                "opts",
                '{"backoff": {"type": 7}}',
                "the options of the job cannot be read: backoff.type=7",
            ),
        ],
        ids=["half", "empty", "deep", "half opts", "wrong opts", "wrong backoff"],
    )
    async def test_what_was_written_by_hand_and_cannot_be_read_fails_its_job_alone(
        self, tmp_path: Path, column: str, text: str, why: str
    ) -> None:
        """The worker continues with the next job."""
        queue = Queue("mail", f"sqlite:///{tmp_path / 'jobs.db'}")

        @queue.task
        async def known() -> str:
            return "ran"

        job = await known.enqueue()
        with closing(sqlite3.connect(tmp_path / "jobs.db")) as connection, connection:
            connection.execute(f"UPDATE hasten_jobs SET {column} = ?", (text,))
        async with Worker(queue):
            assert why in await fails(job.result(timeout=30))
            assert await (await known.enqueue()).result(timeout=30) == "ran"
        assert (await queue.counts())[State.FAILED] == 1
        await queue.aclose()


class TestResults:
    @pytest.mark.parametrize(
        ("value", "why"),
        [
            (object(), "objects of type object have no JSON form"),
            (float("nan"), "the value is nan, which JSON cannot store"),
            ("x" * 2000, "too large: 2,002 bytes of JSON, at most 1,000 are allowed"),
        ],
        ids=["object", "NaN", "large"],
    )
    async def test_that_cannot_be_stored_fail_for_good(self, value: object, why: str) -> None:
        """A retry would do the work again and return the same value."""
        queue = Queue("small", "memory://", max_size=1000)
        runs: list[int] = []

        @queue.task(attempts=3)
        async def answer() -> object:
            runs.append(1)
            return value

        job = await answer.enqueue()
        assert why in await fails(result_of(queue, job), "InvalidResult: the return value")
        assert len(runs) == 1
        await queue.aclose()
