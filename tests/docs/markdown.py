"""The pages that users read, and the code in them.

A comment before a block of Python says what a test does with it; without one it is compiled.

    <!-- run -->     it is a program: it runs in an empty folder, with exit status 0
    <!-- step -->    it runs in the page's session, after the steps before it; await is possible
    <!-- step        the same for code that readers need not see
    …
    -->
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

ROOT: Final = Path(__file__).parents[2]

PAGES: Final = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]

_BLOCK: Final = re.compile(
    r"^<!-- step\n(?P<hidden>.*?)^-->$"
    r"|(?:^<!-- (?P<mark>\w+) -->\n)?^```(?P<language>\w*)\n(?P<shown>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)

Mark = Literal["run", "step", "compile"]


@dataclass(frozen=True, slots=True)
class Block:
    page: Path
    line: int  # of its first line of code
    language: str
    mark: Mark
    code: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of code of a page, hidden ones too, in order."""
    text = page.read_text(encoding="utf-8")
    for found in _BLOCK.finditer(text):
        hidden = found["hidden"] is not None
        group = "hidden" if hidden else "shown"
        line = text.count("\n", 0, found.start(group)) + 1
        language = "python" if hidden else found["language"]
        mark = "step" if hidden else _mark(found["mark"])
        yield Block(page, line, language, mark, textwrap.dedent(found[group]))


def _mark(text: str | None) -> Mark:
    match text:
        case "run" | "step":
            return text
        case None:
            return "compile"
    raise ValueError(f"<!-- {text} --> means nothing")


def python_blocks(page: Path) -> list[Block]:
    return [block for block in blocks(page) if block.language == "python"]
