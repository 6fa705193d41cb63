"""The code of the pages runs.

- Every block of Python compiles.
- A block with `if __name__ == "__main__":` is a program: it runs in an empty folder.
- The blocks of a page that has a module in tests/docs/pages run in order, in one session.
- The README's blocks are parts of the examples (test_readme.py), which run (test_examples.py), and
  the tutorial's are files (test_tutorial.py).
- The other pages show fragments, which are compiled only.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.docs.markdown import PAGES, ROOT, Block, blocks, python_blocks
from tests.docs.page_session import page_of

TIME_LIMIT_SECONDS: Final = 60

# The pages of the reference show signatures, which are no code to run.
BY_HAND: Final = [page for page in PAGES if page.parent.name != "reference"]
PYTHON: Final = [block for page in BY_HAND for block in python_blocks(page)]
PROGRAMS: Final = [block for block in PYTHON if block.is_program]

SESSIONS: Final = [
    f"tests.docs.pages.{path.stem}"
    for path in sorted((ROOT / "tests" / "docs" / "pages").glob("*_*.py"))
    if path.stem != "__init__"
]
TESTED_ELSEWHERE: Final = {ROOT / "README.md", ROOT / "docs" / "tutorial.md"}
FRAGMENTS_ONLY: Final = {
    ROOT / "docs" / page
    for page in (
        "decisions/0026-start-of-an-event-stream.md",
        "explanation/compression.md",
        "explanation/wire-format.md",
        "howto/django.md",
        "howto/production.md",
        "howto/redis.md",
    )
}


def run(folder: Path, *arguments: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "HASTEN_URL"}
    path = os.pathsep.join(filter(None, [environment.get("PYTHONPATH"), str(ROOT)]))
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**environment, "PYTHONPATH": path, "PYTHONWARNINGS": "error"},
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


@pytest.mark.parametrize("block", PROGRAMS, ids=str)
def test_programs_run_in_an_empty_folder(block: Block, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(block.code, encoding="utf-8")
    run(tmp_path, "app.py")


@pytest.mark.parametrize("module", SESSIONS)
def test_blocks_of_a_page_run_one_after_the_other(module: str, tmp_path: Path) -> None:
    run(tmp_path, "-m", "tests.docs.page_session", module)


def test_each_page_is_tested_in_one_way() -> None:
    others = {block.page for block in PYTHON if not block.is_program} - TESTED_ELSEWHERE
    assert others == FRAGMENTS_ONLY | {page_of(module) for module in SESSIONS}


@pytest.mark.parametrize("page", BY_HAND, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_code_is_hidden_in_a_comment(page: Path) -> None:
    comments = page.read_text(encoding="utf-8").split("<!--")[1:]
    assert all("\n" not in comment.partition("-->")[0] for comment in comments)


class TestTheReaderOfPages:
    def test_returns_blocks_with_language_and_line_number(self, tmp_path: Path) -> None:
        page = tmp_path / "page.md"
        page.write_text("# Page\n\n```python\na\n```\n\ntext\n\n```sh\nd\n```\n", encoding="utf-8")
        found = [(b.line, b.language, b.code.strip()) for b in blocks(page)]
        assert found == [(4, "python", "a"), (10, "sh", "d")]
