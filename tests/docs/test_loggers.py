"""The page about production lists every logger."""

from __future__ import annotations

import re
from typing import Final

from tests.docs.markdown import ROOT

_LOGGER: Final = re.compile(r"""get(?:_l|L)ogger\(\s*"(hasten[.\w]*)"\s*\)""")


def test_all_loggers_are_listed() -> None:
    sources = (ROOT / "src").rglob("*.py")
    loggers = {name for path in sources for name in _LOGGER.findall(path.read_text("utf-8"))}
    page = (ROOT / "docs" / "howto" / "production.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^  \| `(hasten\.\w+)` \|", page, re.MULTILINE))
    assert {"hasten.worker", "hasten.compression"} <= loggers
    assert named == loggers
