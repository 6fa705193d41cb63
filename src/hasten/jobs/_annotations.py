"""Check the annotations of a task's parameters, and find values whose type JSON would change.

JSON must be decodable to each annotation. A value without a type (no annotation, `Any`, an item of
a bare `list`) reaches the task in its JSON form: a datetime as a string, a tuple as a list. So
where the annotation gives no type, only values are accepted that JSON does not change.
"""

from __future__ import annotations

import builtins
import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import inspect as types

from hasten.jobs._encoding import append_to_path, encode_json, has_only_json_types

PathAndChange: TypeAlias = tuple[str, str]
"""The path to a value that JSON would change, such as `.lines[2]`, and how it would change."""


@dataclass(frozen=True, slots=True)
class AnnotationFindings:
    """The result of examining an annotation.

    problem is the reason why JSON cannot be decoded to the annotation, None if it can. untyped is
    msgspec's description of the annotation if the annotation leaves the type of some value open,
    None if all types are known.
    """

    problem: str | None = None
    untyped: types.Type | None = None


def examine_annotation(annotation: Any) -> AnnotationFindings:
    """Find out whether JSON can be decoded to an annotation, and whether it leaves values untyped.

    Raises `NameError` if the annotation refers to a type that is not defined.
    """
    try:
        hash(annotation)
    except TypeError:  # not hashable, such as Annotated[int, []]
        return _examine_uncached(annotation)
    return _examine_cached(annotation)


def _examine_uncached(annotation: Any) -> AnnotationFindings:
    try:
        msgspec.json.Decoder(annotation)
    except (TypeError, ValueError) as exc:
        return AnnotationFindings(problem=str(exc))
    try:
        described = types.type_info(annotation)
    except TypeError:  # msgspec decodes some types that it cannot describe
        return AnnotationFindings()
    for part in _iter_nested_types(described, set(), include_optional_fields=False):
        if problem := _why_not_decodable(part):
            return AnnotationFindings(problem)
    is_untyped = any(
        _accepts_any_value(part)
        for part in _iter_nested_types(described, set(), include_optional_fields=True)
    )
    return AnnotationFindings(untyped=described if is_untyped else None)


# The tasks of a program use only a few different annotations.
_examine_cached: Final = functools.lru_cache(maxsize=1024)(_examine_uncached)


def _iter_nested_types(
    described: types.Type, seen: set[int], *, include_optional_fields: bool
) -> Iterator[types.Type]:
    """Yield a type and all types inside it.

    include_optional_fields is whether to include those fields of a record that have a default
    value. seen has the ids of the types that were yielded already.
    """
    if id(described) in seen:  # a type may contain itself
        return
    seen.add(id(described))
    yield described
    for part in _inner_types(described, include_optional_fields=include_optional_fields):
        yield from _iter_nested_types(part, seen, include_optional_fields=include_optional_fields)


def _inner_types(described: types.Type, *, include_optional_fields: bool) -> Iterable[types.Type]:
    """Return the types directly inside a type: of its items, keys, values, members or fields."""
    match described:
        case types.Metadata(type=inner) | types.CollectionType(item_type=inner):
            return (inner,)
        case types.TupleType(item_types=parts) | types.UnionType(types=parts):
            return parts
        case types.DictType(key_type=key, value_type=value):
            return (key, value)
    return (
        field.type
        for field in _get_record_fields(described)
        if field.required or include_optional_fields
    )


def _get_record_fields(described: types.Type) -> tuple[types.Field, ...]:
    """Return the fields of a record type; an empty tuple for any other type."""
    fields: tuple[types.Field, ...] = getattr(described, "fields", ())
    return fields


