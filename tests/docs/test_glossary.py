"""The glossary explains each term once, in one sentence, and has all states of a job."""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

from hasten.jobs import State
from tests.docs.markdown import ROOT

TEXT: Final = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
ROWS: Final = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in TEXT.splitlines()
    if line.startswith("| ") and not line.startswith(("| term", "| state"))
]
TERMS: Final = [row for row in ROWS if len(row) == 3]


def test_each_term_is_explained_once_in_one_sentence() -> None:
    assert len(TERMS) > 70
    assert [term for term, count in Counter(row[0] for row in TERMS).items() if count > 1] == []
    for term, meaning, elsewhere in TERMS:
        assert re.fullmatch(r"[^.]+(?:\.\w[^.]*)*\.", meaning), term
        assert elsewhere, term


def test_all_states_are_explained() -> None:
    states = [row[0].strip("`") for row in ROWS if len(row) == 2]
    assert sorted(states) == sorted(State)
