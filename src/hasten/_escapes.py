"""Escape characters that could control a terminal.

Names, errors and data in a store can come from other programs. When they are printed or logged, an
escape sequence in them could clear the screen, forge lines or fill the clipboard of the user.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from typing import Final

# The Unicode categories of control characters (Cc), invisible format characters, which can reverse
# the direction of the text (Cf), surrogates (Cs), and the line and paragraph separators (Zl, Zp).
_ESCAPED: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_JOINERS: Final = "\u200c\u200d"  # invisible but harmless: they join letters and emoji


def escape_unprintable(text: str, *, keep: str = "") -> str:
    r"""Return the text with control characters escaped, such as `\n`, `\x1b` or `\u202e`.

    The characters in keep are not escaped.
    """
    return _escape(text, keep, lambda character: character.encode("unicode_escape").decode())


def is_printable(text: str) -> bool:
    """Return whether `escape_unprintable` would return the text unchanged."""
    return text.isprintable() or not any(map(_needs_escape, text))


def to_printable_json(value: object) -> str:
    """Return a value as indented JSON. Of the characters outside of ASCII, only those that could
    control a terminal are escaped.
    """
    text = json.dumps(value, ensure_ascii=False, indent=2)
    return _escape(text, "\n", lambda character: json.dumps(character)[1:-1])


def _escape(text: str, keep: str, escape: Callable[[str], str]) -> str:
    if text.isprintable():
        return text
    return "".join(
        escape(character) if _needs_escape(character) and character not in keep else character
        for character in text
    )


def _needs_escape(character: str) -> bool:
    return unicodedata.category(character) in _ESCAPED and character not in _JOINERS