_NOT_KEY_TYPES: Final = (
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


def _why_not_decodable(part: types.Type) -> str | None:
    """Return the reason why JSON cannot be decoded to a type, None if it can."""
    match part:
        case types.CustomType(cls=cls) if cls is not object and not is_pydantic_model(cls):
            return f"{qualified_type_name(cls)} has no JSON form"
        case types.DictType(key_type=key) if isinstance(key, _NOT_KEY_TYPES):
            return "keys of this type cannot be stored: use strings, numbers, dates or enums"
    return None


def is_pydantic_model(cls: Any) -> bool:
    """Return whether a class is a pydantic model. Does not import pydantic."""
    return hasattr(cls, "__pydantic_validator__")


def _accepts_any_value(described: types.Type) -> bool:
    """Return whether any value is accepted for a type: `Any`, `object` or a union with one."""
    match described:
        case types.AnyType() | types.CustomType(cls=builtins.object):
            return True
        case types.UnionType(types=members):
            return any(map(_accepts_any_value, members))
    return False


# Values -------------------------------------------------------------------------------------------


def find_type_change_by_json(
    described: types.Type, value: object, path: str
) -> PathAndChange | None:
    """Find a value that would reach the task as another type, because it has no annotation.

    described is msgspec's description of the annotation of value, path the path to value. Returns
    the path to the value that would change and a description of the change, None if there is none.
    """
    if _accepts_any_value(described):
        return _find_non_json_value(value, path)
    if isinstance(described, types.DictType) and _accepts_any_value(described.key_type):
        change = _find_non_string_key(value, path) if isinstance(value, dict) else None
        if change:
            return change
    for part, member, where in _inner_values(described, value, path):
        if change := find_type_change_by_json(part, member, where):
            return change
    return None


def _inner_values(
    described: types.Type, value: Any, path: str
) -> Iterator[tuple[types.Type, object, str]]:
    """Yield the values directly inside a value, each with its described type and its path."""
    match described:
        case types.Metadata(type=inner):
            yield inner, value, path
        case types.UnionType(types=members):
            for member in members:
                yield member, value, path
        case types.CollectionType(item_type=item):
            if isinstance(value, list | tuple | set | frozenset):
                for index, each in enumerate(value):
                    yield item, each, append_to_path(path, index)
        case types.TupleType(item_types=items):
            if isinstance(value, list | tuple):
                for index, (item, each) in enumerate(zip(items, value, strict=False)):
                    yield item, each, append_to_path(path, index)
        case types.DictType(value_type=item):
            if isinstance(value, dict):
                for key, each in value.items():
                    yield item, each, append_to_path(path, key)
        case _:
            yield from _field_values(described, value, path)


def _field_values(
    described: Any, value: object, path: str
) -> Iterator[tuple[types.Type, object, str]]:
    """Yield the values of the fields of a record, each with its described type and its path."""
    for field in _get_record_fields(described):
        if isinstance(value, dict):  # a TypedDict, or a dict that decodes to the record
            if field.encode_name in value:
                yield field.type, value[field.encode_name], append_to_path(path, field.encode_name)
        elif isinstance(value, getattr(described.cls, "__origin__", described.cls)):
            yield field.type, getattr(value, field.name, None), append_to_path(path, field.name)


def _find_non_json_value(value: Any, path: str) -> PathAndChange | None:
    """Find a value inside value that does not have exactly a type of JSON, and so would change.

    An `IntEnum` member is one, because it would arrive as an int. Returns its path and the change.
    """
    if has_only_json_types(value):
        return None
    kind = type(value)
    if kind is list:
        members: Iterable[tuple[object, Any]] = enumerate(value)
    elif kind is dict:
        if change := _find_non_string_key(value, path):
            return change
        members = value.items()
    else:
        arrives_as = _get_type_name_after_decoding(value)
        return path, f"is of type {qualified_type_name(kind)}, which would arrive as {arrives_as}"
    found = (_find_non_json_value(member, append_to_path(path, key)) for key, member in members)
    return next(filter(None, found), None)


def _find_non_string_key(value: dict[Any, Any], path: str) -> PathAndChange | None:
    """Find a key of a dict that JSON would turn into a string.

    Returns the path of the dict and a description of the change, None if all keys are strings.
    """
    for key in value:
        if type(key) is not str:
            return (
                path,
                f"has a key of type {qualified_type_name(type(key))}, which would arrive as str",
            )
    return None


def _get_type_name_after_decoding(value: object) -> str:
    """Return the name of the type that a value has after encoding and decoding."""
    return type(msgspec.json.decode(encode_json(value))).__name__


def qualified_type_name(cls: type) -> str:
    """Return the name of a class, with its module unless it is a built-in class."""
    module = "" if cls.__module__ == "builtins" else f"{cls.__module__}."
    return f"{module}{cls.__qualname__}"
