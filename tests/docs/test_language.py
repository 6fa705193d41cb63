"""Texts that users read contain no phrases and no names that a newcomer has to guess at.

Checked are the pages, the strings in the source (docstrings, error messages, log lines, the help of
the command line) and the OpenAPI document of the demo. The lists are made of phrases that were
found, each with the plain wording. They cannot prove that a text is plain, only that it does not
fall back.
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
    r"wish(es)?\b": "request, preference",
    r"sees to it": "ensure",
    r"on (its|their) way already": "in flight",
}

# Names that were replaced; in texts they are written as code.
NAMES: Final = {
    "Lane": "QueueConsumer",
    "flights": "max_in_flight",
    "MisplacedCall": "UsageError",
    "Stretch": "KeysetSlice",
    "Numbered": "OffsetSlice",
    "Outline": "QueryPlan",
    "Remembered": "CountCache",
    "HowMany": "CountRequest",
    "Exchange": "LimitedRequest",
    "Taken": "LimitResult",
    "AskingStore": "RemoteStore",
    "Oddities": "OperatorWarnings",
    "Wishes": "Preferences",
    "approximate=": "an exact limit",
}

_PHRASE: Final = re.compile(
    "|".join(rf"\b(?:{pattern})\b" for pattern in PHRASES), re.IGNORECASE | re.MULTILINE
)
_NAME: Final = re.compile("|".join(rf"`{re.escape(name)}" for name in NAMES))


def faults(text: str) -> list[str]:
    """Return the banned phrases and names in a text, also across a line break."""
    flowing = re.sub(r"\s+", " ", text)
    return [found[0] for pattern in (_PHRASE, _NAME) for found in pattern.finditer(flowing)]


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """Return the strings of a source file, each with its line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def in_place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# The reference pages repeat strings of the source.
WRITTEN_BY_HAND: Final = [page for page in PAGES if page.parent.name != "reference"]
SOURCE: Final = sorted(
    path for path in (ROOT / "src" / "hasten").iterdir() if path.suffix in {"", ".py"}
)


@pytest.mark.parametrize("page", WRITTEN_BY_HAND, ids=in_place)
def test_a_page_has_no_banned_phrase(page: Path) -> None:
    assert faults(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("package", SOURCE, ids=in_place)
def test_no_string_of_the_source_has_a_banned_phrase(package: Path) -> None:
    files = [package] if package.suffix == ".py" else package.rglob("*.py")
    found = [
        f"{in_place(path)}:{line}: {fault}"
        for path in files
        for line, text in strings(path)
        for fault in faults(text)
    ]
    assert found == []


def test_openapi_has_no_banned_phrase() -> None:
    assert faults((ROOT / "tests" / "docs" / "openapi.json").read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("queue mail stands still", ["stands still"]),
        ("it goes\non, as it was told to", ["goes on", "was told"]),
        ("The cursor is none of this list.", ["none of this"]),
        ("`Lane` owns it", ["`Lane"]),
        ("rows that are told apart; a lane; to go once more", []),
    ],
)
def test_phrases_are_found_and_plain_words_are_not(text: str, expected: list[str]) -> None:
    assert faults(text) == expected
