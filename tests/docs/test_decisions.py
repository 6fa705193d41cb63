"""The list of decisions names each of them, by the number of its file."""

from __future__ import annotations

import re
from typing import Final

from tests.docs.markdown import ROOT

DOCS: Final = ROOT / "docs"

# A number before a dot begins an ordered list, whose later numbers a browser counts by itself.
_ENTRY: Final = re.compile(r"^- (\d+): \[[^\]]+\]\(decisions/(\d{4})-[\w-]+\.md\)$", re.MULTILINE)


def test_each_decision_is_listed_once_under_its_number() -> None:
    entries = _ENTRY.findall((DOCS / "README.md").read_text(encoding="utf-8"))
    files = sorted(int(path.name[:4]) for path in (DOCS / "decisions").iterdir())
    assert [int(shown) for shown, _ in entries] == files
    assert all(int(shown) == int(number) for shown, number in entries)
