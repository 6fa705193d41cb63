"""`.sync` twins cannot drift: each has the async methods of its class, with the same signatures.

A twin of the class `Name` is called `SyncName`, lives in the same module or imports `Name`, and is
found here by its name. Methods that are not async are optional, unless they return an object whose
own methods are async.
"""

from __future__ import annotations

import importlib
import inspect
import re
import typing
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

SRC: Final = Path(__file__).parent.parent / "src"

RENAMED: Final = {"aclose": "close"}

# Async methods that need no twin, and why.
WITHOUT_TWIN: Final = {
    ("Paginator", "from_source"): "the methods of a Source are async",
    ("Queue", "queue_named"): "only hasten itself calls it",
}


class Twins(typing.NamedTuple):
    """A class with async methods, and its blocking twin."""

    original: type
    sync: type


def all_twins() -> Iterator[Twins]:
    for path in sorted(SRC.rglob("*.py")):
        for name in re.findall(r"^class Sync(\w+)", path.read_text(encoding="utf-8"), re.MULTILINE):
            module = importlib.import_module(".".join(path.relative_to(SRC).with_suffix("").parts))
            yield Twins(vars(module)[name], vars(module)[f"Sync{name}"])


TWINS: Final = list(all_twins())


@pytest.mark.parametrize("twins", TWINS, ids=lambda twins: twins.original.__name__)
def test_a_twin_has_every_async_method_with_its_signature(twins: Twins) -> None:
    assert differences(twins) == []


def test_the_twins_are_found() -> None:
    names = {twins.original.__name__ for twins in TWINS}
    assert names >= {"Queue", "Job", "Enqueuer", "Limiter", "Paginator", "FieldSelector"}


class TestDifferences:
    """The comparison finds differences between twins."""

    class Original(typing.Protocol):
        async def same(self, id: str, *, limit: int = 10) -> list[str]: ...
        async def missing(self) -> None: ...
        async def aclose(self) -> None: ...
        async def default(self, limit: int = 10) -> None: ...
        async def type(self, limit: int) -> None: ...
        async def result(self) -> int: ...
        def events(self) -> AsyncIterator[str]: ...
        def plain(self) -> str: ...

    class SyncOriginal(typing.Protocol):
        def same(self, id: str, *, limit: int = 10) -> list[str]: ...
        def close(self) -> None: ...
        def default(self, limit: int = 20) -> None: ...
        def type(self, limit: float) -> None: ...
        def result(self) -> str: ...
        def more(self) -> None: ...

    def test_are_reported(self) -> None:
        found = differences(Twins(self.Original, self.SyncOriginal))
        assert found == [
            "default(limit: int = 10) -> None, in the twin: (limit: int = 20) -> None",
            "events: missing in the twin",
            "missing: missing in the twin",
            "more: only in the twin",
            "result() -> int, in the twin: () -> str",
            "type(limit: int) -> None, in the twin: (limit: float) -> None",
        ]


def differences(twins: Twins) -> list[str]:
    """Return everything that the twin lacks, has in addition, or declares differently."""
    methods, blocking = public_methods(twins.original), public_methods(twins.sync)
    expected = {RENAMED.get(name, name): function for name, function in methods.items()}
    found = [f"{name}: only in the twin" for name in blocking.keys() - expected.keys()]
    for name, function in expected.items():
        if name in blocking:
            ours, theirs = signature(function), signature(blocking[name])
            if ours != theirs:
                found.append(f"{name}{ours}, in the twin: {theirs}")
        elif needs_twin(twins.original, name, function):
            found.append(f"{name}: missing in the twin")
    return sorted(found)


def public_methods(cls: type) -> dict[str, Callable[..., Any]]:
    return {
        name: member
        for name, member in inspect.getmembers(cls, inspect.isfunction)
        if not name.startswith("_")
    }


def needs_twin(cls: type, name: str, function: Callable[..., Any]) -> bool:
    if (cls.__name__, name) in WITHOUT_TWIN:
        return False
    if inspect.iscoroutinefunction(function):
        return True
    names = vars(importlib.import_module(function.__module__))
    returned = names.get(str(inspect.signature(function).return_annotation).partition("[")[0])
    return hasattr(returned, "__anext__") or hasattr(returned, "sync")


def signature(function: Callable[..., Any]) -> str:
    """Return the signature as text, without self, and with twins named like their classes."""
    found = inspect.signature(function)
    parameters = list(found.parameters.values())[1:]
    text = str(found.replace(parameters=parameters)).replace("'", "")
    return re.sub(r"\b(Sync|Async)(?=[A-Z])", "", text)
