"""Links between pages lead to files and headings that exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from tests.docs.markdown import PAGES, ROOT

_LINK: Final = re.compile(r"\[[^\]\n]*\]\((?P<target>[^)\s]+)\)")
_HEADING: Final = re.compile(r"^#+ +(.*?)\s*$", re.MULTILINE)
_CODE: Final = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)

# A source file in a text: `hasten/_store.py`, or relative to that folder `jobs/_queue.py`.
_FILE: Final = re.compile(r"`([\w/]+\.(?:py|sql))`")
_FOLDERS: Final = (ROOT, ROOT / "src", ROOT / "src" / "hasten")
_OF_THE_READER: Final = {"app.py", "conftest.py", "manage.py"}


def prose(page: Path) -> str:
    return _CODE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """Return the anchors of the headings of a page, by GitHub's rule."""
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in _HEADING.findall(prose(page)))
    return {heading.replace(" ", "-") for heading in kept}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
class TestPage:
    def test_links_resolve(self, page: Path) -> None:
        for target in (found["target"] for found in _LINK.finditer(prose(page))):
            if "://" in target:
                continue
            file, _, anchor = target.partition("#")
            path = (page.parent / file).resolve() if file else page
            assert path.exists(), target
            assert path.is_relative_to(ROOT), target
            if anchor:
                assert anchor in anchors(path), target

    def test_source_files_in_texts_exist(self, page: Path) -> None:
        named = set(_FILE.findall(prose(page))) - _OF_THE_READER
        assert [n for n in named if not any((folder / n).is_file() for folder in _FOLDERS)] == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen: set[Path] = set()
    ahead = [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        for found in _LINK.finditer(prose(page)):
            target = found["target"].partition("#")[0]
            if target and "://" not in target:
                ahead.append((page.parent / target).resolve())
    assert {str(page.relative_to(ROOT)) for page in PAGES} <= {
        str(page.relative_to(ROOT)) for page in seen
    }
