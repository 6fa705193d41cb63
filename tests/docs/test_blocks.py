"""What the pages show runs."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.docs.markdown import PAGES, ROOT, Block, blocks, python_blocks

TIME_LIMIT_SECONDS: Final = 30

# A page's session: its steps, in one module and one event loop.
SESSION: Final = """
import ast, asyncio, inspect, sys

async def main():
    session = sys.modules["__main__"].__dict__
    for number, path in enumerate(sys.argv[1:]):
        with open(path, encoding="utf-8") as file:
            code = compile(file.read(), path, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, session)
        if inspect.iscoroutine(result):
            await result

asyncio.run(main())
"""

# The pages of the reference show signatures, which are no code to run.
BY_HAND: Final = [page for page in PAGES if page.parent.name != "reference"]
PYTHON: Final = [block for page in BY_HAND for block in python_blocks(page)]
WITH_STEPS: Final = [page for page in BY_HAND if any(b.mark == "step" for b in python_blocks(page))]


def run(folder: Path, *arguments: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "HASTEN_URL"}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**environment, "PYTHONWARNINGS": "error"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_compiles(block: Block) -> None:
    compile(block.code, str(block), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("block", [b for b in PYTHON if b.mark == "run"], ids=str)
def test_programs_run_in_an_empty_folder(block: Block, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(block.code, encoding="utf-8")
    run(tmp_path, "app.py")


@pytest.mark.parametrize("page", WITH_STEPS, ids=lambda page: str(page.relative_to(ROOT)))
def test_steps_run_one_after_the_other(page: Path, tmp_path: Path) -> None:
    steps = [block for block in python_blocks(page) if block.mark == "step"]
    for step in steps:
        # Blank lines in front give a traceback the numbers of the page's lines.
        lines = "\n" * (step.line - 1) + step.code
        (tmp_path / f"line {step.line}.py").write_text(lines, encoding="utf-8")
    (tmp_path / "session.py").write_text(SESSION, encoding="utf-8")
    run(tmp_path, "session.py", *(f"line {step.line}.py" for step in steps))


class TestTheReaderOfPages:
    def test_sees_marks_hidden_steps_and_line_numbers(self, tmp_path: Path) -> None:
        page = tmp_path / "page.md"
        page.write_text(
            "# Page\n\n```python\na\n```\n\n<!-- run -->\n```python\nb\n```\n"
            "<!-- step\nc\n-->\n\n<!-- a comment -->\n```sh\nd\n```\n",
            encoding="utf-8",
        )
        found = [(b.line, b.language, b.mark, b.code.strip()) for b in blocks(page)]
        assert found == [
            (4, "python", "compile", "a"),
            (9, "python", "run", "b"),
            (12, "python", "step", "c"),
            (17, "sh", "compile", "d"),
        ]

    def test_refuses_a_mark_that_it_does_not_know(self, tmp_path: Path) -> None:
        page = tmp_path / "page.md"
        page.write_text("<!-- runn -->\n```python\na\n```\n", encoding="utf-8")
        with pytest.raises(ValueError, match="runn"):
            list(blocks(page))
