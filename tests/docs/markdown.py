"""The pages that users read, and the code in them.

All code of a page is visible: no comment of a page holds code or tells a test what to do.
`test_blocks.py` says how each block is tested.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]

PAGES: Final = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]

_BLOCK: Final = re.compile(r"^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    page: Path
    line: int  # of its first line of code
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def first_line(self) -> str:
        return self.code.partition("\n")[0]

    @property
    def is_program(self) -> bool:
        """Whether the block is a program that runs when it is started as a file."""
        return self.language == "python" and 'if __name__ == "__main__":' in self.code


def blocks(page: Path) -> Iterator[Block]:
    """Return the blocks of code of a page, in order."""
    text = page.read_text(encoding="utf-8")
    for found in _BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("code")) + 1
        yield Block(page, line, found["language"], textwrap.dedent(found["code"]))


def python_blocks(page: Path) -> list[Block]:
    return [block for block in blocks(page) if block.language == "python"]
