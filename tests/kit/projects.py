"""Projects in which hasten is installed with its plug-in of pytest, which run in a subprocess."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]

# pytest-asyncio warns in each project that does not set this option.
SETTINGS: Final = """
[pytest]
addopts = --strict-markers
filterwarnings =
    error
    ignore:.*asyncio_default_fixture_loop_scope
"""


class Project:
    """A folder with tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._installed = folder / "installed"
        self._install_plugin()
        self.write("pytest.ini", SETTINGS)

    def _install_plugin(self) -> None:
        """Write what an installation of hasten writes: the entry points of pyproject.toml."""
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        plugins: dict[str, str] = project["entry-points"]["pytest11"]
        metadata = self._installed / "hasten_installed-1.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text("Name: hasten-installed\nVersion: 1\n", encoding="utf-8")
        lines = [f"{name} = {module}" for name, module in plugins.items()]
        text = "\n".join(["[pytest11]", *lines, ""])
        (metadata / "entry_points.txt").write_text(text, encoding="utf-8")

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(textwrap.dedent(text), encoding="utf-8")

    def run(self, *options: str) -> str:
        """Run pytest, and return what it prints."""
        path = filter(None, [str(self.folder), str(self._installed), os.environ.get("PYTHONPATH")])
        plugins = [f"no:{name}" for name in ("schemathesis", "cacheprovider")]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *(f"-p{name}" for name in plugins), *options],
            cwd=self.folder,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(path),
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return done.stdout + done.stderr

    def expect(self, *options: str, **counts: int) -> str:
        """Run the tests, and return the output. counts are the expected numbers of outcomes."""
        out = self.run(*options)
        for outcome, count in counts.items():
            assert f"{count} {outcome}" in out, out
        return out
