"""Arguments arrive as they were given: values that JSON would change are refused at the call."""

from __future__ import annotations

import collections
import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, NamedTuple, TypedDict

import attrs
import msgspec
import pydantic
import pytest

from hasten.errors import InvalidArgument
from hasten.jobs import Context, Job, Queue, Worker
from tests.jobs.eventually import fails, result_of

NAN = float("nan")
INF = float("inf")
DAY = datetime(2030, 1, 2, tzinfo=UTC)


class Nan(enum.Enum):
    VALUE = NAN


class Colour(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 1


class Tree(pydantic.BaseModel):
    price: float | None = None
    parts: list[Tree] = []
    keys: dict[int | str, int] = {}


class Constants(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(ser_json_inf_nan="constants")
    price: float


class Prices(pydantic.RootModel[list[float]]):
    pass


@pydantic.dataclasses.dataclass
class Checked:
    price: float


@dataclass
class Line:
    price: Any


@attrs.define
class Attrs:
    price: float


class Struct(msgspec.Struct, rename={"price": "cost"}):
    price: float


class Tuple(NamedTuple):
    price: float


IS_NAN = "is nan, which JSON cannot store"
IS_INF = "is inf, which JSON cannot store"

# The value, the path to the wrong part of it, and the error.
LOST: dict[str, tuple[object, str, str]] = {
    "float": (NAN, "", IS_NAN),
    "infinity": (-INF, "", "is -inf, which JSON cannot store"),
    "list": ([0.5, NAN], "[1]", IS_NAN),
    "tuple": ((NAN,), "[0]", IS_NAN),
    "set": ({INF}, "[0]", IS_INF),
    "frozenset": (frozenset({INF}), "[0]", IS_INF),
    "dict": ({"a": {"b c": NAN}}, ".a['b c']", IS_NAN),
    "defaultdict": (collections.defaultdict(list, {"a": [NAN]}), ".a[0]", IS_NAN),
    "ordered dict": (collections.OrderedDict(a=NAN), ".a", IS_NAN),
    "dataclass": (Line(NAN), ".price", IS_NAN),
    "pydantic": (Tree(price=NAN), ".price", IS_NAN),
    "nested pydantic": (Tree(parts=[Tree(), Tree(price=INF)]), ".parts[1].price", IS_INF),
    "pydantic constants": (Constants(price=INF), ".price", IS_INF),
    "pydantic root": (Prices([1, NAN]), "[1]", IS_NAN),
    "pydantic dataclass": (Checked(NAN), ".price", IS_NAN),
    "pydantic in a dataclass": ([Line(Tree(price=NAN))], "[0].price.price", IS_NAN),
    "attrs": (Attrs(NAN), ".price", IS_NAN),
    "struct": (Struct(NAN), ".cost", IS_NAN),
    "named tuple": (Tuple(NAN), "[0]", IS_NAN),
    "enum": ([Nan.VALUE], "[0]", IS_NAN),
    "nan key": ({"a": {NAN: 1}}, ".a", "has the key nan, which JSON cannot store"),
    "infinite key": ({-INF: 1}, "", "has the key -inf, which JSON cannot store"),
    "int key": ({1: "a", "1": "b"}, "", "has two keys that are both '1' in JSON"),
    "float key": ([{1.5: "a", "1.5": "b"}], "[0]", "has two keys that are both '1.5' in JSON"),
    "decimal key": ({Decimal("1.0"): 1, "1.0": 2}, "", "has two keys that are both '1.0' in JSON"),
    "date key": (
        {date(2030, 1, 2): 1, "2030-01-02": 2},
        "",
        "has two keys that are both '2030-01-02' in JSON",
    ),
    "enum key": ({"a": {Level.HIGH: 1, "1": 2}}, ".a", "has two keys that are both '1' in JSON"),
    "bytes key": ({b"a": 1, "YQ==": 2}, "", "has two keys that are both 'YQ==' in JSON"),
    "key in a dataclass": (
        Line([{1: 1, "1": 2}]),
        ".price[0]",
        "has two keys that are both '1' in JSON",
    ),
    "key in pydantic": (
        Tree(keys={1: 1, "1": 2}),
        ".keys",
        "has two keys that are both '1' in JSON",
    ),
    "key among others": (
        {"b": 1, 1: 2, "c": {"1": 3}, "1": 4},
        "",
        "has two keys that are both '1' in JSON",
    ),
    "bool key": (
        {True: 1, "true": 2},
        "",
        "cannot be stored as JSON: objects of type bool have no JSON form",
    ),
}


class TestValuesThatJsonLoses:
    @pytest.mark.parametrize("kind", LOST)
    async def test_are_refused_at_the_call_with_their_path(self, queue: Queue, kind: str) -> None:
        """Nested values too, and for every method that adds jobs."""
        value, inside, complaint = LOST[kind]

        @queue.task
        async def keep(value: Any) -> None: ...

        with pytest.raises(InvalidArgument) as caught:
            await keep.enqueue(value)
        assert str(caught.value) == f"keep: argument {'value' + inside!r} {complaint}"
        assert (caught.value.argument, caught.value.path) == ("value", f"value{inside}")
        with pytest.raises(InvalidArgument, match=r"^keep: argument .value"):
            await keep.enqueue_many([keep.args(value=1), keep.args(value=value)])
        for name in ("keep", "elsewhere"):
            with pytest.raises(InvalidArgument) as caught:
                await queue.add(name, {"value": value})
            place = "data" if "bool" in complaint else f"data.value{inside}"
            assert str(caught.value) == f"{name}: argument {place!r} {complaint}"
            assert caught.value.argument == "data"
        with pytest.raises(InvalidArgument):
            await queue.add_many([("elsewhere", {}), ("elsewhere", [value])])
        assert sum((await queue.counts()).values()) == 0

    @pytest.mark.parametrize("kind", LOST)
    async def test_fail_the_run_that_returns_them(self, memory: Queue, kind: str) -> None:
        """The result that is stored would not be the one that was returned."""
        value, inside, complaint = LOST[kind]

        @memory.task
        async def make() -> object:
            return value

        error = await fails(result_of(memory, await make.enqueue()))
        why = f"{inside.removeprefix('.') or 'the value'} {complaint}"
        assert error == (
            "InvalidResult: the return value cannot be stored as JSON: "
            + (why if "bool" not in why else "objects of type bool have no JSON form")
        )

    async def test_are_no_progress(self, memory: Queue) -> None:
        @memory.task
        async def report(ctx: Context) -> None:
            with pytest.raises(ValueError, match=r"done\[0\] is nan, which JSON cannot store$"):
                ctx.progress({"done": [NAN]})
            with pytest.raises(ValueError, match=r"can be stored as JSON: the value is inf"):
                ctx.progress(INF)
            with pytest.raises(ValueError, match=r"the value has two keys that are both '1'"):
                ctx.progress({1: 1, "1": 2})

        await result_of(memory, await report.enqueue())

    @pytest.mark.parametrize(
        ("annotation", "value"),
        [
            (dict[int, str], {1: "a", 2: "b"}),
            (dict[date, int], {date(2030, 1, 2): 1}),
            (dict[str, float | None], {"null": None, "nan": 0.5, "NaN": 1.0}),
            (list[dict[str, int]], [{"1": 1}, {"1": 2}]),
            (Tree, Tree(price=None, parts=[Tree()])),
            (str, 'null "nan":{'),
            (int, 2**70),
            (dict[str, Decimal], {"a": Decimal("NaN")}),
        ],
    )
    async def test_are_not_mistaken_for_those_that_it_keeps(
        self, memory: Queue, annotation: Any, value: object
    ) -> None:
        async def keep(value):  # type: ignore[no-untyped-def]
            return value

        keep.__annotations__ = {"value": annotation, "return": annotation}
        job = await memory.task(keep).enqueue(value)
        async with Worker(memory):
            assert str(await job.result(timeout=30)) == str(value)

    async def test_are_looked_for_around_raw_json(self, memory: Queue) -> None:
        @memory.task
        async def keep(value: list[msgspec.Raw]) -> None: ...

        job = await keep.enqueue([msgspec.Raw(b'{"a": [null, 1]}'), msgspec.Raw(b"null")])
        assert job.data == {"value": [{"a": [None, 1]}, None]}
        with pytest.raises(InvalidArgument, match=r"'value\[1\]' is nan"):
            await keep.enqueue([msgspec.Raw(b"null"), NAN])  # type: ignore[list-item]


class Address(TypedDict):
    street: str
    notes: Any


@dataclass
class Node:
    name: str
    extra: dict[str, Any] = field(default_factory=dict)
    children: list[Node] = field(default_factory=list)


UNTYPED: dict[str, tuple[Any, object, str]] = {
    "datetime": (None, DAY, "'value' is of type datetime.datetime, which would arrive as str"),
    "set": (None, {1}, "'value' is of type set, which would arrive as list"),
    "tuple": (None, (1, 2), "'value' is of type tuple, which would arrive as list"),
    "bytes": (None, b"a", "'value' is of type bytes, which would arrive as str"),
    "decimal": (None, Decimal(1), "'value' is of type decimal.Decimal, which would arrive as str"),
    "int enum": (None, Level.HIGH, "Level, which would arrive as int"),
    "text enum": (None, Colour.RED, "Colour, which would arrive as str"),
    "dataclass": (None, Line(1), "Line, which would arrive as dict"),
    "pydantic": (None, Tree(), "Tree, which would arrive as dict"),
    "inside a list": (None, [1, {"a": DAY}], "'value[1].a' is of type datetime.datetime"),
    "defaultdict": (None, collections.defaultdict(int), "defaultdict, which would arrive as dict"),
    "key": (None, {"a": {1: 2}}, "'value.a' has a key of type int, which would arrive as str"),
    "Any": (Any, DAY, "datetime.datetime"),
    "object": (object, DAY, "datetime.datetime"),
    "optional object": (object | None, DAY, "datetime.datetime"),
    "Annotated": (Annotated[Any, "anything"], DAY, "datetime.datetime"),
    "list": (list, [DAY], "'value[0]' is of type datetime.datetime"),
    "list of Any": (list[Any], [DAY], "'value[0]' is of type datetime.datetime"),
    "Sequence": (Sequence, [DAY], "'value[0]' is of type datetime.datetime"),
    "tuple of Any": (tuple[int, Any], (1, DAY), "'value[1]' is of type datetime.datetime"),
    "dict": (dict, {"a": DAY}, "'value.a' is of type datetime.datetime"),
    "keys of a dict": (dict, {1: "a"}, "'value' has a key of type int"),
    "dict of Any": (dict[int, Any], {7: DAY}, "'value[7]' is of type datetime.datetime"),
    "optional dict": (dict[str, Any] | None, {"a": {DAY}}, "'value.a' is of type set"),
    "dataclass field": (
        Node,
        Node("a", children=[Node("b", {"c": DAY})]),
        "'value.children[0].extra.c' is of type datetime.datetime",
    ),
    "typed dict": (Address, {"street": "Main", "notes": b""}, "'value.notes' is of type bytes"),
}


def untyped(queue: Queue, annotation: Any) -> Any:
    async def keep(value=None):  # type: ignore[no-untyped-def]
        return value

    if annotation is not None:
        keep.__annotations__ = {"value": annotation}
    return queue.task(keep)


class TestTypesThatJsonChanges:
    @pytest.mark.parametrize("kind", UNTYPED)
    async def test_are_refused_if_no_annotation_keeps_them(self, queue: Queue, kind: str) -> None:
        """Without an annotation, a datetime would arrive as a string."""
        annotation, value, complaint = UNTYPED[kind]
        keep = untyped(queue, annotation)
        with pytest.raises(InvalidArgument) as caught:
            await keep.enqueue(value)
        assert complaint in str(caught.value)
        assert str(caught.value).endswith(": annotate the parameter 'value' with its type")
        with pytest.raises(InvalidArgument):
            await keep.enqueue_many([keep.args(value=value)])
        with pytest.raises(InvalidArgument):
            await queue.add("keep", {"value": value})
        assert sum((await queue.counts()).values()) == 0

    def test_are_refused_by_the_sync_twins(self) -> None:
        queue = Queue("sync", "memory://")
        keep = untyped(queue, None)
        calls: list[Callable[[], Job[Any] | list[Job[Any]]]] = [
            lambda: keep.sync.enqueue(DAY),
            lambda: keep.sync.enqueue_many([keep.args(value=DAY)]),
            lambda: queue.sync.add("keep", {"value": DAY}),
            lambda: queue.sync.add_many([("keep", {"value": DAY})]),
        ]
        for call in calls:
            with pytest.raises(InvalidArgument, match="annotate the parameter 'value'"):
                call()
        queue.sync.close()

    @pytest.mark.parametrize(
        ("annotation", "value"),
        [
            (None, None),
            (None, {"a": [1, 2.5, True, None, "x", {"b": []}]}),
            (Any, [[]]),
            (dict[int, Any], {7: [1]}),
            (dict[str, datetime | None], {"a": DAY}),
            (Node, Node("a", {"b": 1}, [Node("c")])),
            (list[Any] | str, "text"),
            (Sequence[int], [1, 2]),
            (tuple[int, ...], (1, 2)),
            (set[Colour], {Colour.RED}),
        ],
    )
    async def test_alone_are_refused(self, queue: Queue, annotation: Any, value: object) -> None:
        result = await result_of(queue, await untyped(queue, annotation).enqueue(value))
        assert result == msgspec.json.decode(msgspec.json.encode(value))


class TestDataOfKnownTasks:
    @pytest.mark.parametrize(
        ("data", "complaint"),
        [
            ([1, 2], "Expected `object`, got `array`"),
            ("ada", "Expected `object`, got `str`"),
            ({}, "missing required field `to`"),
            (None, "missing required field `to`"),
            ({"to": "ada", "cc": "bob"}, "unknown field `cc`"),
            ({"to": "ada", "times": "three"}, "Expected `int`, got `str` - at `$.times`"),
            ({"to": "ada", "ctx": {}}, "unknown field `ctx`"),
        ],
    )
    async def test_is_checked_when_a_job_is_added_by_name(
        self, queue: Queue, elsewhere: Queue, data: object, complaint: str
    ) -> None:
        """If the task is known, the error is raised at once and not in the worker."""

        @queue.task
        async def send(ctx: Context, to: str, times: int = 1) -> None: ...

        with pytest.raises(InvalidArgument) as caught:
            await queue.add("send", data)
        assert str(caught.value).startswith("send: argument 'data' does not fit the task: ")
        assert complaint in str(caught.value)
        with pytest.raises(InvalidArgument, match="does not fit the task"):
            await queue.add_many([("send", {"to": "ada"}), ("send", data)])
        assert sum((await queue.counts()).values()) == 0
        await elsewhere.add("send", data)  # the task is unknown there, so any JSON is accepted

    async def test_may_be_what_fits(self, queue: Queue) -> None:
        """A record is accepted if its JSON fits."""

        @dataclass
        class Call:
            to: str
            when: datetime

        @queue.task
        async def send(to: str, when: datetime, times: int = 1) -> str:
            return f"{to} {when:%Y} {times}"

        jobs = await queue.add_many(
            [("send", {"to": "ada", "when": DAY, "times": 2}), ("send", Call("bob", DAY))]
        )
        async with Worker(queue):
            results = [await job.result(timeout=30) for job in jobs]
        assert results == ["ada 2030 2", "bob 2030 1"]
