"""The wheel has all files of the source folder, also SQL, Lua and the type marker."""

from __future__ import annotations

import email
import re
import subprocess
import sys
import zipfile
from email.message import Message
from pathlib import Path

import pytest

import hasten

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return zipfile.Path(path)


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.Path) -> Message:
    path = wheel / f"hasten-{hasten.__version__}.dist-info" / "METADATA"
    return email.message_from_string(path.read_text(encoding="utf-8"))


def test_has_every_file_of_the_source(wheel: zipfile.Path) -> None:
    source = {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    packed = {
        name
        for name in wheel.root.namelist()
        if ".dist-info/" not in name and not name.endswith("/")
    }
    assert packed == source
    assert "hasten/py.typed" in packed
    assert any(name.endswith(".sql") for name in packed)
    assert any(name.endswith(".lua") for name in packed)


def test_has_the_command_the_plugin_and_the_licence(wheel: zipfile.Path) -> None:
    info = wheel / f"hasten-{hasten.__version__}.dist-info"
    entry_points = (info / "entry_points.txt").read_text(encoding="utf-8")
    assert "[console_scripts]\nhasten = hasten._cli:main" in entry_points
    assert "[pytest11]\nhasten = hasten._pytest_plugin" in entry_points
    assert (info / "licenses" / "LICENSE").is_file()


def test_needs_one_package(metadata: Message) -> None:
    needed = metadata.get_all("Requires-Dist", [])
    assert [name.split("<")[0] for name in needed if "extra ==" not in name] == ["msgspec"]


def test_has_the_extras_that_the_code_requires(metadata: Message) -> None:
    sources = (path.read_text("utf-8") for path in (ROOT / "src").rglob("*.py"))
    asked = {name for text in sources for name in re.findall(r'\bextra="(\w+)"', text)}
    assert asked == {
        *("cli", "compression", "fastapi", "prometheus", "redis", "schedules", "sqlalchemy")
    }
    assert set(metadata.get_all("Provides-Extra", [])) == {"all", *asked}
    needed = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" in line]
    of_all = {line.partition(";")[0] for line in needed if "'all'" in line}
    assert of_all == {line.partition(";")[0] for line in needed if "'all'" not in line}


def test_the_summary_names_all_capabilities(metadata: Message) -> None:
    summary = metadata["Summary"]
    assert all(
        word in summary for word in ("jobs", "compression", "pagination", "field", "rate limits")
    )


def test_the_documentation_lists_all_extras(metadata: Message) -> None:
    page = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert sorted(listed) == sorted(metadata.get_all("Provides-Extra", []))
