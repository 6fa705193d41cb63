"""Imports go down, never up and never in a ring, and foreign packages come in at known doors.

A module stands on the floor of the longest pattern that fits it. Every import counts, those inside
functions and below TYPE_CHECKING too.
"""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Final

import pytest

SRC: Final = Path(__file__).parent.parent / "src"

FLOORS: Final = {
    # foundation: nothing but the standard library
    "hasten": 0,
    "hasten.errors": 0,
    "hasten._*": 0,
    # drivers: connections, no domain word
    "hasten._sqlite": 2,
    "hasten._sqlite.*": 2,
    "hasten._redis": 2,
    "hasten._redis.*": 2,
    "hasten._sqlalchemy": 2,
    "hasten._sqlalchemy.*": 2,
    # pure rules
    "hasten.jobs._states": 1,
    "hasten.jobs._record": 1,
    "hasten.jobs._options": 1,
    "hasten.jobs._backoff": 1,
    "hasten.jobs._deduplication": 1,
    "hasten.jobs._engine": 1,
    "hasten.jobs._annotations": 1,
    "hasten.jobs._arguments": 1,
    "hasten.jobs._encoding": 1,
    "hasten.jobs._releases": 1,
    "hasten.jobs._trace_context": 1,
    "hasten.jobs._functions": 1,
    "hasten.jobs._validation_errors": 1,
    "hasten.jobs._cron": 1,
    "hasten.jobs._cron_canonical": 1,
    "hasten.jobs._control_exceptions": 1,
    "hasten.jobs._epoch": 1,
    "hasten.jobs._worker_info": 1,
    "hasten.jobs._run_totals": 1,
    "hasten.jobs._worker_state": 1,
    "hasten.jobs._health": 1,
    "hasten.jobs._schedule_changes": 1,
    "hasten.jobs._schedule_ids": 1,
    "hasten.jobs._schedule_log": 1,
    "hasten.jobs._schedule_options": 1,
    "hasten.jobs._schedule_record": 1,
    "hasten.jobs._schedule_times": 1,
    "hasten.jobs._schedule_wire": 1,
    "hasten.jobs._slot": 1,
    "hasten.pagination._order": 1,
    "hasten.pagination._params": 1,
    "hasten.pagination._cursor": 1,
    "hasten.pagination._counts": 1,
    "hasten.pagination._links": 1,
    "hasten.pagination._page": 1,
    "hasten.pagination._page_building": 1,
    "hasten.pagination._slices": 1,
    "hasten.pagination._sort_options": 1,
    "hasten.pagination._sources": 1,
    "hasten.fields._mask": 1,
    "hasten.fields._allowed": 1,
    "hasten.fields._rows": 1,
    "hasten.fields._partial": 1,
    "hasten.fields._names": 1,
    "hasten.fields._items": 1,
    "hasten.compression._negotiation": 1,
    "hasten.compression._media_types": 1,
    "hasten.compression._head": 1,
    "hasten.compression._breach": 1,
    "hasten.compression._level_policy": 1,
    "hasten.compression._options": 1,
    "hasten.compression._request_target": 1,
    "hasten.ratelimit._rates": 1,
    "hasten.ratelimit._http.addresses": 1,
    "hasten.ratelimit._http.proxies": 1,
    "hasten.ratelimit._http.paths": 1,
    "hasten.ratelimit._http.root_paths": 1,
    "hasten.ratelimit._http.policy_headers": 1,
    "hasten.ratelimit._http.limit": 1,
    "hasten.ratelimit._http.limit_options": 1,
    "hasten.ratelimit._http.registry": 1,
    "hasten.ratelimit._http.plans": 1,
    "hasten.ratelimit._http.results": 1,
    "hasten.ratelimit._rules": 1,
    "hasten.ratelimit._algorithms": 1,
    "hasten.ratelimit._counter_store": 1,
    "hasten.ratelimit._circuit_breaker": 1,
    "hasten.ratelimit._http.stats": 1,
    "hasten.ratelimit._http.exemptions": 1,
    "hasten.ratelimit._denial_cache": 1,
    "hasten.ratelimit._test_isolation": 1,
    "hasten.loadshedding._gradient": 1,
    "hasten.loadshedding._stats": 1,
    # engines
    "hasten.jobs._engines": 3,
    "hasten.jobs._engines.*": 3,
    "hasten.compression._codecs": 3,
    "hasten.compression._decoders": 3,
    "hasten.compression._libraries": 3,
    "hasten.pagination._sql": 3,
    "hasten.pagination._sql.*": 3,
    "hasten.fields._sql": 3,
    "hasten.fields._sql.*": 3,
    "hasten.ratelimit._stores": 3,
    "hasten.ratelimit._stores.*": 3,
    # shells
    "hasten.jobs": 4,
    "hasten.jobs.*": 4,
    "hasten.compression": 4,
    "hasten.compression.*": 4,
    "hasten.pagination": 4,
    "hasten.pagination.*": 4,
    "hasten.fields": 4,
    "hasten.fields.*": 4,
    "hasten.loadshedding": 4,
    "hasten.loadshedding.*": 4,
    "hasten.ratelimit": 4,
    "hasten.ratelimit.*": 4,
    # faces
    "hasten.__main__": 5,
    "hasten._cli": 5,
    "hasten._cli.*": 5,
    "hasten.testing": 5,
    "hasten.testing.*": 5,
    "hasten._pytest_plugin": 5,
    "hasten.fastapi": 5,
    "hasten.fastapi.*": 5,
    "hasten.django": 5,
    "hasten.django.*": 5,
    "hasten.prometheus": 5,
    "hasten.prometheus.*": 5,
    "hasten.dashboard": 5,
    "hasten.dashboard.*": 5,
}

