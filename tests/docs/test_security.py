"""Each promise of the threat model links an existing test; no stored data is executed."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "security.md"

RUNS_DATA = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "yaml", "jsonpickle"}


def test_each_promise_has_a_test() -> None:
    text = PAGE.read_text()
    rows = re.findall(r"^\| .* \|$", text, re.MULTILINE)
    promises = [row for row in rows if not row.startswith("| threat")]
    assert len(promises) > 20
    for row in promises:
        links = re.findall(r"\[(\w+)\]\(([^)]+\.py)\)", row)
        assert links, row
        for name, target in links:
            source = (PAGE.parent / target).resolve().read_text()
            assert re.search(rf"^\s*((async )?def|class) {name}\b", source, re.MULTILINE), name


def test_no_stored_data_is_executed() -> None:
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Import(names=names):
                    modules = {alias.name.partition(".")[0] for alias in names}
                    assert not modules & RUNS_DATA, path
                case ast.ImportFrom(module=str(module)):
                    assert module.partition(".")[0] not in RUNS_DATA, path
                case ast.Call(func=ast.Name(id=name)):
                    # Annotations of tasks are code of the application, never stored data.
                    assert name not in {"eval", "exec"} or path.name == "_arguments.py", path
