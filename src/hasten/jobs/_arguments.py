"""The arguments of a task: from a call to JSON and back.

The data of a job is a JSON object of the arguments by parameter name, so producers in any language
can write it. Before a run it is checked against the annotations of the function: by msgspec, which
supports dataclasses, TypedDicts, NamedTuples, Structs, enums, dates and others; pydantic models are
checked by pydantic, which is never imported here.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from inspect import Parameter
from operator import attrgetter
from typing import Any, Final

import msgspec

from hasten.errors import InvalidArgument, InvalidResult, InvalidTask, PayloadTooLarge
from hasten.jobs import _functions as functions
from hasten.jobs._annotations import Annotation, examine, find_change, is_pydantic
from hasten.jobs._encoding import (
    UNDECODABLE,
    NotStorable,
    decode_json,
    encode,
    encode_json,
    is_plain,
    refuse_lost_keys,
    refuse_non_finite,
    why_undecodable,
)
from hasten.jobs._validation_errors import validate, without_values

# In messages of inspect: "missing a required argument: 'to'".
_NAMED: Final = re.compile(r"'(\w+)'")

# In messages of msgspec: " - at `$.order.lines[2]`".
_PLACE: Final = re.compile(r" - at `\$\.(\w+)([^`]*)`\Z")

POSITIONAL: Final = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


class UnresolvedAnnotation(InvalidTask):
    """An annotation refers to a name that is not defined, or not yet."""


class Parameters:
    """The parameters of one task. The worker fills in parameters of the type injected.

    show_values is whether errors about data contain its values.

    Raises `InvalidTask` for parameters whose arguments cannot be stored. Annotations may refer to
    names that are defined later: these are checked at the first use, or by `check`.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        task: str,
        injected: type,
        *,
        show_values: bool = False,
    ) -> None:
        self._function = function
        self._task = task
        self._injected = injected
        self._show_values = show_values
        try:
            self._all = inspect.signature(function)
        except ValueError as exc:
            raise InvalidTask(
                f"task {task!r}: the parameters of {function!r} are unknown ({exc}): "
                "write a function that calls it"
            ) from exc
        for parameter in self._all.parameters.values():
            if parameter.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD):
                raise InvalidTask(
                    f"task {task!r}: arguments are stored by the names of their parameters, "
                    f"so *{parameter.name} is not supported: use a list or a dict"
                )
        with contextlib.suppress(UnresolvedAnnotation):
            self.check()

    def check(self) -> None:
        """Raise `InvalidTask` if data cannot be decoded to one of the annotations."""
        self._stored  # noqa: B018  # computed once

    @functools.cached_property
    def _hints(self) -> dict[str, Any]:
        given = {name: parameter.annotation for name, parameter in self._all.parameters.items()}
        given["return"] = self._all.return_annotation
        inner = functions.wrapped(self._function)
        names = getattr(inner, "__globals__", {})
        holder = types.SimpleNamespace(
            __annotations__={
                name: _evaluated(annotation, names) if type(annotation) is str else annotation
                for name, annotation in given.items()
                if annotation is not inspect.Signature.empty
            },
            __type_params__=getattr(inner, "__type_params__", ()),
        )
        try:
            return typing.get_type_hints(holder, names, include_extras=True)
        except Exception as exc:
            # A name that is missing, also in another module, may be defined later.
            is_early = isinstance(exc, NameError | AttributeError)
            raise (UnresolvedAnnotation if is_early else InvalidTask)(
                f"task {self._task!r}: an annotation cannot be resolved: {exc}. "
                "The module of the task must define or import the name"
            ) from exc

    @functools.cached_property
    def _stored(self) -> dict[str, Annotation]:
        """The parameters whose arguments are stored."""
        bound = self._function.keywords if isinstance(self._function, functools.partial) else {}
        stored: dict[str, Annotation] = {}
        for name in self._all.parameters:
            if name in self._contexts:
                continue
            hint = self._hints.get(name, Any)
            try:
                annotation = examine(hint)
            except NameError as exc:
                raise UnresolvedAnnotation(
                    f"task {self._task!r}: parameter {name!r}: an annotation in "
                    f"{inspect.formatannotation(hint)} cannot be resolved: {exc}"
                ) from exc
            if annotation.problem is None:
                stored[name] = annotation
            elif name not in bound:  # arguments that a partial has bound are not stored
                raise InvalidTask(
                    f"task {self._task!r}: parameter {name!r}: data cannot be decoded to "
                    f"{inspect.formatannotation(hint)}: {annotation.problem}. Use JSON's own "
                    "types, list instead of Iterable, a dataclass, a msgspec.Struct (with tag=True "
                    "if a union has several) or a pydantic model"
                )
        return stored

    @functools.cached_property
    def _contexts(self) -> frozenset[str]:
        """The parameters that the worker fills in."""
        return frozenset(
            name for name in self._all.parameters if self._is_injected(self._hints.get(name))
        )

    def _is_injected(self, hint: Any) -> bool:
        while typing.get_origin(hint) is typing.Annotated:
            hint = hint.__origin__
        if typing.get_origin(hint) in (typing.Union, types.UnionType):
            members = [member for member in typing.get_args(hint) if member is not types.NoneType]
            return len(members) == 1 and self._is_injected(members[0])
        return hint is self._injected

    @functools.cached_property
    def _signature(self) -> inspect.Signature:
        """The signature of the stored parameters."""
        return self._all.replace(parameters=[self._all.parameters[name] for name in self._stored])

    @functools.cached_property
    def wants_context(self) -> bool:
        """Whether a parameter takes the injected object."""
        return bool(self._contexts)

    @functools.cached_property
    def _names(self) -> tuple[str, ...]:
        return tuple(self._stored)

    @functools.cached_property
    def _simple(self) -> range:
        """How many positional arguments make a complete call without keywords."""
        parameters = self._signature.parameters.values()
        if any(p.kind is Parameter.KEYWORD_ONLY and p.default is p.empty for p in parameters):
            return range(0)
        positional = [p for p in parameters if p.kind in POSITIONAL]
        required = sum(p.default is p.empty for p in positional)
        return range(required, len(positional) + 1)

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of a call by name. Raises `InvalidArgument` for an invalid call."""
        if not kwargs and len(args) in self._simple:
            return dict(zip(self._names, args, strict=False))
        try:
            return self._signature.bind(*args, **kwargs).arguments
        except TypeError as exc:
            named = _NAMED.search(str(exc))
            raise InvalidArgument.of_call(self._task, named[1] if named else "", str(exc)) from None

    def encode(self, arguments: dict[str, Any], max_bytes: int, *, check: bool) -> str:
        """Encode arguments as JSON. Raises `InvalidArgument`, or its `PayloadTooLarge`.

        check is whether they are checked against the annotations, as before a run.
        """
        try:
            data = encode(arguments)
            # The names of arguments are distinct, but those of an object inside may not be.
            if (self._open or data.find(b"{", 1) > 0) and not is_plain(arguments):
                refuse_lost_keys(arguments, data)
                self._refuse_changes(arguments)
            if data.find(b"null") >= 0:  # twice as fast as "in"
                refuse_non_finite(arguments)
            if check:
                self._check_fit(data)
        except InvalidArgument:
            raise
        except Exception:
            self._raise_culprit(arguments)
            raise
        if len(data) > max_bytes:
            largest = max(arguments, key=lambda name: len(encode(arguments[name])))
            raise PayloadTooLarge(self._task, largest, len(data), max_bytes)
        return data.decode()

    def _check_fit(self, data: bytes) -> None:
        """Decode arguments as a worker will. Cheaper checks would not find all errors."""
        try:
            self._decoder.decode(data)
            return
        except (*UNDECODABLE, TypeError) as exc:  # includes those of msgspec and pydantic
            reason = why_undecodable(exc)
        if not self._show_values:
            reason = without_values(reason)
        place = _PLACE.search(reason)
        if place is None:
            raise InvalidArgument.of_call(self._task, "", f"its arguments do not fit: {reason}")
        reason = f"does not fit its annotation: {reason[: place.start()]}"
        raise InvalidArgument(self._task, place[1], reason, place[2])

    def _raise_culprit(self, arguments: Mapping[str, Any]) -> None:
        for name, value in arguments.items():
            try:
                encode_json(value)
            except NotStorable as exc:
                raise InvalidArgument(self._task, name, exc.reason, exc.path) from exc
            except Exception as exc:
                reason = f"cannot be stored as JSON: {exc}"
                raise InvalidArgument(self._task, name, reason) from exc

    @functools.cached_property
    def _open(self) -> tuple[tuple[str, Any], ...]:
        """The parameters whose annotations leave a type open; most tasks have none."""
        return tuple((name, a.open) for name, a in self._stored.items() if a.open is not None)

    def _refuse_changes(self, arguments: Mapping[str, Any]) -> None:
        for name, described in self._open:
            if found := find_change(described, arguments.get(name), ""):
                inside, change = found
                remedy = f"annotate the parameter {name!r} with its type"
                raise InvalidArgument(self._task, name, f"{change}: {remedy}", inside)

    def check_data(self, data: object, text: str, *, check: bool) -> None:
        """Check the data of a job that was added by name; text is its JSON.

        Raises `InvalidArgument` if a run would reject it (unless check is False) or receive other
        values.
        """
        if check:
            try:
                self._decode(text)
            except ValueError as exc:
                reason = f"does not fit the task: {exc}"
                raise InvalidArgument(self._task, "data", reason) from None
        if isinstance(data, Mapping):
            self._refuse_changes(data)

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
        return msgspec.json.Decoder(shape, dec_hook=self._from_builtins)

    def _from_builtins(self, annotation: Any, value: Any) -> Any:
        if is_pydantic(annotation):
            return validate(annotation, value, show_values=self._show_values)
        if annotation is object:
            return value
        raise TypeError(f"a parameter of type {annotation!r} cannot be made from JSON")

    @functools.cached_property
    def _call(self) -> Callable[[Any, Any], tuple[tuple[Any, ...], dict[str, Any]]]:
        """Converts decoded arguments and the injected object to the arguments of the call."""
        injected = self._contexts
        given = [
            p for name, p in self._all.parameters.items() if name in {*self._stored, *injected}
        ]
        positional = [p.name for p in given if p.kind in POSITIONAL]
        keywords = [p.name for p in given if p.kind is Parameter.KEYWORD_ONLY]
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
        """Decode the arguments of a call. Raises `ValueError` with the reason."""
        try:
            decoded = self._decode(data)
        except ValueError as exc:
            raise ValueError(f"its data does not fit the task {self._task!r}: {exc}") from None
        return self._call(decoded, context)

    def _decode(self, data: str) -> Any:
        try:
            return self._decoder.decode(data)
        except (*UNDECODABLE, TypeError) as exc:  # includes those of msgspec and pydantic
            reason = why_undecodable(exc)
        raise ValueError(reason if self._show_values else without_values(reason))

    @functools.cached_property
    def _result_decoder(self) -> msgspec.json.Decoder[Any]:
        try:
            return msgspec.json.Decoder(
                self._hints.get("return", Any), dec_hook=self._from_builtins
            )
        except TypeError:  # a type without a JSON form: return plain JSON
            return msgspec.json.Decoder()

    def decode_result(self, text: str) -> Any:
        """Decode a result to the return type; to plain JSON if it does not fit."""
        try:
            return self._result_decoder.decode(text)
        except (*UNDECODABLE, TypeError):  # by an older version, or in another language
            return decode_json(text)


def encode_result(value: object, max_bytes: int) -> str:
    """Encode the return value of a handler. Raises `InvalidResult`."""
    if value is None:
        return "null"
    try:
        data = encode_json(value)
    except Exception as exc:
        raise InvalidResult(f"the return value cannot be stored as JSON: {exc}") from exc
    if len(data) > max_bytes:
        raise InvalidResult(
            f"the return value is too large: {len(data):,} bytes of JSON, at most {max_bytes:,} "
            "are allowed. Store it elsewhere and return a reference"
        )
    return data.decode()


# Tasks share a few texts, and compiling them takes most of the time of making a task.
_compiled: Final = functools.lru_cache(maxsize=1024)(compile)


def _evaluated(annotation: str, names: dict[str, Any]) -> Any:
    """Evaluate an annotation. Returns the text on errors, which `get_type_hints` reports."""
    try:
        return eval(_compiled(annotation, "<annotation>", "eval"), names)  # noqa: S307  # their own
    except Exception:  # noqa: BLE001  # whatever the expression raises
        return annotation


def _identity(value: Any) -> Any:
    return value
