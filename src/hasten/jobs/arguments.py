"""From a call to JSON and back: the parameters of a task.

A job's data is a JSON object of the arguments by parameter name, so that a producer in any language
can write it. Before a run it is checked against the function's annotations: by msgspec, which knows
dataclasses, TypedDicts, NamedTuples, Structs, enums, dates and the like; pydantic's models by
pydantic itself, which is never imported here.
"""

from __future__ import annotations

import functools
import inspect
import math
import typing
from collections.abc import Callable, Iterable, Mapping
from inspect import Parameter
from operator import attrgetter
from typing import Any, Final

import msgspec

from hasten.errors import InvalidArgument, PayloadTooLarge

POSITIONAL: Final = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


class Parameters:
    """The parameters of one task. injected is the type whose parameters the worker fills in."""

    def __init__(self, function: Callable[..., Any], task: str, injected: type) -> None:
        self._function = function
        self._task = task
        self._injected = injected
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD):
                raise TypeError(
                    f"task {task!r}: arguments are stored by the names of their parameters, "
                    f"so *{parameter.name} is not possible: use a list or a dict"
                )

    # Annotations may name what is defined further down: they are looked at on first use.
    @functools.cached_property
    def _hints(self) -> dict[str, Any]:
        try:
            return typing.get_type_hints(self._function, include_extras=True)
        except NameError as exc:
            raise TypeError(
                f"task {self._task!r}: an annotation cannot be resolved: {exc}. "
                "What it names must be importable in the module of the task"
            ) from exc

    @functools.cached_property
    def _signature(self) -> inspect.Signature:
        """Of the stored parameters: without the injected ones."""
        signature = inspect.signature(self._function)
        stored = [
            parameter
            for parameter in signature.parameters.values()
            if self._hints.get(parameter.name) is not self._injected
        ]
        return signature.replace(parameters=stored)

    @functools.cached_property
    def wants_context(self) -> bool:
        return len(self._signature.parameters) < len(inspect.signature(self._function).parameters)

    @functools.cached_property
    def _names(self) -> tuple[str, ...]:
        return tuple(self._signature.parameters)

    @functools.cached_property
    def _simple(self) -> range:
        """The numbers of positional arguments that make a complete call without keywords."""
        parameters = self._signature.parameters.values()
        if any(p.kind is Parameter.KEYWORD_ONLY and p.default is p.empty for p in parameters):
            return range(0)
        positional = [p for p in parameters if p.kind in POSITIONAL]
        required = sum(p.default is p.empty for p in positional)
        return range(required, len(positional) + 1)

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a call by name. Raises `TypeError` as the call itself would."""
        if not kwargs and len(args) in self._simple:
            return dict(zip(self._names, args, strict=False))
        try:
            return self._signature.bind(*args, **kwargs).arguments
        except TypeError as exc:
            raise TypeError(f"{self._task}: {exc}") from None

    def bind_mapping(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """As `bind`, from arguments by name, positional-only ones too."""
        parameters = self._signature.parameters
        for name in arguments:
            if name not in parameters:
                raise TypeError(f"{self._task}: got an unexpected argument {name!r}")
        for name, parameter in parameters.items():
            if parameter.default is parameter.empty and name not in arguments:
                raise TypeError(f"{self._task}: missing a required argument: {name!r}")
        return dict(arguments)

    def encode(self, arguments: dict[str, Any], max_bytes: int) -> str:
        """The JSON to store. Raises `InvalidArgument` or `PayloadTooLarge`."""
        return encode_arguments(self._task, arguments, max_bytes)

    @functools.cached_property
    def _decoder(self) -> msgspec.json.Decoder[Any]:
        fields: list[tuple[str, Any, Any]] = []
        for name, parameter in self._signature.parameters.items():
            annotation = self._hints.get(name, Any)
            if parameter.default is parameter.empty:
                fields.append((name, annotation, msgspec.NODEFAULT))
            else:
                make = functools.partial(_identity, parameter.default)
                fields.append((name, annotation, msgspec.field(default_factory=make)))
        shape = msgspec.defstruct("Arguments", fields, kw_only=True, forbid_unknown_fields=True)
        return msgspec.json.Decoder(shape, dec_hook=_from_builtins)

    @functools.cached_property
    def _call(self) -> Callable[[Any, Any], tuple[tuple[Any, ...], dict[str, Any]]]:
        """Turn decoded arguments and the injected object into what the function is called with."""
        parameters = list(inspect.signature(self._function).parameters.values())
        injected = {p.name for p in parameters if self._hints.get(p.name) is self._injected}
        positional = [p.name for p in parameters if p.kind in POSITIONAL]
        keywords = [p.name for p in parameters if p.kind is Parameter.KEYWORD_ONLY]
        if not injected and not keywords:
            match positional:
                case []:
                    return lambda decoded, context: ((), {})
                case [name]:
                    get = attrgetter(name)
                    return lambda decoded, context: ((get(decoded),), {})
                case _:
                    get = attrgetter(*positional)
                    return lambda decoded, context: (get(decoded), {})

        def call(decoded: Any, context: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
            def value(name: str) -> Any:
                return context if name in injected else getattr(decoded, name)

            return tuple(map(value, positional)), {name: value(name) for name in keywords}

        return call

    def decode(self, data: str, context: object) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments to call the function with. Raises `ValueError` with the reason."""
        try:
            decoded = self._decoder.decode(data)
        except (ValueError, TypeError, RecursionError) as exc:  # msgspec's and pydantic's, too
            raise ValueError(f"its data does not fit the task {self._task!r}: {exc}") from exc
        return self._call(decoded, context)

    @functools.cached_property
    def _result_decoder(self) -> msgspec.json.Decoder[Any]:
        try:
            return msgspec.json.Decoder(self._hints.get("return", Any), dec_hook=_from_builtins)
        except TypeError:  # a type that JSON cannot be turned into: hand out what JSON says
            return msgspec.json.Decoder()

    def decode_result(self, text: str) -> Any:
        try:
            return self._result_decoder.decode(text)
        except (ValueError, TypeError):  # a run of an older version, or in another language
            return msgspec.json.decode(text)