# The capabilities that must be of use without a job queue.
WITHOUT_JOBS: Final = ("compression", "pagination", "fields", "ratelimit", "loadshedding")

# Where a package from outside, or a driver, may be imported or asked for by _extras.require.
DOORS: Final = {
    "sqlite3": (
        "hasten._sqlite.*",
        "hasten.jobs._engines.sqlite.*",
        "hasten.ratelimit._stores.sqlite.*",
    ),
    "msgspec": (
        "hasten.jobs.*",
        "hasten._cli.logs",
        "hasten.fields._rows",
        "hasten.fastapi._pages",
        "hasten.ratelimit._stores.redis.batch",
    ),
    "pydantic": ("hasten.jobs.*", "hasten.fastapi.*"),
    "pydantic_core": ("hasten.fastapi._pages",),
    "django": ("hasten._django", "hasten.django.*"),
    "fastapi": ("hasten.fastapi", "hasten.fastapi.*"),
    "redis": ("hasten._redis", "hasten._redis.*"),
    "opentelemetry": ("hasten.jobs._spans",),
    "croniter": ("hasten.jobs._cron",),
    "backports": ("hasten.compression._libraries",),
    "compression": ("hasten.compression._libraries",),
    "brotli": ("hasten.compression._libraries",),
    "brotlicffi": ("hasten.compression._libraries",),
    "isal": ("hasten.compression._libraries",),
    "sqlalchemy": (
        "hasten._sqlalchemy",
        "hasten._sqlalchemy.*",
        "hasten.pagination._sql.*",
        "hasten.pagination._paginator",
        "hasten.fields._sql.*",
    ),
    "prometheus_client": ("hasten.prometheus", "hasten.prometheus.*"),
    "pytest": ("hasten._pytest_plugin",),
    "typer": ("hasten._cli", "hasten._cli.*"),
    "rich": ("hasten._cli", "hasten._cli.*"),
}

# What a pure rule has no business with: its clock, dice and bytes come in as arguments.
IMPURE: Final = frozenset(
    {"asyncio", "threading", "time", "random", "secrets", "os", "pathlib", "socket", "sqlite3"}
)


