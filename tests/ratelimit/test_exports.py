"""Users get what the package exports, whatever they import."""

from __future__ import annotations

import ast
import builtins
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import hasten.fastapi
import hasten.ratelimit

SRC = Path(hasten.ratelimit.__path__[0])


@pytest.mark.parametrize("package", [hasten.ratelimit, hasten.fastapi])
def test_no_module_shadows_an_exported_name(package: object) -> None:
    """`import hasten.ratelimit.limit` would put the module in the place of the function."""
    modules = {found.name for found in pkgutil.iter_modules(package.__path__)}  # type: ignore[attr-defined]
    assert modules.isdisjoint(package.__all__)  # type: ignore[attr-defined]


def test_every_module_can_be_imported_and_changes_nothing() -> None:
    program = (
        "import pkgutil, importlib, hasten.ratelimit as package\n"
        "before = {name: getattr(package, name) for name in package.__all__}\n"
        "for each in pkgutil.walk_packages(package.__path__, 'hasten.ratelimit.'):\n"
        "    importlib.import_module(each.name)\n"
        "assert before == {name: getattr(package, name) for name in package.__all__}\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


PRIVATE = {
    ("limit_options.py", "TypeError"),  # of `key_to_text`, whose callers catch it
    ("limit.py", "AttributeError"),  # of an attribute that is changed
    ("_algorithms.py", "AssertionError"),  # a bug in hasten
    ("request_checks.py", "LimitFunctionFailed"),
}


def test_what_is_raised_on_purpose_is_in_the_tree_of_errors() -> None:
    found = set()
    for path in [*SRC.rglob("*.py"), SRC.parent / "fastapi" / "_limits.py"]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            raised = node.exc if isinstance(node, ast.Raise) else None
            called = raised.func if isinstance(raised, ast.Call) else raised
            if isinstance(called, ast.Name) and hasattr(builtins, called.id):
                found.add((path.name, called.id))
    assert found <= PRIVATE


def test_the_core_does_not_import_the_limits_of_http() -> None:
    """Limits of jobs and of calls load no middleware, except through the package itself."""
    core = [*SRC.glob("_*.py"), *(SRC / "_stores").rglob("*.py")]
    users = [path.name for path in core if "ratelimit._http" in path.read_text(encoding="utf-8")]
    assert users == ["__init__.py"]
