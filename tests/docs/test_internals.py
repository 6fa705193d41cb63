"""The state diagram shows exactly the transitions of the code."""

from __future__ import annotations

import re

from hasten.jobs._states import INITIAL, TRANSITIONS, State
from tests.docs.markdown import ROOT, blocks

PAGE = ROOT / "docs" / "explanation" / "internals.md"


def arrows() -> list[tuple[str, str]]:
    (diagram,) = (block.code for block in blocks(PAGE) if block.language == "mermaid")
    found = re.findall(r"^ *(\S+) --> (\w+): \S", diagram, re.MULTILINE)
    assert len(found) == diagram.count("-->")
    return [(source.replace("_", "-"), target.replace("_", "-")) for source, target in found]


def test_the_diagram_has_each_transition_once() -> None:
    expected = [(str(source), str(target)) for source in State for target in TRANSITIONS[source]]
    drawn = [arrow for arrow in arrows() if arrow[0] != "[*]"]
    assert sorted(drawn) == sorted(expected)


def test_the_diagram_has_each_initial_state_once() -> None:
    drawn = [target for source, target in arrows() if source == "[*]"]
    assert sorted(drawn) == sorted(INITIAL)
