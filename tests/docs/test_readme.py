"""The README is short, and its code is code of the examples."""

from __future__ import annotations

import re
from typing import Final

import pytest

from tests.docs.markdown import ROOT, Block, python_blocks

README: Final = ROOT / "README.md"
BLOCKS: Final = python_blocks(README)
CONTINUES: Final = "continues"


def paragraph_before(block: Block) -> str:
    lines = README.read_text(encoding="utf-8").splitlines()[: block.line - 1]
    return "\n".join(lines).rpartition("\n\n")[0].rpartition("\n\n")[2]


def example_of(block: Block) -> str:
    if block is BLOCKS[0]:
        return "quickstart.py"
    (name,) = re.findall(r"\(examples/(\w+\.py)\)", paragraph_before(block))
    return str(name)


def lines_of(code: str) -> list[str]:
    return [line.strip() for line in code.splitlines() if line.strip()]


def test_has_at_most_250_lines() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 250


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_shows_lines_of_its_example_in_their_order(block: Block) -> None:
    rest = iter(lines_of((ROOT / "examples" / example_of(block)).read_text(encoding="utf-8")))
    for line in lines_of(block.code):
        assert line in rest, f"not in {example_of(block)}, or not in this order: {line}"


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_is_a_program_or_says_what_it_continues(block: Block) -> None:
    """A program has no undefined names: it can be executed by itself."""
    if block is not BLOCKS[0] and CONTINUES in paragraph_before(block):
        return
    exec(compile(block.code, str(block), "exec", dont_inherit=True), {"__name__": "app"})


def test_the_first_program_is_the_example() -> None:
    example = (ROOT / "examples" / "quickstart.py").read_text(encoding="utf-8")
    assert BLOCKS[0].code == example.partition('"""\n\n')[2]


def test_all_examples_are_linked() -> None:
    linked = {example_of(block) for block in BLOCKS}
    assert linked == {path.name for path in (ROOT / "examples").glob("*.py")}
