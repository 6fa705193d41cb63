"""Parse ``fields=``: ``id,name,author(name),author.name``.

    fields = item *("," item)
    item   = name *("." name) ["(" fields ")"]

Spaces around a name are ignored. Whether a field exists is checked elsewhere: names are keys of a
mapping, never SQL.

A mask is parsed from left to right, once, without recursion: ten thousand parentheses take as long
as ten thousand letters, and end at the allowed depth.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from hasten.errors import InvalidParameter

MAX_CHARS: Final = 2048
MAX_NAMES: Final = 100
MAX_DEPTH: Final = 3

_TOKEN: Final = re.compile(r"[,().]|[^,().]+")

MARKS: Final = frozenset(",().")
"""The characters that a name cannot contain."""


@dataclass(slots=True)
class Mask:
    """A tree of names. Do not change it after parsing."""

    names: dict[str, Mask] = field(default_factory=dict)
    """In the order of the text, each with the names within it."""
    whole: bool = False
    """Whether the name was given without parentheses: its default fields are requested, too."""

    def __str__(self) -> str:
        """Return the shortest text that is parsed as this mask."""
        return ",".join(_written(self))


def parse(
    texts: Sequence[str],
    *,
    parameter: str = "fields",
    max_depth: int = MAX_DEPTH,
    max_names: int = MAX_NAMES,
) -> Mask:
    """Parse all values of the parameter into one tree. Raises `InvalidParameter`.

    The depth of ``author.name`` is 2. max_names counts each name in the text, repeated ones too.
    """
    if sum(map(len, texts)) > MAX_CHARS:
        raise InvalidParameter(
            parameter,
            None,
            f"expected at most {MAX_CHARS} characters",
            code="too_long",
            maximum=MAX_CHARS,
        )
    reader = _Reader(parameter, max_depth, max_names)
    for text in texts:
        reader.read(text)
    return reader.root


def too_deep(parameter: str, max_depth: int) -> InvalidParameter:
    """Return the error for names below the allowed depth."""
    return InvalidParameter(
        parameter,
        None,
        f"expected at most {max_depth} levels of names",
        code="too_deep",
        maximum=max_depth,
    )


class _Reader:
    """Parses texts into a tree, with a stack of open groups."""

    def __init__(self, parameter: str, max_depth: int, max_names: int) -> None:
        self.root: Final = Mask()
        self._parameter = parameter
        self._max_depth = max_depth
        self._max_names = max_names
        self._count = 0
        self._restart()

    def _restart(self) -> None:
        # The open groups with their depths. A name after a comma belongs to the last one.
        self._groups = [(self.root, 0)]
        # The parent of the next name, and the depth of the parent.
        self._parent, self._depth = self.root, 0
        # The last name, None where a name is expected.
        self._last: Mask | None = None
        # A group was closed: only a comma or another ) can follow.
        self._closed = False

    def read(self, text: str) -> None:
        """Add the names of a text."""
        self._restart()
        for match in _TOKEN.finditer(text):
            match match[0]:
                case ",":
                    self._end_item()
                    self._parent, self._depth = self._groups[-1]
                case ".":
                    self._descend()
                case "(":
                    self._descend()
                    self._groups.append((self._parent, self._depth))
                case ")":
                    self._end_item()
                    self._close_group()
                case name:
                    self._add(name.strip(" "))
        self._end_item()
        if len(self._groups) > 1:
            raise self._malformed("a '(' is never closed")

    def _add(self, name: str) -> None:
        if not name:
            return
        if self._closed:
            raise self._malformed(f"{name[:100]!r} follows a ')': expected a comma in between")
        self._count += 1
        if self._count > self._max_names:
            raise InvalidParameter(
                self._parameter,
                None,
                f"expected at most {self._max_names} names",
                code="too_many",
                maximum=self._max_names,
            )
        if self._depth == self._max_depth:
            raise too_deep(self._parameter, self._max_depth)
        self._last = self._parent.names.setdefault(name, Mask())

    def _descend(self) -> None:
        if self._closed:
            raise self._malformed("a ')' is followed by '.' or '(': expected a comma in between")
        if self._last is None:
            raise self._empty()
        self._parent = self._last
        self._depth += 1
        self._last = None

    def _end_item(self) -> None:
        if self._closed:
            self._closed = False
        elif self._last is None:
            raise self._empty()
        else:
            self._last.whole = True
            self._last = None

    def _close_group(self) -> None:
        if len(self._groups) == 1:
            raise self._malformed("a ')' was never opened")
        self._groups.pop()
        self._closed = True

    def _empty(self) -> InvalidParameter:
        return InvalidParameter(
            self._parameter,
            None,
            f"a field name is empty; omit {self._parameter} for the default fields",
            code="empty_name",
        )

    def _malformed(self, reason: str) -> InvalidParameter:
        return InvalidParameter(self._parameter, None, reason, code="malformed")


def _written(mask: Mask) -> Iterator[str]:
    for name, inner in mask.names.items():
        if inner.whole or not inner.names:
            yield name
        if inner.names:
            yield f"{name}({inner})"
