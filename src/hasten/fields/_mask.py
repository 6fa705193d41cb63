"""What a client writes in ``fields=``: ``id,name,author(name),author.name``.

    fields = item *("," item)
    item   = name *("." name) ["(" fields ")"]

Spaces around a name are nothing. What a name means, and whether there is such a field, is not asked
here: names are keys to look up, never a text of SQL.

A mask is read from left to right, once, without recursion: ten thousand parentheses cost what ten
thousand letters do, and end at the depth that is allowed.
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
"""What no name can hold."""


@dataclass(slots=True)
class Mask:
    """A tree of names. Not to be changed when it has been read."""

    names: dict[str, Mask] = field(default_factory=dict)
    """In the order of the text, each with what is asked of it."""
    whole: bool = False
    """It stood alone: its default is asked for, besides the names in it."""

    def __str__(self) -> str:
        """The shortest text that reads as this."""
        return ",".join(_written(self))


def parse(
    texts: Sequence[str],
    *,
    parameter: str = "fields",
    max_depth: int = MAX_DEPTH,
    max_names: int = MAX_NAMES,
) -> Mask:
    """Read all values of the parameter into one tree. Raises `InvalidParameter`.

    max_depth is of names within names: ``author.name`` is 2 deep. max_names counts each name that
    is written, again if it is repeated.
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
    return InvalidParameter(
        parameter,
        None,
        f"expected names at most {max_depth} deep",
        code="too_deep",
        maximum=max_depth,
    )


class _Reader:
    """Puts what it reads into a tree; where it stands in it is on a stack."""

    def __init__(self, parameter: str, max_depth: int, max_names: int) -> None:
        self.root: Final = Mask()
        self._parameter = parameter
        self._max_depth = max_depth
        self._max_names = max_names
        self._count = 0
        self._restart()

    def _restart(self) -> None:
        # The groups that are open, each with its depth: what follows a comma goes into the last.
        self._groups = [(self.root, 0)]
        # Where the next name goes, and its depth there.
        self._parent, self._depth = self.root, 0
        # The name that was read last, None where one is due.
        self._last: Mask | None = None
        # A group was closed, and nothing but a comma or another ) can follow.
        self._closed = False

    def read(self, text: str) -> None:
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
            raise self._malformed(f"{name[:100]!r} follows a ')': expected a comma between")
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
            raise self._malformed("a ')' is followed by '.' or '(': expected a comma between")
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
            f"a field name is empty; leave {self._parameter} out for the usual ones",
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
