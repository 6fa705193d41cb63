"""Escape characters that could control a terminal.

Other programs write names, errors and data into a store. An escape sequence in them could clear
the screen, forge lines or fill the clipboard of a user who looks at the store or at a log.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from typing import Final

# Control characters, invisible ones (they can reverse the direction of the text), surrogates, and
# two separators that some programs treat as the end of a line.
_ESCAPED: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_JOINERS: Final = "\u200c\u200d"  # invisible but harmless: they join letters and emoji


def printable(text: str, *, keep: str = "") -> str:
    r"""Write control characters that are not in keep as `\n`, `\x1b` or `\u202e`."""
    return _escape(text, keep, lambda character: character.encode("unicode_escape").decode())


def is_printable(text: str) -> bool:
    """Return whether `printable` would return the text unchanged."""
    return text.isprintable() or not any(map(_is_escaped, text))


def printable_json(value: object) -> str:
    """Return indented JSON of the same value, with only these characters escaped."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    return _escape(text, "\n", lambda character: json.dumps(character)[1:-1])


def _escape(text: str, keep: str, escape: Callable[[str], str]) -> str:
    if text.isprintable():
        return text
    return "".join(
        escape(character) if _is_escaped(character) and character not in keep else character
        for character in text
    )


def _is_escaped(character: str) -> bool:
    return unicodedata.category(character) in _ESCAPED and character not in _JOINERS
