"""Run docs/howto/testing.md: its code is a test module, which passes with the plug-in."""

from pathlib import Path

from tests.docs.page_session import Page
from tests.kit.projects import Project

FRAGMENTS = ("import os",)


async def check(page: Page) -> None:
    project = Project(Path.cwd())
    project.write("test_page.py", page.code)
    project.expect("-oasyncio_mode=auto", passed=13)
    assert not Path("hasten.db").exists()