Imports = frozenset[str]
"""What a module imports, by dotted name."""

Tree = Mapping[str, Imports]
"""The modules of a source folder by dotted name."""


def test_every_module_has_a_floor() -> None:
    assert [name for name in source() if floor(name) is None] == []


def test_imports_never_go_up() -> None:
    assert upward(source()) == []


def test_imports_form_no_ring() -> None:
    assert ring(source()) == []


def test_pure_rules_touch_nothing() -> None:
    assert impure(source()) == []


def test_http_capabilities_never_import_jobs() -> None:
    assert into_jobs(source()) == []


def test_foreign_packages_come_in_at_their_doors() -> None:
    assert past_doors(source()) == []


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("hasten", {"sqlite3", "msgspec", "hasten.jobs"}),
        ("hasten.jobs", {"redis", "typer", "rich", "pydantic"}),
        *[
            (f"hasten.{name}", {"sqlite3", "redis", "sqlalchemy", "hasten.jobs"})
            for name in WITHOUT_JOBS
            if (SRC / "hasten" / name).exists()
        ],
    ],
)
def test_nobody_pays_for_what_they_do_not_use(module: str, unwanted: set[str]) -> None:
    """In a new interpreter, importing a capability loads no other capability."""
    program = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout.split()
    assert module in loaded
    assert unwanted.intersection(loaded) == set()


def test_errors_load_nothing_but_the_standard_library() -> None:
    """Everything imports them. Modules that they import do not import hasten."""
    program = "import sys, hasten.errors; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout.split()
    ours = {name for name in loaded if name.startswith("hasten")}
    assert ours == {
        "hasten",
        "hasten.errors",
        "hasten._escapes",
        "hasten._decision",  # what a `LimitExceeded` carries
        "hasten._request_info",
        "hasten._asgi",
    }


class TestTheseRulesCanFail:
    """The rules fail on small trees that break them."""

    def test_no_floor(self, tmp_path: Path) -> None:
        tree = plant(tmp_path, {"hasten.attic": ""})
        assert [name for name in tree if floor(name) is None] == ["hasten.attic"]

    @pytest.mark.parametrize(
        "statement",
        [
            "from hasten.jobs._queue import Queue",
            "from hasten.jobs import _queue as queue",
            "from ._queue import Queue",
            "import hasten.jobs._queue",
            "def later():\n    from hasten.jobs._queue import Queue",
            "if TYPE_CHECKING:\n    from hasten.jobs._queue import Queue",
        ],
    )
    def test_upward(self, tmp_path: Path, statement: str) -> None:
        tree = plant(tmp_path, {"hasten.jobs._states": statement, "hasten.jobs._queue": ""})
        assert upward(tree) == ["hasten.jobs._states (1) imports hasten.jobs._queue (4)"]

    def test_ring(self, tmp_path: Path) -> None:
        tree = plant(
            tmp_path,
            {
                "hasten.jobs._queue": "from hasten.jobs._tasks import Task",
                "hasten.jobs._tasks": "from hasten.jobs._worker import Worker",
                "hasten.jobs._worker": "from hasten.jobs import _queue as queue",
            },
        )
        assert set(ring(tree)) == {
            "hasten.jobs._queue",
            "hasten.jobs._tasks",
            "hasten.jobs._worker",
        }

    def test_ring_of_types(self, tmp_path: Path) -> None:
        tree = plant(
            tmp_path,
            {
                "hasten.jobs._queue": "from hasten.jobs._job import Job",
                "hasten.jobs._job": "if TYPE_CHECKING:\n    from hasten.jobs._queue import Queue",
            },
        )
        assert set(ring(tree)) == {"hasten.jobs._queue", "hasten.jobs._job"}

    def test_impure(self, tmp_path: Path) -> None:
        tree = plant(tmp_path, {"hasten.jobs._states": "from os import path", "hasten._clock": ""})
        assert impure(tree) == ["hasten.jobs._states imports os"]

    def test_into_jobs(self, tmp_path: Path) -> None:
        tree = plant(
            tmp_path,
            {
                "hasten.fields._mask": "from hasten.jobs._states import State",
                "hasten.jobs._states": "",
            },
        )
        assert into_jobs(tree) == ["hasten.fields._mask imports hasten.jobs._states"]

    @pytest.mark.parametrize(
        "statement",
        ["import redis", "from redis import asyncio", "require('redis.asyncio', extra='redis')"],
    )
    def test_past_doors(self, tmp_path: Path, statement: str) -> None:
        tree = plant(tmp_path, {"hasten.jobs._queue": statement, "hasten._redis": statement})
        assert past_doors(tree) == ["hasten.jobs._queue imports redis"]


