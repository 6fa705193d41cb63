"""The pages of the reference are what the code says, and leave nothing out."""

from __future__ import annotations

import importlib.util
import re
from types import ModuleType
from typing import Final

import pytest

import hasten.errors
import hasten.jobs
from tests.docs.markdown import ROOT

REFERENCE: Final = ROOT / "docs" / "reference"


def _load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PAGES: Final[dict[str, str]] = _load_generator().pages()


@pytest.mark.parametrize("name", PAGES)
def test_is_up_to_date(name: str) -> None:
    written = (REFERENCE / name).read_text(encoding="utf-8")
    assert written == PAGES[name], "run: python docs/generate.py"


def test_has_no_page_that_nobody_writes() -> None:
    assert {path.name for path in REFERENCE.iterdir()} == set(PAGES)


def headings(page: str) -> set[str]:
    return set(re.findall(r"^## (.+)$", PAGES[page], re.MULTILINE))


def test_has_every_exported_name() -> None:
    assert headings("jobs.md") == set(hasten.jobs.__all__)


def test_has_every_error() -> None:
    errors = {
        name
        for name, value in vars(hasten.errors).items()
        if isinstance(value, type) and issubclass(value, hasten.errors.HastenError)
    }
    assert headings("errors.md") == errors


def test_every_class_and_method_has_words() -> None:
    """A heading followed by its signature alone says nothing that an editor does not."""
    bare = re.findall(r"^### (.+)\n\n```python\n.*\n```\n\n#", PAGES["jobs.md"], re.MULTILINE)
    assert set(bare) <= {"Queue.is_paused"}
