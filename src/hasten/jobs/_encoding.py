"""Encode values as JSON, and reject values that JSON would change silently.

msgspec encodes NaN and infinity as null, and writes the keys 1 and "1" of a dict as the same name.
The value is searched for these only if the encoded text shows that it may contain them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, Final

import msgspec

UNDECODABLE: Final = (ValueError, RecursionError, MemoryError)
"""The exceptions that decoding any text can raise: invalid, nested too deeply, or too large."""


def decode_json(text: str) -> Any:
    """Decode JSON that any program may have stored. Raises only `ValueError`."""
    try:
        return _decode(text)
    except UNDECODABLE as exc:
        raise ValueError(describe_decoding_error(exc)) from exc


def describe_decoding_error(error: Exception) -> str:
    """Return the reason for an error that decoding has raised: see `UNDECODABLE`."""
    match error:
        case RecursionError():
            return "it is nested too deeply"
        case MemoryError():
            return "decoding it takes more memory than available"
    return str(error)


class NotStorable(ValueError):
    """JSON would change a part of a value. path leads to that part, such as `.lines[2].price`."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path.removeprefix('.') or 'the value'} {reason}")
        self.path = path
        self.reason = reason


def encode_json(value: object) -> bytes:
    """Encode a value as JSON.

    Raises `ValueError` or `TypeError` if JSON has no form for a part of the value, or would change
    it.
    """
    data = encode(value)
    if data.find(b"{") >= 0 and not has_only_json_types(value):
        reject_colliding_keys(value, data)
    if data.find(b"null") >= 0:  # twice as fast as `in`
        reject_non_finite(value)
    return data


SCALARS: Final = frozenset({type(None), bool, int, float, str})


def has_only_json_types(value: Any) -> bool:
    """Return whether a value consists of JSON's own types, so that decoding gives an equal value.

    These are dict with string keys, list, str, int, float, bool and None, but no subclasses.
    """
    kind = type(value)
    if kind is list:
        members = value
    elif kind is dict:
        for key in value:
            if type(key) is not str:
                return False
        members = value.values()
    else:
        return kind in SCALARS
    for member in members:  # a loop, because `any` with a generator is slower
        if type(member) not in SCALARS and not has_only_json_types(member):
            return False
    return True


def reject_non_finite(value: object) -> None:
    """Raise `NotStorable` for NaN and infinity, which msgspec encodes as null."""
    # Converts dataclasses, structs and other records to dicts, lists and numbers.
    _reject_non_finite_inside(msgspec.to_builtins(value, enc_hook=_to_json_types), "")


def reject_colliding_keys(value: object, encoded: bytes) -> None:
    """Raise `NotStorable` if two keys of a dict have the same name in JSON, such as 1 and "1".

    encoded is the JSON of value.
    """
    if b'nan":' in encoded or b'inf":' in encoded:
        reject_non_finite(value)
    # Decoding keeps only one of two members with the same name, so encoding again gives other JSON.
    if encode(_decode(encoded)) != encoded:
        _reject_repeated_names(json.loads(encoded, object_pairs_hook=_ObjectMembers), "")


def append_to_path(path: str, key: object) -> str:
    """Append a key or index to a path, in Python's notation: `.name` or `[0]`."""
    if isinstance(key, str) and key.isidentifier():
        return f"{path}.{key}"
    return f"{path}[{key!r}]"


def _reject_non_finite_inside(value: object, path: str) -> None:
    """Raise `NotStorable` for NaN or infinity in a value of JSON's types."""
    match value:
        case float():
            if not math.isfinite(value):
                raise NotStorable(path, f"is {value}, which JSON cannot store")
        case dict():
            for key, member in value.items():
                if isinstance(key, float) and not math.isfinite(key):
                    raise NotStorable(path, f"has the key {key}, which JSON cannot store")
                _reject_non_finite_inside(member, append_to_path(path, key))
        case list() | tuple() | set() | frozenset():
            for index, member in enumerate(value):
                _reject_non_finite_inside(member, append_to_path(path, index))


class _ObjectMembers(list[tuple[str, Any]]):
    """The (name, value) pairs of a JSON object, including pairs with repeated names."""


def _reject_repeated_names(value: object, path: str) -> None:
    """Raise `NotStorable` if an object in decoded JSON has two members of the same name."""
    for name, member in _iter_keys_and_members(value, path):
        _reject_repeated_names(member, append_to_path(path, name))


def _iter_keys_and_members(value: object, path: str) -> Iterator[tuple[object, object]]:
    """Yield the keys and values of an object or array.

    Raises `NotStorable` with the path of the object for a repeated name.
    """
    if isinstance(value, _ObjectMembers):
        names: set[str] = set()
        for name, member in value:
            if name in names:
                raise NotStorable(path, f"has two keys that are both {name!r} in JSON")
            names.add(name)
            yield name, member
    elif isinstance(value, list):
        yield from enumerate(value)


def _encode_pydantic_model(value: Any) -> Any:
    """Encode a pydantic model. msgspec calls this for types that it does not know."""
    if hasattr(type(value), "__pydantic_validator__"):
        text = value.model_dump_json()
        # With ser_json_inf_nan="constants" this is not JSON. A dict keeps the numbers as floats, so
        # that `reject_non_finite` finds them.
        if "NaN" in text or "Infinity" in text:
            return value.model_dump(mode="json")
        return msgspec.Raw(text)
    raise TypeError(f"objects of type {type(value).__qualname__} have no JSON form")


def _to_json_types(value: Any) -> Any:
    """Convert a pydantic model or encoded JSON to dicts, lists and other types of JSON.

    msgspec calls this for types that it does not know.
    """
    if isinstance(value, msgspec.Raw):
        return _decode(value)
    return value.model_dump(mode="json")  # a pydantic model: `encode` has rejected other classes


encode: Final = msgspec.json.Encoder(enc_hook=_encode_pydantic_model).encode
"""Encode as JSON, without checking whether that changes the value."""

_decode: Final = msgspec.json.Decoder().decode
