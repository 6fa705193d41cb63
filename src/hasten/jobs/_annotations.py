"""Check annotations: whether JSON can be decoded to them, and which values they leave untyped.

An untyped value (no annotation, `Any`, an item of a bare `list`) arrives in its JSON form: a
datetime as a string, a tuple as a list. So only values that arrive unchanged are accepted there.
"""

from __future__ import annotations

import builtins
import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from msgspec import inspect as types

from hasten.jobs._encoding import encode_json, is_plain, member_path


@dataclass(frozen=True, slots=True)
class Annotation:
    """The result of examining an annotation.

    problem is why JSON cannot be decoded to the annotation, None if it can. open is msgspec's
    description of the annotation if it leaves some value untyped, else None.
    """

    problem: str | None = None
    open: types.Type | None = None


def examine(annotation: Any) -> Annotation:
    """Examine an annotation. Raises `NameError` if a type inside is not defined."""
    try:
        hash(annotation)
    except TypeError:  # Annotated[int, []]
        return _examine(annotation)
    return _examine_once(annotation)


def _examine(annotation: Any) -> Annotation:
    try:
        msgspec.json.Decoder(annotation)
    except (TypeError, ValueError) as exc:
        return Annotation(problem=str(exc))
    try:
        described = types.type_info(annotation)
    except TypeError:  # msgspec decodes some types that it cannot describe
        return Annotation()
    for part in _parts(described, set(), optional=False):
        if problem := _problem(part):
            return Annotation(problem)
    is_open = any(_is_open(part) for part in _parts(described, set(), optional=True))
    return Annotation(open=described if is_open else None)


# Most annotations of a program are the same few.
_examine_once: Final = functools.lru_cache(maxsize=1024)(_examine)


def _parts(described: types.Type, seen: set[int], *, optional: bool) -> Iterator[types.Type]:
    """Yield a type and all types inside it. optional is whether to include fields with defaults."""
    if id(described) in seen:  # a record may contain itself
        return
    seen.add(id(described))
    yield described
    for part in _direct_parts(described, optional=optional):
        yield from _parts(part, seen, optional=optional)


def _direct_parts(described: types.Type, *, optional: bool) -> Iterable[types.Type]:
    match described:
        case types.Metadata(type=inner) | types.CollectionType(item_type=inner):
            return (inner,)
        case types.TupleType(item_types=parts) | types.UnionType(types=parts):
            return parts
        case types.DictType(key_type=key, value_type=value):
            return (key, value)
    return (field.type for field in _fields(described) if field.required or optional)


def _fields(described: types.Type) -> tuple[types.Field, ...]:
    fields: tuple[types.Field, ...] = getattr(described, "fields", ())
    return fields


_NO_KEYS: Final = (
    types.BoolType,
    types.NoneType,
    types.CollectionType,
    types.TupleType,
    types.DictType,
    types.StructType,
    types.DataclassType,
    types.NamedTupleType,
    types.TypedDictType,
)


def _problem(part: types.Type) -> str | None:
    match part:
        case types.CustomType(cls=cls) if cls is not object and not is_pydantic(cls):
            return f"{type_name(cls)} has no JSON form"
        case types.DictType(key_type=key) if isinstance(key, _NO_KEYS):
            return "the keys of a JSON object can only be strings, numbers, dates and the like"
    return None


def is_pydantic(cls: Any) -> bool:
    """Return whether a class is a pydantic model. Never imports pydantic."""
    return hasattr(cls, "__pydantic_validator__")


def _is_open(described: types.Type) -> bool:
    match described:
        case types.AnyType() | types.CustomType(cls=builtins.object):
            return True
        case types.UnionType(types=members):
            return any(map(_is_open, members))
    return False


# Values -------------------------------------------------------------------------------------------


def find_change(described: types.Type, value: object, path: str) -> tuple[str, str] | None:
    """Find a value that would arrive as another type because the annotation leaves it untyped.

    Returns its path and the problem.
    """
    if _is_open(described):
        return _find_foreign(value, path)
    if isinstance(described, types.DictType) and _is_open(described.key_type):
        change = _find_foreign_key(value, path) if isinstance(value, dict) else None
        if change:
            return change
    for part, member, where in _members(described, value, path):
        if change := find_change(part, member, where):
            return change
    return None


def _members(
    described: types.Type, value: Any, path: str
) -> Iterator[tuple[types.Type, object, str]]:
    """Yield the values inside a value of this type, with their types and paths."""
    match described:
        case types.Metadata(type=inner):
            yield inner, value, path
        case types.UnionType(types=members):
            for member in members:
                yield member, value, path
        case types.CollectionType(item_type=item):
            if isinstance(value, list | tuple | set | frozenset):
                for index, each in enumerate(value):
                    yield item, each, member_path(path, index)
        case types.TupleType(item_types=items):
            if isinstance(value, list | tuple):
                for index, (item, each) in enumerate(zip(items, value, strict=False)):
                    yield item, each, member_path(path, index)
        case types.DictType(value_type=item):
            if isinstance(value, dict):
                for key, each in value.items():
                    yield item, each, member_path(path, key)
        case _:
            yield from _members_of_record(described, value, path)


def _members_of_record(
    described: Any, value: object, path: str
) -> Iterator[tuple[types.Type, object, str]]:
    for field in _fields(described):
        if isinstance(value, dict):  # a TypedDict, or a dict that decodes to the record
            if field.encode_name in value:
                yield field.type, value[field.encode_name], member_path(path, field.encode_name)
        elif isinstance(value, getattr(described.cls, "__origin__", described.cls)):
            yield field.type, getattr(value, field.name, None), member_path(path, field.name)


def _find_foreign(value: Any, path: str) -> tuple[str, str] | None:
    """Find a value without a JSON type. This includes `IntEnum`: it arrives as an int."""
    if is_plain(value):
        return None
    kind = type(value)
    if kind is list:
        members: Iterable[tuple[object, Any]] = enumerate(value)
    elif kind is dict:
        if change := _find_foreign_key(value, path):
            return change
        members = value.items()
    else:
        return path, f"is of type {type_name(kind)}, which would arrive as {_arrives_as(value)}"
    found = (_find_foreign(member, member_path(path, key)) for key, member in members)
    return next(filter(None, found), None)


def _find_foreign_key(value: dict[Any, Any], path: str) -> tuple[str, str] | None:
    for key in value:
        if type(key) is not str:
            return path, f"has a key of type {type_name(type(key))}, which would arrive as str"
    return None


def _arrives_as(value: object) -> str:
    return type(msgspec.json.decode(encode_json(value))).__name__


def type_name(cls: type) -> str:
    """Return the name of a class, with its module unless it is a builtin."""
    module = "" if cls.__module__ == "builtins" else f"{cls.__module__}."
    return f"{module}{cls.__qualname__}"
