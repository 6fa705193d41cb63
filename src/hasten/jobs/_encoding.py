"""Encoding values as JSON without loss: values that JSON would change silently are rejected.

msgspec writes NaN and infinity as null, and the keys 1 and "1" of one dict as the same name twice.
The encoded text shows cheaply whether that is possible; only then the value is examined.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, Final

import msgspec

UNDECODABLE: Final = (ValueError, RecursionError, MemoryError)
"""The errors of decoding a text that another program has stored."""


def decode_json(text: str) -> Any:
    """Decode JSON that any program may have stored. Raises `ValueError` and nothing else."""
    try:
        return _decode(text)
    except UNDECODABLE as exc:
        raise ValueError(why_undecodable(exc)) from exc


def why_undecodable(error: Exception) -> str:
    """Describe an error of decoding."""
    match error:
        case RecursionError():
            return "it is nested too deeply"
        case MemoryError():
            return "decoding it takes more memory than available"
    return str(error)


class NotStorable(ValueError):
    """JSON would change part of a value. path is its place, such as `.lines[2].price`."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path.removeprefix('.') or 'the value'} {reason}")
        self.path = path
        self.reason = reason


def encode_json(value: object) -> bytes:
    """Encode as JSON. Raises `ValueError` or `TypeError` for values that JSON would change."""
    data = encode(value)
    if data.find(b"{") >= 0 and not is_plain(value):
        refuse_lost_keys(value, data)
    if data.find(b"null") >= 0:  # twice as fast as "in"
        refuse_non_finite(value)
    return data


SCALARS: Final = frozenset({type(None), bool, int, float, str})


def is_plain(value: Any) -> bool:
    """Return whether a value has JSON's own types only, so that decoding returns an equal value."""
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
    for member in members:  # noqa: SIM110  # hot path: a generator is slower
        if type(member) not in SCALARS and not is_plain(member):
            return False
    return True


def refuse_non_finite(value: object) -> None:
    """Raise `NotStorable` for NaN and infinity, which msgspec encodes as null."""
    # Records of all kinds become plain dicts, lists and numbers.
    _refuse_non_finite(msgspec.to_builtins(value, enc_hook=_to_plain), "")


def refuse_lost_keys(value: object, data: bytes) -> None:
    """Raise `NotStorable` if two keys of a dict have the same name in data, the JSON of value."""
    if b'nan":' in data or b'inf":' in data:
        refuse_non_finite(value)
    # Decoding drops one of two equal names, and the encoded text gets shorter.
    if encode(_decode(data)) != data:
        _refuse_repeated(json.loads(data, object_pairs_hook=_Members), "")


def member_path(path: str, key: object) -> str:
    """Return the path to a member of the value at path, in Python's notation."""
    if isinstance(key, str) and key.isidentifier():
        return f"{path}.{key}"
    return f"{path}[{key!r}]"


def _refuse_non_finite(plain: object, path: str) -> None:
    match plain:
        case float():
            if not math.isfinite(plain):
                raise NotStorable(path, f"is {plain}, which JSON cannot store")
        case dict():
            for key, member in plain.items():
                if isinstance(key, float) and not math.isfinite(key):
                    raise NotStorable(path, f"has the key {key}, which JSON cannot store")
                _refuse_non_finite(member, member_path(path, key))
        case list() | tuple() | set() | frozenset():
            for index, member in enumerate(plain):
                _refuse_non_finite(member, member_path(path, index))


class _Members(list[tuple[str, Any]]):
    """The members of a JSON object, including those with repeated names."""


def _refuse_repeated(plain: object, path: str) -> None:
    for name, member in _members(plain, path):
        _refuse_repeated(member, member_path(path, name))


def _members(plain: object, path: str) -> Iterator[tuple[object, object]]:
    if isinstance(plain, _Members):
        names: set[str] = set()
        for name, member in plain:
            if name in names:
                raise NotStorable(path, f"has two keys that are both {name!r} in JSON")
            names.add(name)
            yield name, member
    elif isinstance(plain, list):
        yield from enumerate(plain)


def _to_json(value: Any) -> Any:
    if hasattr(type(value), "__pydantic_validator__"):
        text = value.model_dump_json()
        # With ser_json_inf_nan="constants" this is not JSON; the plain form has the numbers.
        if "NaN" in text or "Infinity" in text:
            return value.model_dump(mode="json")
        return msgspec.Raw(text)
    raise TypeError(f"objects of type {type(value).__qualname__} have no JSON form")


def _to_plain(value: Any) -> Any:
    if isinstance(value, msgspec.Raw):
        return _decode(value)
    return value.model_dump(mode="json")  # a pydantic model: others cannot be encoded


encode: Final = msgspec.json.Encoder(enc_hook=_to_json).encode
"""Encode as JSON, without checking for changes."""

_decode: Final = msgspec.json.Decoder().decode