# The rules: each returns the breaches, none if all is well ----------------------------------------


def upward(tree: Tree) -> list[str]:
    return [
        f"{name} ({floor(name)}) imports {target} ({floor(target)})"
        for name, target in edges(tree)
        if (floor(target) or 0) > (floor(name) or 0)
    ]


def ring(tree: Tree) -> list[str]:
    sorter = TopologicalSorter(tree)
    try:
        sorter.prepare()
    except CycleError as error:
        path: list[str] = error.args[1]
        return path
    return []


def impure(tree: Tree) -> list[str]:
    return [
        f"{name} imports {package}"
        for name, imports in tree.items()
        if floor(name) == 1
        for package in sorted(packages(imports) & IMPURE)
    ]


def into_jobs(tree: Tree) -> list[str]:
    return [
        f"{name} imports {target}"
        for name, target in edges(tree)
        if name.split(".")[1:2] and name.split(".")[1] in WITHOUT_JOBS
        if target.startswith("hasten.jobs")
    ]


def past_doors(tree: Tree) -> list[str]:
    return [
        f"{name} imports {package}"
        for name, imports in tree.items()
        for package in sorted(packages(imports))
        if package in DOORS or package not in {"hasten", *sys.stdlib_module_names}
        if not any(fnmatchcase(name, door) for door in DOORS.get(package, ()))
    ]


# Reading ------------------------------------------------------------------------------------------


def floor(module: str) -> int | None:
    """Return the floor of the longest pattern that fits, or None."""
    fitting = [pattern for pattern in FLOORS if fnmatchcase(module, pattern)]
    return FLOORS[max(fitting, key=len)] if fitting else None


def edges(tree: Tree) -> Iterator[tuple[str, str]]:
    """Return the imports between modules of the tree."""
    for name, imports in tree.items():
        for target in sorted(imports & tree.keys()):
            yield name, target


def packages(imports: Imports) -> set[str]:
    return {target.partition(".")[0] for target in imports}


@functools.cache
def source() -> Tree:
    return read_tree(SRC)


def read_tree(src: Path) -> Tree:
    paths = {module_name(path, src): path for path in sorted(src.rglob("*.py"))}
    return {name: read_imports(name, path, paths.keys()) for name, path in paths.items()}


def module_name(path: Path, src: Path) -> str:
    parts = path.relative_to(src).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def read_imports(name: str, path: Path, known: Collection[str]) -> Imports:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(imported_in(tree, package, known))


def imported_in(tree: ast.Module, package: str, known: Collection[str]) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        match node:
            case ast.Import(names):
                found |= {alias.name for alias in names}
            case ast.ImportFrom(module, names, level):
                above = package.split(".")[: package.count(".") + 2 - level] if level else []
                source = ".".join([*above, *([module] if module else [])])
                for alias in names:
                    submodule = f"{source}.{alias.name}"
                    found.add(submodule if submodule in known else source)
            case ast.Call(
                func=ast.Name("require") | ast.Attribute(attr="require" | "import_module"),
                args=[ast.Constant(str(module)), *_],
            ):
                found.add(module)
    return found


def plant(folder: Path, modules: Mapping[str, str]) -> Tree:
    """Write modules and their packages, and read them."""
    for name, text in modules.items():
        path = folder.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return read_tree(folder)
