"""Texts that users read contain no phrases and no names that a newcomer has to guess.

Checked are the pages, the strings in the source (docstrings, error messages, log lines, the help of
the command line), the OpenAPI document of the demo, and the names in the source. The lists have
phrases and names that were in use, each with a plain replacement. They cannot prove that a text is
plain, only that it does not contain these again.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.docs.markdown import PAGES, ROOT

# A pattern, and what to write instead.
PHRASES: Final = {
    r"stand(s|ing)? still": "stop, wait, be unavailable",
    r"lets? (us|you|them|nobody) in": "authenticate, accept",
    r"(let|lets|letting) (\w+ )?through": "allow",
    r"lets? (a|the) \w+ go": "reset, release",
    r"(go|goes|went) on": "continue",
    r"(be|is|are|been|was|were) told(?! apart)": "receive, be reported, be asked to",
    r"(be|is|are|was|were) away": "be unavailable",
    r"goes? round": "repeat",
    r"of ours": "of hasten",
    r"none of (this|ours|theirs)": "invalid, another",
    r"in vain": "without result",
    r"(too )?dear(er)?\b": "expensive",
    r"honest wish": "longer than any real client sends",
    r"in circles": "too many redirects",
    r"cannot be meant": "is invalid",
    r"is known of": "is stored about",
    r"stands? between": "is in front of",
    r"stands? in for": "replaces",
    r"harms? requests": "blocks requests",
    r"who (asks|sends|waits|goes|went|is refused|was refused)": "a client that …",
    r"is not to be had": "is not available",
    r"wish(es)?": "request, preference",
    r"sees to it": "ensure",
    r"on (its|their) way already": "in flight",
}

# Names that were replaced, in the source (also with underscores around them) and in texts.
NAMES: Final = {
    "AskingStore": "RemoteStore",
    "Exchange": "LimitedRequest",
    "HowMany": "CountRequest",
    "Lane": "QueueConsumer",
    "Leaves": "FromSources",
    "Making": "FieldBuilder",
    "MisplacedCall": "UsageError",
    "Numbered": "OffsetSlice",
    "Oddities": "OperatorWarnings",
    "Outline": "QueryPlan",
    "Own": "Bindings",
    "Pause": "IdleTimer",
    "Place": "RequestTarget, Endpoint",
    "Reading": "AnalyzedSelect",
    "Remembered": "CountCache",
    "Stretch": "KeysetSlice",
    "Taken": "LimitResult",
    "Wishes": "Preferences",
    "apart": "without_joins",
    "doubt": "invalidate",
    "flights": "max_concurrent_settles",
    "hungry": "may_have_work",
    "is_plainest": "has_fast_path",
    "ruled": "explicit_nulls",
    "sated": "mark_empty",
    "steering": "control_exceptions",
    "strays": "orphaned claims",
    "suspects": "poison_jobs",
    "tell": "emit",
    "told": "effective",
    "troubles": "errors",
    "wish": "claim, preference",
    "wishes": "preferences",
}

_PHRASE: Final = re.compile(
    "|".join(rf"\b(?:{pattern})\b" for pattern in PHRASES), re.IGNORECASE | re.MULTILINE
)
_NAME: Final = re.compile("|".join(rf"`{name}\b" for name in NAMES))


def faults(text: str) -> list[str]:
    """Return the banned phrases and names in a text, also across a line break."""
    flowing = re.sub(r"\s+", " ", text)
    return [found[0] for pattern in (_PHRASE, _NAME) for found in pattern.finditer(flowing)]


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """Return the strings of a source file, each with its line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def identifiers(path: Path) -> set[str]:
    """Return the names of a source file and of what it uses, without underscores around them."""
    names = {path.stem}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                names.add(name)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.add(node.name)
    return {name.strip("_") for name in names}


def in_place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


SOURCE: Final = sorted((ROOT / "src" / "hasten").rglob("*.py"))
PACKAGES: Final = sorted({path.relative_to(ROOT / "src" / "hasten").parts[0] for path in SOURCE})


def files_of(package: str) -> list[Path]:
    return [
        path for path in SOURCE if path.relative_to(ROOT / "src" / "hasten").parts[0] == package
    ]


@pytest.mark.parametrize("page", PAGES, ids=in_place)
def test_a_page_has_no_banned_phrase(page: Path) -> None:
    assert faults(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_string_of_the_source_has_a_banned_phrase(package: str) -> None:
    found = [
        f"{in_place(path)}:{line}: {fault}"
        for path in files_of(package)
        for line, text in strings(path)
        for fault in faults(text)
    ]
    assert found == []


@pytest.mark.parametrize("package", PACKAGES)
def test_the_source_uses_no_replaced_name(package: str) -> None:
    found = {in_place(path): identifiers(path) & NAMES.keys() for path in files_of(package)}
    assert {path: names for path, names in found.items() if names} == {}


def test_openapi_has_no_banned_phrase() -> None:
    assert faults((ROOT / "tests" / "docs" / "openapi.json").read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("queue mail stands still", ["stands still"]),
        ("it goes\non, as it was told to", ["goes on", "was told"]),
        ("The cursor is none of this list.", ["none of this"]),
        ("the `Lane` of a queue", ["`Lane"]),
        ("rows that are told apart; a lane; to go once more; `wishlist`", []),
    ],
)
def test_phrases_are_found_and_plain_words_are_not(text: str, expected: list[str]) -> None:
    assert faults(text) == expected