def encode_arguments(task: str, arguments: dict[str, Any], max_bytes: int) -> str:
    """Encode arguments by name, and say which one is at fault if that is not possible."""
    try:
        data = encode_json(arguments)
    except Exception:
        _raise_culprit(task, arguments)
        raise
    if len(data) > max_bytes:
        largest = max(arguments, key=lambda name: len(encode_json(arguments[name])))
        raise PayloadTooLarge(task, largest, len(data), max_bytes)
    return data.decode()


def _raise_culprit(task: str, arguments: Mapping[str, Any]) -> None:
    for name, value in arguments.items():
        try:
            encode_json(value)
        except Exception as exc:
            raise InvalidArgument(task, name, f"cannot be stored as JSON: {exc}") from exc


class UnfitResult(Exception):
    """What a handler returned cannot be stored."""


def encode_result(value: object, max_bytes: int) -> str:
    """Encode what a handler returned. Raises `UnfitResult`."""
    if value is None:
        return "null"
    try:
        data = encode_json(value)
    except Exception as exc:
        raise UnfitResult(f"what it returned cannot be stored as JSON: {exc}") from exc
    if len(data) > max_bytes:
        raise UnfitResult(
            f"what it returned is too large: {len(data):,} bytes of JSON where {max_bytes:,} "
            "are allowed. Store it elsewhere and return a reference"
        )
    return data.decode()


def encode_json(value: object) -> bytes:
    """Encode as JSON. Raises `ValueError` or `TypeError` for what JSON cannot say."""
    data = _encoder.encode(value)
    # NaN and infinity, which JSON does not have, come out as null: a silent change of data.
    # Only a text with a null in it can hide one.
    if b"null" in data:
        _refuse_non_finite(value)
    return data


def _refuse_non_finite(value: object) -> None:
    match value:
        case float() if not math.isfinite(value):
            raise ValueError(f"{value} is not a number in JSON")
        case Mapping():
            for member in value.values():
                _refuse_non_finite(member)
        case str() | bytes() | bytearray() | memoryview():
            pass
        case list() | tuple() | set() | frozenset():
            for member in value:
                _refuse_non_finite(member)
        case _:
            for member in _members(value):
                _refuse_non_finite(member)


def _members(value: object) -> Iterable[object]:
    """The values inside a record that msgspec can encode."""
    if isinstance(value, msgspec.Struct):
        return (getattr(value, name) for name in value.__struct_fields__)
    if hasattr(value, "__dataclass_fields__"):
        return (getattr(value, name) for name in value.__dataclass_fields__)
    return ()


def _to_builtins(value: Any) -> Any:
    if hasattr(type(value), "__pydantic_validator__"):
        return value.model_dump(mode="json")
    raise TypeError(f"objects of type {type(value).__qualname__} have no JSON form")


def _from_builtins(annotation: Any, value: Any) -> Any:
    if hasattr(annotation, "__pydantic_validator__"):
        return annotation.model_validate(value)
    if isinstance(annotation, type) and isinstance(value, annotation):
        return value
    raise TypeError(f"a parameter of type {annotation!r} cannot be made from JSON")


_encoder: Final = msgspec.json.Encoder(enc_hook=_to_builtins)


def _identity(value: Any) -> Any:
    return value
