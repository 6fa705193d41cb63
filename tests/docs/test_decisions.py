"""The list of decisions has each page, with its number and title."""

from __future__ import annotations

import re
from typing import Final

from tests.docs.markdown import ROOT

DOCS: Final = ROOT / "docs"

# "1." would begin an ordered list, and browsers number its items themselves.
_ENTRY: Final = re.compile(r"^- (\d+): \[([^\]]+)\]\(decisions/(\d{4}-[\w-]+\.md)\)$", re.MULTILINE)


def test_each_decision_is_listed_once_under_its_number_and_title() -> None:
    entries = _ENTRY.findall((DOCS / "README.md").read_text(encoding="utf-8"))
    files = sorted((DOCS / "decisions").iterdir())
    assert [name for _, _, name in entries] == [path.name for path in files]
    for (number, title, _), path in zip(entries, files, strict=True):
        heading = path.read_text(encoding="utf-8").partition("\n")[0]
        assert heading == f"# {number}. {title}"
        assert int(number) == int(path.name[:4])
