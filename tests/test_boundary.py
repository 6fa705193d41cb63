"""Packages export their public names in `__all__`, and the reference describes all of them."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Any, Final, ParamSpec, TypeVar

import pytest

import hasten
from tests.docs.generator import load_generator

# Django looks for these by name.
DJANGO: Final = {"hasten.django.apps", "hasten.django.management"}

PACKAGES: Final = [
    "hasten",
    *(
        f"hasten.{module.name}"
        for module in pkgutil.iter_modules(hasten.__path__)
        if not module.name.startswith("_")
    ),
]

# ASGI's own words, and short names for types of SQLAlchemy, which users have by their own names.
STANDARD: Final = {
    *("ASGIApp", "Scope", "Message", "Receive", "Send"),
    *("Executor", "AsyncExecutor", "Selection", "Version"),
}

GENERATOR: Final = load_generator()

each_package = pytest.mark.parametrize("name", PACKAGES)


@each_package
def test_exports_exist_and_are_named_once(name: str) -> None:
    module = importlib.import_module(name)
    exported = exports(module)
    assert [each for each in exported if not hasattr(module, each)] == []
    assert len(exported) == len(set(exported))


@each_package
def test_nothing_else_can_be_imported(name: str) -> None:
    module = importlib.import_module(name)
    assert public(module).difference(exports(module)) == set()


@each_package
def test_the_modules_of_a_package_are_private(name: str) -> None:
    package = importlib.import_module(name)
    if package is not hasten:
        modules = pkgutil.iter_modules(getattr(package, "__path__", ()), f"{name}.")
        found = {each.name for each in modules}
        assert {each for each in found if f"{name}._" not in each} - DJANGO == set()


@each_package
def test_no_export_has_the_name_of_a_module(name: str) -> None:
    """`import hasten.x.limit` would replace `hasten.x.limit` by the module."""
    assert shadowed(importlib.import_module(name)) == []


@each_package
def test_the_reference_describes_every_export(name: str) -> None:
    module = importlib.import_module(name)
    exported = {each for each in exports(module) if not each.startswith("__")}
    page = GENERATOR.FOLDER / f"{name.removeprefix('hasten.')}.md"
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    headings = set(re.findall(r"^## (\w+)$", text, re.MULTILINE))
    elsewhere = set(re.findall(r"\[`(\w+)`\]\(\w+\.md#\w+\)", text))
    assert headings | elsewhere == exported


@each_package
def test_the_names_in_public_signatures_are_exported(name: str) -> None:
    """Users can import every type that they need to call or annotate."""
    assert unexported(importlib.import_module(name)) == set()


class TestTheseRulesCanFail:
    def test_another_public_name(self) -> None:
        module = made("import os\nfrom typing import Final\n__all__ = ['A']\nclass A: ...\nB = 1\n")
        assert public(module) == {"A"}
        module.__path__ = []
        assert public(module) == {"A", "B", "Final"}

    def test_an_export_named_like_a_module(self) -> None:
        module = made("__all__ = ['jobs', 'fields_']\ndef jobs(): ...\ndef fields_(): ...\n")
        module.__path__ = list(hasten.__path__)
        assert shadowed(module) == ["jobs"]

    def test_a_hidden_name_in_a_signature(self) -> None:
        module = made(
            "from __future__ import annotations\nfrom hasten._asgi import Headers\n"
            "__all__ = ['f']\ndef f(a: list[Headers], b: int, *, c: Headers) -> bytes: ...\n"
        )
        assert unexported(module) == {"Headers"}


def exports(module: ModuleType) -> list[str]:
    """Return `__all__`, or for a module without it (errors) the names that it defines."""
    found: list[str] = getattr(module, "__all__", [])
    return found if found or is_package(module) else sorted(public(module))


def is_package(module: ModuleType) -> bool:
    return hasattr(module, "__path__")


def public(module: ModuleType) -> set[str]:
    """Return the names without an underscore, for a module only those that it defines."""
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not isinstance(value, ModuleType) and name != "annotations"
        if is_package(module) or getattr(value, "__module__", None) == module.__name__
    }


def shadowed(module: ModuleType) -> list[str]:
    modules = {each.name for each in pkgutil.iter_modules(getattr(module, "__path__", ()))}
    return sorted(modules.intersection(exports(module)))


@cache
def all_exports() -> frozenset[str]:
    return frozenset(each for name in PACKAGES for each in exports(importlib.import_module(name)))


def unexported(module: ModuleType) -> set[str]:
    """Return the names of hasten in the signatures of exports that no package exports."""
    return {
        name
        for export in exports(module)
        for home, annotation in annotations_of(getattr(module, export))
        for name in names_in(annotation)
        if is_ours(home, name) and name not in all_exports() | STANDARD
    }


def annotations_of(value: Any) -> Iterator[tuple[ModuleType, str]]:
    """Return the annotations of a function, or of the fields and methods of a class."""
    if inspect.isclass(value):
        for ancestor in value.__mro__:
            if not ancestor.__module__.startswith("hasten"):
                continue
            home = importlib.import_module(ancestor.__module__)
            if dataclasses.is_dataclass(ancestor) or hasattr(ancestor, "__struct_fields__"):
                fields = inspect.get_annotations(ancestor)
                yield from ((home, str(a)) for n, a in fields.items() if not n.startswith("_"))
            for name, member in vars(ancestor).items():
                if is_shown(value, name):
                    yield from of_function(member)
    else:
        yield from of_function(value)


def is_shown(kind: type, member: str) -> bool:
    """Return whether the reference has it."""
    if member == "__init__":
        return kind.__name__ not in GENERATOR.NOT_MADE_BY_USERS
    hidden = f"{kind.__name__}.{member}" in GENERATOR.FOR_HASTEN_ITSELF
    return not hidden and not member.startswith("_")


def of_function(member: Any) -> Iterator[tuple[ModuleType, str]]:
    if isinstance(member, classmethod | staticmethod):
        member = member.__func__
    if isinstance(member, property):
        member = member.fget
    function = getattr(inspect.unwrap(member), "func", member) if callable(member) else member
    if inspect.isfunction(function):
        home = inspect.getmodule(function)
        assert home is not None or function.__module__ == "made"
        for annotation in function.__annotations__.values():
            yield home or _made, str(annotation)


def names_in(annotation: str) -> set[str]:
    return {n.id for n in ast.walk(ast.parse(annotation, mode="eval")) if isinstance(n, ast.Name)}


def is_ours(home: ModuleType, name: str) -> bool:
    """Return whether hasten defines it and it is no type variable."""
    if isinstance(getattr(home, name, None), TypeVar | ParamSpec | ModuleType):
        return False
    origins = imported(home)
    return origins[name].startswith("hasten") if name in origins else name in vars(home)


@cache
def imported(module: ModuleType) -> dict[str, str]:
    """Return the modules that a module imports names from."""
    source = sources.get(module.__name__) or inspect.getsource(module)
    return {
        alias.asname or alias.name: node.module or ""
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


sources: Final[dict[str, str]] = {}

_made: ModuleType = ModuleType("made")


def made(source: str) -> ModuleType:
    global _made  # noqa: PLW0603 - the functions in it do not lead back to it
    _made = ModuleType("made")
    sources["made"] = source
    imported.cache_clear()
    exec(source, vars(_made))
    return _made
