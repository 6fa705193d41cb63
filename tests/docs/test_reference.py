"""The pages of the reference are what the code says, and leave nothing out."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Final, Literal, TypedDict

import pytest

import hasten.errors
from tests.docs.generator import load_generator
from tests.docs.markdown import ROOT

DEFAULT_TEXT: Final = "x"

REFERENCE: Final = ROOT / "docs" / "reference"


GENERATOR: Final = load_generator()

PAGES: Final[dict[str, str]] = GENERATOR.pages()


@pytest.mark.parametrize("name", PAGES)
def test_is_up_to_date(name: str) -> None:
    written = (REFERENCE / name).read_text(encoding="utf-8")
    assert written == PAGES[name], "run: python docs/generate.py"


def test_has_no_page_that_nobody_writes() -> None:
    assert {path.name for path in REFERENCE.iterdir()} == set(PAGES)


def headings(page: str) -> set[str]:
    return set(re.findall(r"^## (.+)$", PAGES[page], re.MULTILINE))


def test_has_every_error() -> None:
    errors = {
        name
        for name, value in vars(hasten.errors).items()
        if isinstance(value, type) and issubclass(value, hasten.errors.HastenError | Warning)
    }
    assert headings("errors.md") == errors


@pytest.mark.parametrize(
    "name", [*(m.__name__ for m in GENERATOR.PACKAGES.values()), "hasten.errors"]
)
def test_every_public_name_has_a_docstring(name: str) -> None:
    """A name with its signature alone says nothing that an editor does not show."""
    assert list(undescribed(importlib.import_module(name))) == []


def undescribed(module: ModuleType) -> Iterator[str]:
    for name in getattr(module, "__all__", None) or headings(f"{module.__name__[7:]}.md"):
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            if not inspect.getdoc(value):
                yield name
            if inspect.isclass(value):
                members = GENERATOR._members(value)
                yield from (f"{name}.{each}" for each, fact in members if not inspect.getdoc(fact))


class Example(LookupError):
    """An example.

        if it_is_indented:

            keep(the_indentation)

    And a text.
    """

    def __init__(
        self,
        size: int | str = "1kb",
        *names: str,
        kind: Literal["a", "b"] = "a",
        last: float = 1e-3,
    ) -> None:
        """Its signature has quotes."""

    @classmethod
    def made(cls, *, text: str = "") -> Example:
        """Return another one."""
        return cls(text)

    def later(self, a: int, /, b: Awaitable[int]) -> Awaitable[str]:
        """Is to be awaited, and takes what is awaited."""
        raise NotImplementedError


@dataclass(frozen=True)
class Record:
    names: tuple[str, ...] = ("a", "b")
    table: dict[str, int] = field(default_factory=dict)
    text: str = DEFAULT_TEXT


class Options(TypedDict, total=False):
    size: int | str
    text: str


class TestWhatAClassLooksLike:
    def test_signatures_are_as_they_are_written(self) -> None:
        example = GENERATOR._signature("class Example", Example.__init__, skip=1, returns=False)
        assert example == (
            "class Example(\n"
            '    size: int | str = "1kb",\n'
            "    *names: str,\n"
            '    kind: Literal["a", "b"] = "a",\n'
            "    last: float = 1e-3,\n"
            ")"
        )
        assert GENERATOR._method("later", Example.later) == (
            "async def later(a: int, /, b: Awaitable[int]) -> str"
        )
        assert GENERATOR._method("made", vars(Example)["made"]) == (
            '@classmethod\ndef made(*, text: str = "") -> Example'
        )

    def test_fields_are_parameters(self) -> None:
        """A constant that is not exported is shown by its value."""
        assert GENERATOR._fields_as_parameters(Record) == [
            'names: tuple[str, ...] = ("a", "b")',
            "table: dict[str, int] = {}",
            'text: str = "x"',
        ]

    def test_option_dictionaries_show_their_keys(self) -> None:
        assert list(GENERATOR._attributes(Options)) == ["- `size: int | str`", "- `text: str`"]

    def test_examples_keep_their_indentation(self) -> None:
        assert GENERATOR._prose(inspect.getdoc(Example)) == (
            "An example.\n\n"
            "```python\nif it_is_indented:\n\n    keep(the_indentation)\n```\n\n"
            "And a text."
        )

    def test_errors_show_what_else_they_are(self) -> None:
        assert "class JobNotFound(HastenError, LookupError)" in PAGES["errors.md"]

    def test_type_aliases_keep_their_comments(self) -> None:
        assert '    "too_small",  # below minimum_size\n' in PAGES["compression.md"]
