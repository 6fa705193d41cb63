"""Arguments that do not fit the annotations of a task are refused where the job is added."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import pytest
from pydantic import BaseModel, field_validator

from hasten.errors import InvalidArgument, InvalidOption
from hasten.jobs import Queue, State, Worker
from tests.jobs.eventually import fails, result_of


@dataclass
class Line:
    sku: str
    count: int


@dataclass
class Order:
    id: int
    lines: list[Line]


class Address(BaseModel):
    street: str

    @field_validator("street")
    @classmethod
    def has_a_number(cls, street: str) -> str:
        if not any(map(str.isdigit, street)):
            raise ValueError("has no number")
        return street


@pytest.mark.parametrize(
    ("annotation", "value", "path", "reason"),
    [
        (int, "x", "value", "Expected `int`, got `str`"),
        (str, 1, "value", "Expected `str`, got `int`"),
        (str, None, "value", "Expected `str`, got `null`"),
        (datetime, "tomorrow", "value", "Invalid RFC3339 encoded datetime"),
        (Literal["a", "b"], "c", "value", "Invalid enum value"),
        (list[int], [1, "2"], "value[1]", "Expected `int`, got `str`"),
        (dict[str, int], {"a": "b"}, "value[...]", "Expected `int`, got `str`"),
        (Order, Order(1, [Line("a", 1), Line("b", "2")]), "value.lines[1].count", "Expected `int`"),  # type: ignore[arg-type]
        (Order, {"id": 1}, "value", "Object missing required field `lines`"),
        (Address, {"street": "Main"}, "value", "has no number"),
        (Address, Address.model_construct(street="Main"), "value", "has no number"),
    ],
)
async def test_are_refused_with_their_path(
    memory: Queue, annotation: Any, value: object, path: str, reason: str
) -> None:
    async def keep(value: Any) -> None: ...

    keep.__annotations__["value"] = annotation
    task: Any = memory.task(keep)
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: task.enqueue(value),
        lambda: task.using(delay=5).enqueue(value),
        lambda: task.enqueue_many([task.args(value)]),
    ]
    for call in calls:
        with pytest.raises(InvalidArgument) as caught:
            await call()
        assert (caught.value.task, caught.value.argument, caught.value.path) == (
            "keep",
            "value",
            path,
        )
        text = str(caught.value).replace("Address: street: Value error, ", "")
        assert f"does not fit its annotation: {reason}" in text
    with pytest.raises(InvalidArgument):
        await memory.add("keep", {"value": value})
    assert (await memory.counts())[State.WAITING] == 0


@pytest.mark.parametrize("value", [Order(1, [Line("a", 2)]), {"id": 1, "lines": []}])
async def test_that_fit_are_stored_as_they_were_given(memory: Queue, value: Any) -> None:
    """A value of another type is accepted if its JSON decodes to the annotated type."""

    @memory.task
    async def keep(value: Order) -> int:
        return value.id

    assert await result_of(memory, await keep.enqueue(value)) == 1


async def test_of_a_task_without_annotations_are_not_checked(memory: Queue) -> None:
    @memory.task
    async def keep(value, other=1):  # type: ignore[no-untyped-def]
        return value

    assert (await keep.enqueue({"a": [1, None]})).data == {"value": {"a": [1, None]}}


async def test_are_not_checked_where_that_is_turned_off(memory: Queue) -> None:
    """Queue(check_arguments=False) or a task turns the check off. The worker checks in any case."""
    unchecked = Queue("memory", memory.store, check_arguments=False)

    async def square(number: int) -> int:
        return number * number

    first = await unchecked.task(square).enqueue("x")  # type: ignore[arg-type]
    second = await memory.task(square, check_arguments=False).enqueue("x")  # type: ignore[call-overload]
    third = await memory.add("square", {"number": "x"})
    with pytest.raises(InvalidArgument):
        await unchecked.task(name="checked", check_arguments=True)(square).enqueue("x")  # type: ignore[arg-type]
    async with Worker(memory):
        for job in (first, second, third):
            await fails(job.result(timeout=30), "does not fit the task 'square': Expected `int`")


def test_whether_to_check_is_true_or_false(memory: Queue) -> None:
    with pytest.raises(InvalidOption, match="check_arguments='no': must be True or False"):
        Queue("mail", "memory://", check_arguments="no")  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="check_arguments=1: must be True or False"):
        memory.task(check_arguments=1)(print)  # type: ignore[call-overload]


@pytest.mark.parametrize("show_values", [False, True])
async def test_values_are_in_no_error_unless_a_queue_shows_them(show_values: bool) -> None:
    async with Queue("mail", "memory://", show_values=show_values) as queue:

        @queue.task
        async def choose(color: Literal["red", "green"]) -> None: ...

        with pytest.raises(InvalidArgument) as caught:
            await choose.enqueue("SECRET")  # type: ignore[arg-type]
        assert ("SECRET" in str(caught.value)) is show_values
