"""Parser of the ``fields=`` parameter, such as ``id,name,author(name),author.name``.

    fields = item *("," item)
    item   = name *("." name) ["(" fields ")"]

Spaces around a name are ignored. The parser does not check whether a field exists: `AllowedFields`
looks up the names in a mapping, so they never become SQL.

The text is read once from left to right, without recursion. So a request with thousands of
parentheses is rejected as fast as any other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from hasten.errors import InvalidParameter

MAX_CHARS: Final = 2048
"""The maximum number of characters in all values of the parameter together."""
MAX_NAMES: Final = 100
MAX_DEPTH: Final = 3
"""The maximum number of levels: 3 for ``author.team.name``."""

_TOKEN: Final = re.compile(r"[,().]|[^,().]+")

RESERVED_CHARS: Final = frozenset(",().")
"""The characters of the syntax, which a field name cannot contain."""


@dataclass(slots=True)
class FieldMask:
    """The requested field names as a tree. Do not change it after parsing."""

    names: dict[str, FieldMask] = field(default_factory=dict)
    """The names at this level, in the order of the text, each with the names nested in it."""
    whole: bool = False
    """Whether the field itself was requested, as in ``author``, so its default fields are shown.

    It is False for ``author(name)``, and True for ``author,author(name)``.
    """

    def __str__(self) -> str:
        """Return the shortest text that is parsed as this mask."""
        return ",".join(_format_items(self))


def parse_field_mask(
    texts: Sequence[str],
    *,
    parameter: str = "fields",
    max_depth: int = MAX_DEPTH,
    max_names: int = MAX_NAMES,
) -> FieldMask:
    """Parse all values of the ``fields=`` parameter into one tree. Raises `InvalidParameter`.

    max_depth is the number of levels: ``author.name`` has 2. max_names limits the names in the
    text, where repeated names count each time.
    """
    if sum(map(len, texts)) > MAX_CHARS:
        raise InvalidParameter(
            parameter,
            None,
            f"expected at most {MAX_CHARS} characters",
            code="too_long",
            maximum=MAX_CHARS,
        )
    reader = _MaskParser(parameter, max_depth, max_names)
    for text in texts:
        reader.parse_text(text)
    return reader.root


def too_deep_error(parameter: str, max_depth: int) -> InvalidParameter:
    """Return the error for a name that is nested more deeply than allowed."""
    return InvalidParameter(
        parameter,
        None,
        f"expected at most {max_depth} levels of nested names",
        code="too_deep",
        maximum=max_depth,
    )


class _MaskParser:
    """Parses texts into one tree of names. A stack holds the parentheses that are open."""

    def __init__(self, parameter: str, max_depth: int, max_names: int) -> None:
        self.root: Final = FieldMask()
        self._parameter = parameter
        self._max_depth = max_depth
        self._max_names = max_names
        self._count = 0
        self._reset()

    def _reset(self) -> None:
        # The parents whose parentheses are open, with their depths. A name after a comma is a child
        # of the last one.
        self._groups = [(self.root, 0)]
        # The parent of the next name, and the depth of this parent.
        self._parent, self._depth = self.root, 0
        # The name that was just read; None if a name must come next.
        self._last: FieldMask | None = None
        # Whether a ) was just read, so that only a comma or another ) may follow.
        self._closed = False

    def parse_text(self, text: str) -> None:
        """Parse one text, and add its names to the tree."""
        self._reset()
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
                    self._add_name(name.strip(" "))
        self._end_item()
        if len(self._groups) > 1:
            raise self._malformed_error("a '(' is never closed")

    def _add_name(self, name: str) -> None:
        if not name:
            return
        if self._closed:
            raise self._malformed_error(
                f"{name[:100]!r} follows a ')': expected a comma in between"
            )
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
            raise too_deep_error(self._parameter, self._max_depth)
        self._last = self._parent.names.setdefault(name, FieldMask())

    def _descend(self) -> None:
        """Make the name that was just read the parent of the next name."""
        if self._closed:
            raise self._malformed_error(
                "a ')' is followed by '.' or '(': expected a comma in between"
            )
        if self._last is None:
            raise self._empty_name_error()
        self._parent = self._last
        self._depth += 1
        self._last = None

    def _end_item(self) -> None:
        """Finish the item before a comma, a ) or the end of the text."""
        if self._closed:
            self._closed = False
        elif self._last is None:
            raise self._empty_name_error()
        else:
            self._last.whole = True
            self._last = None

    def _close_group(self) -> None:
        if len(self._groups) == 1:
            raise self._malformed_error("a ')' has no matching '('")
        self._groups.pop()
        self._closed = True

    def _empty_name_error(self) -> InvalidParameter:
        return InvalidParameter(
            self._parameter,
            None,
            f"a field name is empty; omit {self._parameter} for the default fields",
            code="empty_name",
        )

    def _malformed_error(self, reason: str) -> InvalidParameter:
        return InvalidParameter(self._parameter, None, reason, code="malformed")


def _format_items(mask: FieldMask) -> Iterator[str]:
    for name, inner in mask.names.items():
        if inner.whole or not inner.names:
            yield name
        if inner.names:
            yield f"{name}({inner})"
