"""Run the blocks of a page, one after the other, in one event loop and one module.

python -m tests.docs.page_session tests.docs.pages.howto_retries
"""

from __future__ import annotations

import ast
import asyncio
import importlib
import inspect
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Final

from tests.docs.markdown import ROOT, Block, python_blocks


class Page:
    """The blocks of the page that a module of tests/docs/pages belongs to."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        fragments: set[str] = set(getattr(module, "FRAGMENTS", ()))
        everything = python_blocks(page_of(module.__name__))
        self._blocks = [block for block in everything if block.first_line not in fragments]
        unknown = fragments - {block.first_line for block in everything}
        assert not unknown, f"no block begins with {unknown}"

    @property
    def code(self) -> str:
        """The blocks as one module."""
        return "\n".join(block.code for block in self._blocks)

    async def run(self) -> Any:
        """Run the blocks. Returns an object whose attributes are their names."""
        for block in self._blocks:
            result = eval(compiled(block), vars(self._module))
            if inspect.iscoroutine(result):
                await result
        return SimpleNamespace(**vars(self._module))


def compiled(block: Block) -> Any:
    """Compile a block that may await, with the numbers of the page's lines in tracebacks."""
    code = "\n" * (block.line - 1) + block.code
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    return compile(code, str(block.page), "exec", flags, dont_inherit=True)


def page_of(module: str) -> Path:
    folder, _, name = module.rpartition(".")[2].partition("_")
    return ROOT / "docs" / folder / f"{name.replace('_', '-')}.md"


async def main(name: str) -> None:
    module: Final = importlib.import_module(name)
    await module.check(Page(module))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
