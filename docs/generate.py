"""Write the pages of `docs/reference/` from the code: `python docs/generate.py`.

A test compares what this makes with what is in the folder, so the pages cannot go stale.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import inspect
import itertools
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import typer.main
from typer.testing import CliRunner

import hasten.compression
import hasten.compression.head
import hasten.errors
import hasten.fastapi
import hasten.fields
import hasten.jobs
import hasten.pagination
import hasten.ratelimit
import hasten.testing
from hasten.cli.commands import app
from hasten.jobs import Arguments, Context, Event, Job, QueueEvents, Task

FOLDER: Final = Path(__file__).parent / "reference"

NOTE: Final = "<!-- Written by docs/generate.py from the docstrings: change those, then run it. -->"

NOT_MADE_BY_USERS: Final = {Arguments, Context, Event, Job, QueueEvents, Task}

# Public to the rest of the package, of no use to its users.
FOR_HASTEN_ITSELF: Final = set(
    "Capped.count Count.with_page Context.close Context.stop Keep.nothing Keep.age_ms "
    "Queue.decode_result Queue.engine Queue.template Queue.submit Queue.submit_many "
    "Queue.results DecompressionMiddleware.check DecompressionMiddleware.max_coded_bytes "
    "Dictionaries.announcement Dictionaries.owner Dictionaries.difference Dictionaries.path_of "
    "Guard.is_foreign Padding.pad Variants.find Variants.make".split()
)


def pages() -> dict[str, str]:
    """The text of each page by its file name."""
    return {
        "jobs.md": _page("hasten.jobs", _module(hasten.jobs, hasten.jobs.__all__)),
        "compression.md": _page("hasten.compression", _compression()),
        "pagination.md": _page(
            "hasten.pagination", _module(hasten.pagination, hasten.pagination.__all__)
        ),
        "fields.md": _page("hasten.fields", _module(hasten.fields, hasten.fields.__all__)),
        "fastapi.md": _page("hasten.fastapi", _fastapi()),
        "ratelimit.md": _page(
            "hasten.ratelimit", _module(hasten.ratelimit, hasten.ratelimit.__all__)
        ),
        "errors.md": _page("hasten.errors", _errors()),
        "testing.md": _page("hasten.testing", _module(hasten.testing, hasten.testing.__all__)),
        "cli.md": _page("hasten, the command", _commands()),
    }


def _page(title: str, parts: Iterator[str]) -> str:
    return "\n\n".join([f"# {title}", NOTE, *filter(None, parts)]) + "\n"


def _compression() -> Iterator[str]:
    yield from _module(hasten.compression, hasten.compression.__all__)
    yield "## Reason"
    yield "Why an answer was not coded, in `Skipped.reason`:"
    source = inspect.getsource(hasten.compression.head)
    values = source.partition("Reason = Literal[")[2].partition("]")[0]
    yield "\n".join(
        f"- `{found[1]}`{': ' if found[2] else ''}{found[2] or ''}"
        for found in re.finditer(r'"([a-z-]+)",(?:  # (.+))?', values)
    )


def _fastapi() -> Iterator[str]:
    """What is there beside the classes of the same names that know no framework."""
    module = hasten.fastapi
    yield _prose(inspect.getdoc(module) or "")
    for name in ("Fields", "Paginate", "RateLimited"):
        kind = getattr(module, name)
        yield f"## {name}"
        yield _prose(inspect.getdoc(kind) or "")
        for member, value in vars(kind).items():
            if isinstance(value, property | cached_property) and not member.startswith("_"):
                words = " ".join((inspect.getdoc(value) or "").split())
                yield f"- `{member}`: {words}"
    yield "## document_rate_limits"
    yield _prose(inspect.getdoc(module.document_rate_limits) or "")


def _module(module: ModuleType, names: list[str]) -> Iterator[str]:
    yield _prose(inspect.getdoc(module) or "")
    for name in sorted(names):
        value = getattr(module, name)
        if inspect.isclass(value):
            yield from _class(name, value)
        elif inspect.isfunction(value):
            yield f"## {name}"
            yield _code(f"def {name}{_clean(inspect.signature(value))}")
            yield _prose(inspect.getdoc(value) or "")


def _class(name: str, kind: type) -> Iterator[str]:
    yield f"## {name}"
    if issubclass(kind, enum.Enum):
        yield "\n".join(_choices(kind))
        return
    yield _code(f"class {name}{_constructor(kind)}")
    yield _prose(inspect.getdoc(kind) or "")
    members = list(_members(kind))
    facts = [*_attributes(kind), *(_fact(name, v) for name, v in members if _is_fact(v))]
    if facts:
        yield "\n".join(facts)
    for member, value in members:
        if not _is_fact(value):
            yield f"### {name}.{member}"
            yield _code(_signature(member, value))
            yield _prose(inspect.getdoc(value) or "")


def _choices(kind: type) -> Iterator[str]:
    """The members of an enum, with the comments behind them."""
    for line in inspect.getsource(kind).splitlines():
        if found := re.match(r"    ([A-Z_]+) = \"(.+)\"  # (.+)", line):
            yield f"- `{kind.__name__}.{found[1]}`, {found[2]}: {found[3]}"


def _constructor(kind: type) -> str:
    is_protocol = getattr(kind, "_is_protocol", False)
    if kind in NOT_MADE_BY_USERS or is_protocol or "__init__" not in vars(kind):
        return ""
    return _clean(inspect.signature(kind)).removesuffix(" -> None")


def _attributes(kind: type) -> Iterator[str]:
    """The fields of a record, and what `__init__` sets and describes by a text below it."""
    for name in getattr(kind, "__struct_fields__", ()):
        yield f"- `{name}: {kind.__annotations__[name]}`"
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)
    if dataclasses.is_dataclass(kind):
        yield from _fields(definition)
    for node in ast.walk(definition):
        if not isinstance(node, ast.FunctionDef):
            continue
        for target, text in itertools.pairwise(node.body):
            match target, text:
                case (
                    ast.Assign([ast.Attribute(ast.Name("self"), name)]),
                    ast.Expr(ast.Constant(str() as words)),
                ):
                    yield f"- `{name}`: {inspect.cleandoc(words)}"


def _fields(definition: ast.ClassDef) -> Iterator[str]:
    """The fields of a dataclass, with the texts below them."""
    for node, text in itertools.zip_longest(definition.body, definition.body[1:]):
        match node:
            case ast.AnnAssign(ast.Name(name), annotation) if not name.startswith("_"):
                words = ""
                if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                    words = f": {inspect.cleandoc(str(text.value.value))}"
                yield f"- `{name}: {ast.unparse(annotation)}`{words}"


def _members(kind: type) -> Iterator[tuple[str, Any]]:
    """The methods and properties of a class and its ancestors of ours, in their order."""
    seen: set[str] = set()
    for ancestor in kind.__mro__:
        if not ancestor.__module__.startswith("hasten"):
            continue
        for name, value in vars(ancestor).items():
            documented = isinstance(value, property) or inspect.isfunction(value)
            hidden = name.startswith("_") or f"{kind.__name__}.{name}" in FOR_HASTEN_ITSELF
            if documented and not hidden and name not in seen:
                seen.add(name)
                yield name, value


def _is_fact(value: Any) -> bool:
    return isinstance(value, property)


def _fact(name: str, value: property) -> str:
    assert value.fget is not None
    annotation = inspect.signature(value.fget).return_annotation
    words = " ".join((inspect.getdoc(value) or "").split())
    return f"- `{name}: {annotation}`{': ' if words else ''}{words}"


def _signature(name: str, value: Callable[..., Any]) -> str:
    signature = inspect.signature(value)
    without_self = signature.replace(parameters=list(signature.parameters.values())[1:])
    waits = str(signature.return_annotation).startswith("Awaitable")
    asynchronous = inspect.iscoroutinefunction(value) or inspect.isasyncgenfunction(value)
    text = _clean(without_self)
    if waits:  # a plain function that hands on what is to be awaited: for the caller the same
        text = re.sub(r"Awaitable\[(.*)\]$", r"\1", text)
    return f"{'async ' if asynchronous or waits else ''}def {name}{text}"


def _clean(signature: inspect.Signature) -> str:
    """A signature with its annotations as they are written, the same on every machine."""
    parameters = [
        each.replace(annotation=_AsWritten.of(each.annotation))
        for each in signature.parameters.values()
    ]
    returned = _AsWritten.of(signature.return_annotation)
    text = str(signature.replace(parameters=parameters, return_annotation=returned))
    text = re.sub(r"<[\w.]+ object at 0x[0-9a-f]+>", "…", text)
    text = re.sub(r"<(\w+\.\w+): \w+>", r"\1", text)
    return re.sub(r"\b(?:hasten|datetime|collections)(?:\.\w+)*\.(?=[A-Z])", "", text)


class _AsWritten(str):
    """An annotation that `inspect` shows without quotes."""

    __slots__ = ()

    @classmethod
    def of(cls, annotation: Any) -> Any:
        return cls(annotation) if isinstance(annotation, str) else annotation

    def __repr__(self) -> str:
        return str(self).replace("'", "")


def _errors() -> Iterator[str]:
    first, tree, last = (inspect.getdoc(hasten.errors) or "").split("\n\n", 2)
    yield _prose(first)
    yield _code(tree, "text")
    yield _prose(last)
    for name, kind in vars(hasten.errors).items():
        if inspect.isclass(kind) and issubclass(kind, hasten.errors.HastenError):
            yield f"## {name}"
            yield _prose(inspect.getdoc(kind) or "")


def _commands() -> Iterator[str]:
    command: Any = typer.main.get_command(app)
    yield from _help(command, [])


def _help(command: Any, path: list[str]) -> Iterator[str]:
    shown = CliRunner().invoke(app, [*path, "--help"], prog_name="hasten", terminal_width=96)
    yield f"## {' '.join(['hasten', *path])}"
    yield _code("\n".join(line.rstrip() for line in shown.output.strip().splitlines()), "text")
    for name, member in getattr(command, "commands", {}).items():
        yield from _help(member, [*path, name])


def _code(text: str, language: str = "python") -> str:
    return f"```{language}\n{text}\n```"


def _prose(docstring: str) -> str:
    """A docstring as Markdown: its indented examples as blocks of code."""
    parts = []
    for part in docstring.split("\n\n"):
        if part.startswith("    "):
            parts.append(_code(textwrap.dedent(part)))
        else:
            parts.append(part)
    return "\n\n".join(parts)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        sys.stdout.write(f"{FOLDER / name}\n")


if __name__ == "__main__":
    main()
