"""Encode the arguments of a call of a task as JSON, and decode and check them before a run.

The data of a job is a JSON object of the arguments by parameter name, so producers in any language
can write it. Before a run it is decoded and checked against the annotations of the function: by
msgspec, which supports dataclasses, TypedDicts, NamedTuples, Structs, enums, dates and others;
pydantic models are checked by pydantic, which this module never imports.
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
from hasten.jobs._annotations import (
    AnnotationFindings,
    examine_annotation,
    find_type_change_by_json,
    is_pydantic_model,
)
from hasten.jobs._encoding import (
    UNDECODABLE,
    NotStorable,
    decode_json,
    describe_decoding_error,
    encode,
    encode_json,
    has_only_json_types,
    reject_colliding_keys,
    reject_non_finite,
)
from hasten.jobs._validation_errors import remove_input_values, validate_pydantic_model

# Finds the parameter in messages of inspect: "missing a required argument: 'to'".
_QUOTED_NAME: Final = re.compile(r"'(\w+)'")

# Finds the path in messages of msgspec: " - at `$.order.lines[2]`".
_PATH_SUFFIX: Final = re.compile(r" - at `\$\.(\w+)([^`]*)`\Z")

POSITIONAL: Final = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


class UnresolvedAnnotation(InvalidTask):
    """An annotation refers to a name that is not defined, or not defined yet."""


class TaskParameters:
    """The parameters of a task's function: encodes, checks and decodes arguments for them.

    injected are the classes of which the worker passes an object, so that callers do not: for each
    class, a function of the object that is passed to `decode`. In practice, these are `Context` and
    `Slot`, and the object is the context. show_values is whether error messages may contain values
    of the data.

    Raises `InvalidTask` for parameters whose arguments cannot be stored. Annotations that refer to
    names that are not defined yet are checked at the first use, or by `check_annotations`.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        task: str,
        injected: Mapping[type, Callable[[Any], object]],
        *,
        show_values: bool = False,
    ) -> None:
        self._function = function
        self._task = task
        self._injected = injected
        self._show_values = show_values
        try:
            self._full_signature = inspect.signature(function)
        except ValueError as exc:
            raise InvalidTask(
                f"task {task!r}: the parameters of {function!r} cannot be determined ({exc}): "
                "use a Python function that calls it"
            ) from exc
        for parameter in self._full_signature.parameters.values():
            if parameter.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD):
                raise InvalidTask(
                    f"task {task!r}: arguments are stored by the names of their parameters, "
                    f"so *{parameter.name} is not supported: use a list or a dict"
                )
        with contextlib.suppress(UnresolvedAnnotation):
            self.check_annotations()

    def check_annotations(self) -> None:
        """Raise `InvalidTask` if JSON cannot be decoded to one of the annotations."""
        self._stored_annotations  # noqa: B018  # the property checks them when it is first computed

    @functools.cached_property
    def _resolved_annotations(self) -> dict[str, Any]:
        """The annotations by parameter name, and by "return", as types and not as strings."""
        given = {
            name: parameter.annotation
            for name, parameter in self._full_signature.parameters.items()
        }
        given["return"] = self._full_signature.return_annotation
        inner = functions.unwrap_function(self._function)
        names = getattr(inner, "__globals__", {})
        holder = types.SimpleNamespace(
            __annotations__={
                name: _evaluate_annotation(annotation, names)
                if type(annotation) is str
                else annotation
                for name, annotation in given.items()
                if annotation is not inspect.Signature.empty
            },
            __type_params__=getattr(inner, "__type_params__", ()),
        )
        try:
            return typing.get_type_hints(holder, names, include_extras=True)
        except Exception as exc:
            # The name may be defined later, further down in this module or in another one.
            is_early = isinstance(exc, NameError | AttributeError)
            raise (UnresolvedAnnotation if is_early else InvalidTask)(
                f"task {self._task!r}: an annotation cannot be resolved: {exc}. "
                "The module of the task must define or import the name"
            ) from exc

    @functools.cached_property
    def _stored_annotations(self) -> dict[str, AnnotationFindings]:
        """The examined annotations of the parameters whose arguments are stored with a job."""
        bound = self._function.keywords if isinstance(self._function, functools.partial) else {}
        stored: dict[str, AnnotationFindings] = {}
        for name in self._full_signature.parameters:
            if name in self._injected_parameters:
                continue
            hint = self._resolved_annotations.get(name, Any)
            try:
                annotation = examine_annotation(hint)
            except NameError as exc:
                raise UnresolvedAnnotation(
                    f"task {self._task!r}: parameter {name!r}: an annotation in "
                    f"{inspect.formatannotation(hint)} cannot be resolved: {exc}"
                ) from exc
            if annotation.problem is None:
                stored[name] = annotation
            elif name not in bound:  # arguments bound by functools.partial are not stored
                raise InvalidTask(
                    f"task {self._task!r}: parameter {name!r}: data cannot be decoded to "
                    f"{inspect.formatannotation(hint)}: {annotation.problem}. Use JSON's own "
                    "types, list instead of Iterable, a dataclass, a msgspec.Struct (with tag=True "
                    "if a union has several) or a pydantic model"
                )
        return stored

    @functools.cached_property
    def _injected_parameters(self) -> dict[str, Callable[[Any], object]]:
        """The parameters for which the worker passes an object, with the functions that make it."""
        found = {
            name: self._find_injected(self._resolved_annotations.get(name))
            for name in self._full_signature.parameters
        }
        return {name: make for name, make in found.items() if make is not None}

    def _find_injected(self, hint: Any) -> Callable[[Any], object] | None:
        """Return the function for an annotation that is an injected class, or Optional of it."""
        while typing.get_origin(hint) is typing.Annotated:
            hint = hint.__origin__
        if typing.get_origin(hint) in (typing.Union, types.UnionType):
            members = [member for member in typing.get_args(hint) if member is not types.NoneType]
            return self._find_injected(members[0]) if len(members) == 1 else None
        return next((make for kind, make in self._injected.items() if hint is kind), None)

    @functools.cached_property
    def _stored_signature(self) -> inspect.Signature:
        """The signature without parameters whose arguments are not stored."""
        return self._full_signature.replace(
            parameters=[self._full_signature.parameters[name] for name in self._stored_annotations]
        )

    @functools.cached_property
    def wants_context(self) -> bool:
        """Whether `decode` needs the context."""
        return bool(self._injected_parameters)

    @functools.cached_property
    def stored_names(self) -> tuple[str, ...]:
        """The names of the parameters whose arguments are stored, in order."""
        return tuple(self._stored_annotations)

    def add_defaults(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments by name, and the defaults of the parameters that have none."""
        defaults = {
            name: parameter.default
            for name, parameter in self._stored_signature.parameters.items()
            if parameter.default is not parameter.empty
        }
        return defaults | dict(arguments)

    @functools.cached_property
    def _valid_positional_counts(self) -> range:
        """The numbers of positional arguments with which a call without keywords is valid."""
        parameters = self._stored_signature.parameters.values()
        if any(p.kind is Parameter.KEYWORD_ONLY and p.default is p.empty for p in parameters):
            return range(0)
        positional = [p for p in parameters if p.kind in POSITIONAL]
        required = sum(p.default is p.empty for p in positional)
        return range(required, len(positional) + 1)

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of a call by parameter name. Raises `InvalidArgument`."""
        if not kwargs and len(args) in self._valid_positional_counts:
            return dict(zip(self.stored_names, args, strict=False))
        try:
            return self._stored_signature.bind(*args, **kwargs).arguments
        except TypeError as exc:
            named = _QUOTED_NAME.search(str(exc))
            raise InvalidArgument.of_call(self._task, named[1] if named else "", str(exc)) from None

    def encode(self, arguments: dict[str, Any], max_bytes: int, *, check_decodable: bool) -> str:
        """Encode arguments as JSON. Raises `InvalidArgument`, or its subclass `PayloadTooLarge`.

        check_decodable is whether the arguments are also checked against the annotations, by
        decoding them as a worker will.
        """
        try:
            data = encode(arguments)
            # The names of the arguments are distinct, but two keys of a dict inside may collide.
            if (
                self._loosely_typed_parameters or data.find(b"{", 1) > 0
            ) and not has_only_json_types(arguments):
                reject_colliding_keys(arguments, data)
                self._reject_type_changes(arguments)
            if data.find(b"null") >= 0:  # twice as fast as `in`
                reject_non_finite(arguments)
            if check_decodable:
                self._check_decodable(data)
        except InvalidArgument:
            raise
        except Exception:
            self._raise_for_unencodable(arguments)
            raise
        if len(data) > max_bytes:
            largest = max(arguments, key=lambda name: len(encode(arguments[name])))
            raise PayloadTooLarge(self._task, largest, len(data), max_bytes)
        return data.decode()

    def _check_decodable(self, data: bytes) -> None:
        """Decode the arguments as a worker will. Raises `InvalidArgument` if that fails.

        Cheaper checks of the types would not find all errors.
        """
        try:
            self._data_decoder.decode(data)
            return
        except (*UNDECODABLE, TypeError) as exc:
            # The errors of msgspec and pydantic are ValueErrors.
            reason = describe_decoding_error(exc)
        if not self._show_values:
            reason = remove_input_values(reason)
        place = _PATH_SUFFIX.search(reason)
        if place is None:
            raise InvalidArgument.of_call(self._task, "", f"its arguments do not fit: {reason}")
        reason = f"does not fit its annotation: {reason[: place.start()]}"
        raise InvalidArgument(self._task, place[1], reason, place[2])

    def _raise_for_unencodable(self, arguments: Mapping[str, Any]) -> None:
        """Raise `InvalidArgument` for the first argument that cannot be encoded as JSON."""
        for name, value in arguments.items():
            try:
                encode_json(value)
            except NotStorable as exc:
                raise InvalidArgument(self._task, name, exc.reason, exc.path) from exc
            except Exception as exc:
                reason = f"cannot be stored as JSON: {exc}"
                raise InvalidArgument(self._task, name, reason) from exc

    @functools.cached_property
    def _loosely_typed_parameters(self) -> tuple[tuple[str, msgspec.inspect.Type], ...]:
        """The parameters whose annotations give some value no type, such as `Any` or a bare `list`.

        Each is a pair of its name and msgspec's description of the annotation. Most tasks have
        none.
        """
        return tuple(
            (name, a.untyped)
            for name, a in self._stored_annotations.items()
            if a.untyped is not None
        )

    def _reject_type_changes(self, arguments: Mapping[str, Any]) -> None:
        """Raise `InvalidArgument` for a value that would reach the task as another type."""
        for name, described in self._loosely_typed_parameters:
            if found := find_type_change_by_json(described, arguments.get(name), ""):
                path, change = found
                remedy = f"annotate the parameter {name!r} with its type"
                raise InvalidArgument(self._task, name, f"{change}: {remedy}", path)

    def check_data(self, data: object, data_as_json: str, *, check_decodable: bool) -> None:
        """Check the data of a job that is added by the name of its task.

        Raises `InvalidArgument` if check_decodable is true and a worker would reject the data
        before the run, or if a value would reach the task as another type.
        """
        if check_decodable:
            try:
                self._decode_data(data_as_json)
            except ValueError as exc:
                reason = f"does not fit the task: {exc}"
                raise InvalidArgument(self._task, "data", reason) from None
        if isinstance(data, Mapping):
            self._reject_type_changes(data)

    @functools.cached_property
    def _data_decoder(self) -> msgspec.json.Decoder[Any]:
        """The decoder for the data of a job, to a struct with one field per stored parameter."""
        fields: list[tuple[str, Any, Any]] = []
        for name, parameter in self._stored_signature.parameters.items():
            annotation = self._resolved_annotations.get(name, Any)
            if parameter.default is parameter.empty:
                fields.append((name, annotation, msgspec.NODEFAULT))
            else:
                make = functools.partial(_identity, parameter.default)
                fields.append((name, annotation, msgspec.field(default_factory=make)))
        shape = msgspec.defstruct("Arguments", fields, kw_only=True, forbid_unknown_fields=True)
        return msgspec.json.Decoder(shape, dec_hook=self._decode_pydantic_model)

    def _decode_pydantic_model(self, annotation: Any, value: Any) -> Any:
        """Create a pydantic model from decoded JSON. msgspec calls this for unknown types."""
        if is_pydantic_model(annotation):
            return validate_pydantic_model(annotation, value, show_values=self._show_values)
        if annotation is object:
            return value
        raise TypeError(f"JSON cannot be decoded to the type {annotation!r}")

    @functools.cached_property
    def _call_arguments_arranger(
        self,
    ) -> Callable[[Any, Any], tuple[tuple[Any, ...], dict[str, Any]]]:
        """A function (decoded data, context) -> (args, kwargs) to call the task with."""
        injected = self._injected_parameters
        given = [
            p
            for name, p in self._full_signature.parameters.items()
            if name in {*self._stored_annotations, *injected}
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

        def arrange_arguments(decoded: Any, context: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
            def get_value(name: str) -> Any:
                make = injected.get(name)
                return getattr(decoded, name) if make is None else make(context)

            return tuple(map(get_value, positional)), {name: get_value(name) for name in keywords}

        return arrange_arguments

    def decode(self, data: str, context: object) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Decode the data of a job to positional and keyword arguments for the task's function.

        The injected objects are made from context. Raises `ValueError` with the reason if the data
        does not fit.
        """
        try:
            decoded = self._decode_data(data)
        except ValueError as exc:
            raise ValueError(
                f"the data of the job does not fit the task {self._task!r}: {exc}"
            ) from None
        return self._call_arguments_arranger(decoded, context)

    def decode_by_name(self, data: str) -> dict[str, Any]:
        """Decode the data of a job to arguments by name, with the defaults of missing ones.

        Raises `ValueError` if the data does not fit.
        """
        decoded = self._decode_data(data)
        return {name: getattr(decoded, name) for name in self.stored_names}

    def _decode_data(self, data: str) -> Any:
        try:
            return self._data_decoder.decode(data)
        except (*UNDECODABLE, TypeError) as exc:
            # The errors of msgspec and pydantic are ValueErrors.
            reason = describe_decoding_error(exc)
        raise ValueError(reason if self._show_values else remove_input_values(reason))

    @functools.cached_property
    def _result_decoder(self) -> msgspec.json.Decoder[Any]:
        """The decoder for results, to the return annotation of the function if possible."""
        try:
            return msgspec.json.Decoder(
                self._resolved_annotations.get("return", Any), dec_hook=self._decode_pydantic_model
            )
        except TypeError:  # msgspec cannot decode to this type: decode to dicts, lists and so on
            return msgspec.json.Decoder()

    def decode_result(self, text: str) -> Any:
        """Decode a result to the return type of the function.

        If it does not fit, it is decoded to dicts, lists and other types of JSON.
        """
        try:
            return self._result_decoder.decode(text)
        except (*UNDECODABLE, TypeError):
            # Written by another version of the task, or in another language.
            return decode_json(text)


def encode_result(value: object, max_bytes: int) -> str:
    """Encode the return value of a handler as JSON. Raises `InvalidResult`."""
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


# Tasks share a few annotations, and compiling them takes most of the time of `queue.task`.
_compile_cached: Final = functools.lru_cache(maxsize=1024)(compile)


def _evaluate_annotation(annotation: str, names: dict[str, Any]) -> Any:
    """Evaluate an annotation that is a string.

    Returns the string if that fails; `get_type_hints` then raises the error.
    """
    try:
        return eval(_compile_cached(annotation, "<annotation>", "eval"), names)  # noqa: S307  # the program's own annotation
    except Exception:  # noqa: BLE001  # whatever the expression raises
        return annotation


def _identity(value: Any) -> Any:
    return value
