"""Write the pages of `docs/reference/` from the code: `python docs/generate.py`.

A test compares the pages in the folder with the output of this script, so they are always current.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import importlib
import inspect
import itertools
import re
import sys
import textwrap
import typing
from collections.abc import Callable, Iterator
from functools import cache, cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple

import typer.main
from typer.testing import CliRunner

import hasten
import hasten.compression
import hasten.errors
import hasten.fastapi
import hasten.fields
import hasten.jobs
import hasten.loadshedding
import hasten.pagination
import hasten.prometheus
import hasten.ratelimit
import hasten.testing
from hasten._cli.commands import app

FOLDER: Final = Path(__file__).parent / "reference"

NOTE: Final = "<!-- Written by docs/generate.py from the docstrings: change those, then run it. -->"

# Classes whose objects hasten creates: their constructors are not shown.
NOT_MADE_BY_USERS: Final = set(
    """
    Arguments Batch Child ChildProgress Children Context CrashDifference CrashReport CurrentLimit
    EnqueuedJob Enqueuer Event Flow Job JobRecord JobRun JobTree ParentLink QueueEvents Schedule
    Schedules SyncBatch SyncChildren SyncCurrentLimit SyncEnqueuer SyncFlow SyncJob SyncJobsTester
    SyncQueue SyncSchedules Task
    """.split()
)

# Methods without an underscore that only hasten itself calls. They are not shown.
FOR_HASTEN_ITSELF: Final = set(
    """
    Capped.count Count.with_page Context.close Context.stop Keep.keeps_nothing Keep.age_ms
    Context.used_children Queue.decode_result Queue.drop_pending_calls Queue.engine
    Queue.prepare_template Queue.queue_named Queue.results Queue.shares_store_with Queue.submit
    Queue.submit_many Queue.template Queue.use_store Queue.watches Schedules.check_declared
    Schedules.declare Schedules.make_declared Store.close_without_event_loop
    Worker.start_counting_runs Worker.state Worker.totals
    Limit.identifying_options Limit.is_counted Limit.make_checks Limit.make_policy
    Limit.parse_returned_rate Limits.clock Limits.counter_store MemoryStore.hit_one
    MemoryStore.hit_now MemoryStore.settle_now MemoryStore.peek_now MemoryStore.reset_now
    MemoryStore.block_now MemoryStore.use_default_clock Limiter.use_default_clock
    RateLimitStats.get_or_add_limit
    """.split()
)


PACKAGES: Final = {
    "hasten.md": hasten,
    "jobs.md": hasten.jobs,
    "compression.md": hasten.compression,
    "pagination.md": hasten.pagination,
    "fields.md": hasten.fields,
    "ratelimit.md": hasten.ratelimit,
    "loadshedding.md": hasten.loadshedding,
    "fastapi.md": hasten.fastapi,
    "prometheus.md": hasten.prometheus,
    "testing.md": hasten.testing,
}
"""The packages by the file name of the page that describes their exports."""

MAX_LINE: Final = 96


def pages() -> dict[str, str]:
    """Return the text of each page by its file name."""
    return {
        **{
            name: _page(module.__name__, _module_sections(module))
            for name, module in PACKAGES.items()
        },
        "errors.md": _page("hasten.errors", _error_sections()),
        "cli.md": _page("hasten, the command", _command_sections()),
    }


def _page(title: str, parts: Iterator[str]) -> str:
    return "\n\n".join([f"# {title}", NOTE, *filter(None, parts)]) + "\n"


def _module_sections(module: ModuleType) -> Iterator[str]:
    yield _prose(inspect.getdoc(module) or "")
    names = [name for name in sorted(module.__all__) if not name.startswith("__")]
    elsewhere = {name: page for name in names if (page := _other_page(module, name))}
    if elsewhere:
        yield "Also exported here: " + ", ".join(
            f"[`{name}`]({page}#{name.lower()})" for name, page in elsewhere.items()
        )
    for name in names:
        if name in elsewhere:
            continue
        value = getattr(module, name)
        if inspect.isclass(value):
            yield from _class_section(name, value)
        elif inspect.isfunction(value):
            yield f"## {name}"
            yield _code_block(_signatures(name, value))
            yield _prose(inspect.getdoc(value) or "")
        else:
            yield from _assignment_section(module, name)


def _other_page(module: ModuleType, name: str) -> str | None:
    """Return the page of the other package that a name was imported from, None if there is none."""
    home = getattr(getattr(module, name), "__module__", None) or ""
    for page, other in PACKAGES.items():
        is_home = home == other.__name__ or home.startswith(f"{other.__name__}.")
        if is_home and other not in {module, hasten} and name in other.__all__:
            return page
    return None


def _assignment_section(module: ModuleType, name: str) -> Iterator[str]:
    """Generate the section of a type alias or constant: its source, and the docstring below it."""
    found = _assignment(module.__name__, name)
    yield f"## {name}"
    yield _code_block(found.text)
    yield _prose(found.docstring)


class _Assignment(NamedTuple):
    text: str
    docstring: str


def _assignment(module: str, name: str) -> _Assignment:
    """Return the assignment to a name in a module, or in the module it was imported from."""
    source, tree = _parsed(module)
    # Including the bodies of `if TYPE_CHECKING:`.
    body = [
        inner for node in tree.body for inner in (node.body if isinstance(node, ast.If) else [node])
    ]
    for node, text in itertools.zip_longest(body, body[1:]):
        match node:
            case ast.ImportFrom(str() as origin, names) if any(n.name == name for n in names):
                return _assignment(origin, name)
            case ast.Assign([ast.Name(target)], value) if target == name:
                annotation = ""
            case ast.AnnAssign(ast.Name(target), kind, value) if target == name:
                written = _source_of(source, kind)
                annotation = "" if written in {"Final", "TypeAlias"} else f": {written}"
            case _:
                continue
        assert value is not None
        words = ""
        match text:
            case ast.Expr(ast.Constant(str() as below)):
                words = inspect.cleandoc(below)
        return _Assignment(f"{name}{annotation} = {_lines_of(source, value)}", words)
    raise LookupError(f"{module}.{name} has no assignment")


def _lines_of(source: str, value: ast.expr) -> str:
    """Return the source of an expression, with its line breaks and comments."""
    first, *rest = (ast.get_source_segment(source, value) or "").splitlines()
    return "\n".join([first, textwrap.dedent("\n".join(rest))] if rest else [first])


@cache
def _parsed(module: str) -> tuple[str, ast.Module]:
    source = inspect.getsource(importlib.import_module(module))
    return source, ast.parse(source)


def _class_section(name: str, kind: type) -> Iterator[str]:
    yield f"## {name}"
    if issubclass(kind, enum.Enum):
        yield _prose(inspect.cleandoc(vars(kind).get("__doc__") or ""))
        yield "\n".join(_enum_members(kind))
        return
    yield _code_block(_constructor(name, kind))
    yield _prose(_docstring_of(kind))
    members = list(_members(kind))
    facts = [
        *_attributes(kind),
        *(_property_line(name, v) for name, v in members if _is_property(v)),
    ]
    if facts:
        yield "\n".join(facts)
    for member, value in members:
        if not _is_property(value):
            yield f"### {name}.{member}"
            yield _code_block(_method(member, value))
            yield _prose(inspect.getdoc(value) or "")


def _docstring_of(kind: type) -> str:
    """Return the docstring of a class, or of its nearest ancestor in hasten that has one."""
    ours = (ancestor for ancestor in kind.__mro__ if ancestor.__module__.startswith("hasten"))
    return inspect.cleandoc(next(filter(None, (each.__doc__ for each in ours)), ""))


def _enum_members(kind: type) -> Iterator[str]:
    """Generate a line for each member of an enum, with the comment behind it."""
    for line in inspect.getsource(kind).splitlines():
        if found := re.match(r"    ([A-Z_]+) = \"(.+)\"  # (.+)", line):
            yield f"- `{kind.__name__}.{found[1]}`, {found[2]}: {found[3]}"


def _attributes(kind: type) -> Iterator[str]:
    """Generate a line for each field of a record, and for each documented attribute."""
    for name in getattr(kind, "__struct_fields__", ()):
        yield f"- `{name}: {kind.__annotations__[name]}`"
    if typing.is_typeddict(kind):
        for name, annotation in kind.__annotations__.items():
            yield f"- `{name}: {getattr(annotation, '__forward_arg__', annotation)}`"
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
    """Generate a line for each field of a dataclass, with the docstring below it."""
    for node, text in itertools.zip_longest(definition.body, definition.body[1:]):
        match node:
            case ast.AnnAssign(ast.Name(name), annotation) if not name.startswith("_"):
                words = ""
                if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                    words = f": {inspect.cleandoc(str(text.value.value))}"
                yield f"- `{name}: {ast.unparse(annotation)}`{words}"


def _members(kind: type) -> Iterator[tuple[str, Any]]:
    """Generate the shown methods and properties of a class and its ancestors in hasten."""
    seen: set[str] = set()
    for ancestor in kind.__mro__:
        if not ancestor.__module__.startswith("hasten"):
            continue
        for name, value in vars(ancestor).items():
            is_method = inspect.isfunction(value) or isinstance(value, classmethod | staticmethod)
            hidden = name.startswith("_") or f"{kind.__name__}.{name}" in FOR_HASTEN_ITSELF
            if (is_method or _is_property(value)) and not hidden and name not in seen:
                seen.add(name)
                yield name, value


def _is_property(value: Any) -> bool:
    return isinstance(value, property | cached_property)


def _property_line(name: str, value: property | cached_property[Any]) -> str:
    getter = value.fget if isinstance(value, property) else value.func
    assert getter is not None
    annotation = inspect.signature(getter).return_annotation
    words = " ".join((inspect.getdoc(value) or "").split())
    return f"- `{name}: {annotation}`{': ' if words else ''}{words}"


# Signatures are shown as in the source: names of constants are clearer than their values ---------


def _constructor(name: str, kind: type) -> str:
    ours = [each for each in kind.__mro__ if each.__module__.startswith("hasten")]
    maker = next((each for each in ours if "__init__" in vars(each)), None)
    is_protocol = getattr(kind, "_is_protocol", False)
    if kind.__name__ in NOT_MADE_BY_USERS or is_protocol or maker is None:
        return f"class {name}"
    make = vars(maker)["__init__"]
    if make.__code__.co_filename == "<string>":  # the generated __init__ of a dataclass
        return _wrapped(f"class {name}", _fields_as_parameters(maker), "")
    return _signature(f"class {name}", make, skip=1, returns=False)


def _fields_as_parameters(kind: type) -> list[str]:
    source = textwrap.dedent(inspect.getsource(kind))
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)
    written = {
        node.target.id: node
        for node in definition.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    parameters = []
    for name, parameter in inspect.signature(kind).parameters.items():
        text = f"{name}: {_annotation(parameter)}"
        if parameter.default is not parameter.empty:
            node = written[name].value if name in written else None
            text += f" = {_field_default(source, node, parameter.default)}"
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in parameters:
            parameters.append("*")
        parameters.append(text)
    return parameters


def _field_default(source: str, node: ast.expr | None, value: object) -> str:
    match node:
        case ast.Call(ast.Name("field"), keywords=[ast.keyword("default_factory", made), *_]):
            written = _source_of(source, made)
            return {"dict": "{}", "list": "[]"}.get(written, f"{written}()")
        case ast.Call(ast.Name("field")) | None:
            return _format_value(value)
    return _default(source, node, value)


def _method(name: str, value: Any) -> str:
    if isinstance(value, staticmethod):
        return "@staticmethod\n" + _signatures(name, value.__func__)
    if isinstance(value, classmethod):
        return "@classmethod\n" + _signatures(name, value.__func__, skip=1)
    return _signatures(name, value, skip=1)


def _signatures(name: str, function: Callable[..., Any], *, skip: int = 0) -> str:
    """Return the signature of a function, or the signatures of its overloads if it has any."""
    several = typing.get_overloads(function) or [function]
    return "\n".join(_signature(f"def {name}", each, skip=skip) for each in several)


def _signature(head: str, function: Callable[..., Any], *, skip: int, returns: bool = True) -> str:
    inner = inspect.unwrap(function)
    source = textwrap.dedent(inspect.getsource(inner))
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.FunctionDef | ast.AsyncFunctionDef)
    arguments = definition.args
    signature = inspect.signature(inner)
    parameters: list[str] = []
    for position, (name, parameter) in enumerate(signature.parameters.items()):
        if position < skip:
            continue
        is_keyword = parameter.kind is parameter.KEYWORD_ONLY and arguments.vararg is None
        if is_keyword and "*" not in parameters:
            parameters.append("*")
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        node, default = _parameter(arguments, name)
        text = stars + name
        if node.annotation is not None:
            text += f": {_source_of(source, node.annotation)}"
        if default is not None:
            text += f" = {_default(source, default, parameter.default)}"
        parameters.append(text)
        if parameter.kind is parameter.POSITIONAL_ONLY and node is arguments.posonlyargs[-1]:
            parameters.append("/")
    result = _source_of(source, definition.returns) if returns and definition.returns else ""
    # Show a function that returns an awaitable as async: callers use both in the same way.
    awaited = re.fullmatch(r"Awaitable\[(.*)\]", result)
    if awaited or isinstance(definition, ast.AsyncFunctionDef):
        head = f"async {head}"
    arrow = f" -> {awaited[1] if awaited else result}" if result else ""
    decorator = "@contextmanager\n" if inner is not function else ""
    return decorator + _wrapped(head, parameters, arrow)


def _parameter(arguments: ast.arguments, name: str) -> tuple[ast.arg, ast.expr | None]:
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults))
    for node, default in zip(positional, [*defaults, *arguments.defaults], strict=True):
        if node.arg == name:
            return node, default
    for node, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        if node.arg == name:
            return node, default
    rest = arguments.vararg if arguments.vararg and arguments.vararg.arg == name else None
    rest = rest or arguments.kwarg
    assert rest is not None
    return rest, None


def _wrapped(head: str, parameters: list[str], arrow: str) -> str:
    if not parameters and head.startswith("class "):
        return f"{head}()"
    line = f"{head}({', '.join(parameters)}){arrow}"
    if len(line) <= MAX_LINE:
        return line
    return "\n".join([f"{head}(", *(f"    {parameter}," for parameter in parameters), f"){arrow}"])


def _annotation(parameter: inspect.Parameter) -> str:
    annotation = parameter.annotation
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _default(source: str, node: ast.expr, value: object) -> str:
    """Return a default as in the source, but the value of a constant that is not exported."""
    written = _source_of(source, node)
    if isinstance(node, ast.Name) and not any(written in m.__all__ for m in PACKAGES.values()):
        return _format_value(value)
    return written


def _format_value(value: object) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        return f"({', '.join(map(_format_value, value))})"
    text = re.sub(r"\bdatetime\.(?=[a-z])", "", repr(value)).replace("'", '"')
    return "…" if "<" in text else text


def _source_of(source: str, node: ast.expr) -> str:
    """Return the source of an expression in one line."""
    text = re.sub(r"\s*\n\s*", " ", ast.get_source_segment(source, node) or "")
    text = re.sub(r"([\[(]) ", r"\1", text)
    return re.sub(r",? ([\])])", r"\1", text)


def _error_sections() -> Iterator[str]:
    first, tree, last = (inspect.getdoc(hasten.errors) or "").split("\n\n", 2)
    yield _prose(first)
    yield _code_block(tree, "text")
    yield _prose(last)
    for name, kind in vars(hasten.errors).items():
        if inspect.isclass(kind) and issubclass(kind, (hasten.errors.HastenError, Warning)):
            yield f"## {name}"
            yield _code_block(
                f"class {name}({', '.join(base.__name__ for base in kind.__bases__)})"
            )
            yield _prose(inspect.getdoc(kind) or "")


def _command_sections() -> Iterator[str]:
    command: Any = typer.main.get_command(app)
    yield from _help_sections(command, [])


def _help_sections(command: Any, path: list[str]) -> Iterator[str]:
    shown = CliRunner().invoke(app, [*path, "--help"], prog_name="hasten", terminal_width=96)
    yield f"## {' '.join(['hasten', *path])}"
    yield _code_block(
        "\n".join(line.rstrip() for line in shown.output.strip().splitlines()), "text"
    )
    for name, member in getattr(command, "commands", {}).items():
        yield from _help_sections(member, [*path, name])


def _code_block(text: str, language: str = "python") -> str:
    return f"```{language}\n{text}\n```"


def _prose(docstring: str) -> str:
    """Return a docstring as Markdown, with indented examples as code blocks."""
    parts: list[str] = []
    paragraphs = docstring.split("\n\n")
    for is_example, group in itertools.groupby(paragraphs, lambda text: text.startswith("    ")):
        text = "\n\n".join(group)
        parts.append(_code_block(textwrap.dedent(text)) if is_example else text)
    return "\n\n".join(parts)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        sys.stdout.write(f"{FOLDER / name}\n")


if __name__ == "__main__":
    main()
