"""`AllowedFields`: the fields that a client may request or sort by.

The list is made from the model of the response (pydantic, msgspec, a dataclass, attrs, a TypedDict)
or from names. It is never made from a table, so a new column is hidden until it is added to the
model. It contains public names, which aliases of the model define. No model library is imported:
models are recognized by their attributes.

A client gets the same error for a hidden column, a misspelled name and a field that its role may
not see, so errors do not reveal which columns exist.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    MutableSequence,
    Sequence,
)
from dataclasses import dataclass, replace
from itertools import islice
from typing import Annotated, Any, Final, NamedTuple, Self, TypeVar, Union, get_args, get_origin

from hasten.errors import InvalidOption, InvalidParameter
from hasten.fields._mask import (
    MAX_DEPTH,
    MAX_NAMES,
    RESERVED_CHARS,
    FieldMask,
    parse_field_mask,
    too_deep_error,
)

R = TypeVar("R")

MAX_SHOWN: Final = 50
"""The maximum number of allowed names in an error message."""

_MAX_UNKNOWN_SHOWN: Final = 10
"""The maximum number of unknown names in an error message."""

EVERY: Final = "*"


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """One field that can be requested. Two fields are equal only if they are the same object."""

    name: str
    """The public name."""
    attribute: str
    """The name of the attribute in the mapped class or the item."""
    needs: tuple[str, ...]
    """The names of the attributes to read: the field's own, or those that it is computed from.

    Empty for a nested model, whose own fields say what to read.
    """
    relation: AllowedFields | None = None
    """The allowed fields of the nested model; None if the field is a single value."""
    many: bool = False
    """Whether the field is a list of nested models."""
    is_conditional: bool = False
    """Whether a row shows the field only for some values: pydantic's ``exclude_if``."""

    @property
    def is_computed(self) -> bool:
        """Whether the field is computed from other attributes."""
        return self.relation is None and self.needs != (self.attribute,)


@dataclass(frozen=True, slots=True, repr=False)
class FieldSet:
    """The fields that a client requested, in the order of the model.

    The sets of two requests for the same fields are equal and have equal hashes.
    """

    members: tuple[tuple[Field, FieldSet | None], ...]
    """The fields, each with the requested fields of its nested model; None for a single value."""
    allowed: AllowedFields = dataclasses.field(compare=False)
    """The list of allowed fields that these fields were chosen from."""

    @property
    def names(self) -> tuple[str, ...]:
        """The public names of the fields."""
        return tuple(field.name for field, _ in self.members)

    @property
    def needs(self) -> tuple[str, ...]:
        """The names of the attributes to read, each once, without those of nested models."""
        return tuple(dict.fromkeys(need for field, _ in self.members for need in field.needs))

    @property
    def relations(self) -> dict[Field, FieldSet]:
        """The fields that are nested models, each with the requested fields of that model."""
        return {field: inner for field, inner in self.members if inner is not None}

    def __repr__(self) -> str:
        return f"FieldSet({str(self)!r})"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _: object) -> Self:
        return self  # its fields are compared by identity

    def __str__(self) -> str:
        """Return the value of ``fields=`` that requests this set. Equal sets return equal texts."""
        return ",".join(
            field.name if inner is None else f"{field.name}({inner})"
            for field, inner in self.members
        )


class AllowedFields:
    """The fields that a client may request.

    schema is a model, a sequence of names, or a mapping. A mapping has public names as keys; a
    value is the name of an attribute, a nested model, another `AllowedFields`, or a list with one
    of the latter two for a list of nested models. Raises `InvalidOption` for an invalid schema, and
    for a mapped table, which would show all of its columns.

    - default: the fields that a request without ``fields=`` gets, in the same notation, such as
      ("id", "author(name)"); None for all fields that are not nested models.
    - needs: the names of the attributes that a field is computed from, by public name.
    - expand: the `AllowedFields` to use for a nested model, by public name.
    - opaque: the public names of nested models that are shown only as a whole, such as a JSON
      column.
    - wildcard: whether ``fields=*`` requests all fields that are not nested models.
    """

    __slots__ = ("_default", "_fields", "_is_copy", "_model", "_origin", "_wildcard")

    def __init__(
        self,
        schema: object,
        *,
        default: Iterable[str] | None = None,
        needs: Mapping[str, Sequence[str]] | None = None,
        expand: Mapping[str, AllowedFields] | None = None,
        opaque: Collection[str] = (),
        wildcard: bool = False,
    ) -> None:
        self._initialize(schema, needs or {}, expand or {}, opaque, wildcard, {})
        self._default = self._select_flat_fields()
        if default is not None:
            self._default = self._resolve_default(default)

    def __repr__(self) -> str:
        # Names only, because models may refer to each other.
        return f"{type(self).__name__}({', '.join(self._fields)})"

    @property
    def fields(self) -> Mapping[str, Field]:
        """All fields, by public name, in the order of the model."""
        return types.MappingProxyType(self._fields)

    @property
    def model(self) -> type | None:
        """The model that the fields were read from; None if they were passed as names."""
        return self._model

    @property
    def default(self) -> FieldSet:
        """The fields that a request without ``fields=`` gets."""
        return self._default

    def _resolve_mask(
        self, mask: FieldMask | None, *, parameter: str = "fields", max_depth: int = MAX_DEPTH
    ) -> FieldSet:
        """Return the fields that a parsed ``fields=`` names; for None, return the default fields.

        Raises `InvalidParameter` if a name is unknown.
        """
        if mask is None:
            return self._default
        unknown = list(islice(self._find_unknown_names(mask, ""), _MAX_UNKNOWN_SHOWN + 1))
        if unknown:
            raise _unknown_fields_error(parameter, unknown)
        return self._choose_fields(mask, _FieldsParameter(parameter, max_depth), ())

    def parse(
        self,
        texts: Sequence[str],
        *,
        parameter: str = "fields",
        max_depth: int = MAX_DEPTH,
        max_names: int = MAX_NAMES,
    ) -> FieldSet:
        """Parse the values of the ``fields=`` parameter; if there are none, return the default.

        Raises `InvalidParameter`.
        """
        if not texts:
            return self._default
        mask = parse_field_mask(
            texts, parameter=parameter, max_depth=max_depth, max_names=max_names
        )
        return self._resolve_mask(mask, parameter=parameter, max_depth=max_depth)

    def without(self, *paths: str) -> AllowedFields:
        """Return a copy of this list in which some fields do not exist, such as for guests.

        The path "author.email" removes email from the author's model, also where other paths lead
        to that model. Raises `InvalidOption` for an unknown field.
        """
        removed: dict[AllowedFields, set[str]] = {}
        for path in paths:
            *through, name = path.split(".")
            where: AllowedFields | None = self
            for step in through:
                field = where._fields.get(step) if where else None
                where = field.relation if field else None
            if where is None or name not in where._fields:
                raise InvalidOption("without", path, "the path of a field in the schema")
            removed.setdefault(where, set()).add(name)
        return self._copy_without(removed)

    def _is_derived_from(self, other: AllowedFields) -> bool:
        """Return whether this is the other list, or was derived from it with `without`.

        A list that was unpickled counts as the other list if it has the same structure.
        """
        one: AllowedFields | None = self
        while one is not None:
            if one is other or (one._is_copy and one._to_comparable() == other._to_comparable()):
                return True
            one = one._origin
        return False

    def paths(self, max_depth: int = 2) -> Iterator[str]:
        """Iterate over the paths of all fields: ``id``, ``author``, ``author.name``.

        max_depth is the maximum number of names in a path.
        """
        for field in self._fields.values():
            if field.relation is None:
                yield field.name
            elif max_depth > 1:
                yield field.name
                for path in field.relation.paths(max_depth - 1):
                    yield f"{field.name}.{path}"

    # Copies --------------------------------------------------------------------------------------
    #
    # Copying a field set does not copy its list: within a process, lists are compared by identity.
    # Unpickling a set creates a new list: lists from another process are compared by structure.

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _: object) -> Self:
        return self

    def __getstate__(self) -> dict[str, object]:
        state = {name: getattr(self, name) for name in self.__slots__}
        return state | {"_model": None, "_is_copy": True}

    def __setstate__(self, state: Mapping[str, object]) -> None:
        for name, value in state.items():
            setattr(self, name, value)

    def _to_comparable(self) -> list[list[object]]:
        """Return the contents of this list and of all lists of its nested models, for comparison.

        A nested model is represented by the index of its list in the result.
        """
        places: dict[AllowedFields, int] = {self: 0}
        rest = [self]
        found: list[list[object]] = []
        for one in rest:
            found.append([one._wildcard])
            for field in one._fields.values():
                to = field.relation
                if to is not None and to not in places:
                    places[to] = len(places)
                    rest.append(to)
                plain = (field.name, field.attribute, field.needs, field.many, field.is_conditional)
                found[-1].append((*plain, None if to is None else places[to]))
        return found

    # Creation ------------------------------------------------------------------------------------

    def _initialize(
        self,
        schema: object,
        needs: Mapping[str, Sequence[str]],
        expand: Mapping[str, AllowedFields],
        opaque: Collection[str],
        wildcard: bool,
        existing: _AllowedByModelId,
    ) -> None:
        """Set all attributes from a schema except for the default fields.

        existing has the `AllowedFields` of models that were read before, because models may refer
        to each other.
        """
        # Stored before it is complete, because models may refer to each other.
        existing[id(schema)] = self
        self._origin: AllowedFields | None = None
        self._is_copy = False
        self._wildcard = wildcard
        self._model = schema if isinstance(schema, type) else None
        self._fields: dict[str, Field] = {}
        model_fields = list(_read_fields(schema))
        _check_names(model_fields, needs, expand, opaque)
        nested = {
            part.name: _NOT_NESTED if part.name in opaque else _find_nested_model(part.kind)
            for part in model_fields
        }
        # A list in expand is used for all fields with its model.
        for name, given in expand.items():
            existing.setdefault(id(nested[name].to), given)
        for part in model_fields:
            to, many = nested[part.name]
            relation = expand.get(part.name) or _to_nested_allowed_fields(to, wildcard, existing)
            if relation is not None:
                wanted: tuple[str, ...] = ()
            elif part.name in needs:
                wanted = tuple(needs[part.name])
            elif part.is_computed:
                raise InvalidOption(
                    "needs",
                    dict(needs),
                    "a mapping that also names the attributes that the computed field "
                    f"{part.name!r} needs, such as {{{part.name!r}: ('first', 'last')}}; for a "
                    "nested model, use expand= instead",
                )
            else:
                wanted = (part.attribute,)
            self._fields[part.name] = Field(
                part.name, part.attribute, wanted, relation, many, part.is_conditional
            )

    def _select_flat_fields(self) -> FieldSet:
        """Return all fields that are not nested models."""
        return FieldSet(
            tuple((field, None) for field in self._fields.values() if field.relation is None), self
        )

    def _resolve_default(self, default: Iterable[str]) -> FieldSet:
        texts = [default] if isinstance(default, str) else list(default)
        try:
            return self._resolve_mask(
                parse_field_mask(texts, parameter="default"), parameter="default"
            )
        except InvalidParameter as error:
            raise InvalidOption("default", texts, f"fields of the schema ({error})") from None

    def _copy_without(self, removed: Mapping[AllowedFields, Collection[str]]) -> AllowedFields:
        """Copy this list and those of its nested models, without the fields removed from each."""
        # Lists without removed fields are copied, too, because they may refer to a changed one.
        twins: dict[AllowedFields, AllowedFields] = {}
        rest = [self]
        while rest:
            one = rest.pop()
            if one not in twins:
                twins[one] = AllowedFields.__new__(AllowedFields)
                rest += [field.relation for field in one._fields.values() if field.relation]
        for one, twin in twins.items():
            twin._origin = one
            twin._is_copy = False
            twin._wildcard = one._wildcard
            twin._model = one._model
            twin._fields = {
                name: replace(field, relation=field.relation and twins[field.relation])
                for name, field in one._fields.items()
                if name not in removed.get(one, ())
            }
        for one, twin in twins.items():
            twin._default = select_same_fields(one._default, twin)
        return twins[self]

    # Choosing ------------------------------------------------------------------------------------

    def _find_unknown_names(
        self, mask: FieldMask, path: str
    ) -> Iterator[tuple[str, AllowedFields]]:
        """Yield the paths of unknown names, each with the list of fields that was searched.

        path is the prefix of the paths.
        """
        for name, inner in mask.names.items():
            field = self._fields.get(name)
            if field is None:
                if not (name == EVERY and self._wildcard and not inner.names):
                    yield path + name, self
            elif field.relation is not None:
                yield from field.relation._find_unknown_names(inner, f"{path}{name}.")

    def _choose_fields(
        self, mask: FieldMask, parameter: _FieldsParameter, parent_path: tuple[str, ...]
    ) -> FieldSet:
        """Return the fields that a parsed ``fields=`` names.

        parent_path is the path of the nested model that this list belongs to, for error messages.
        """
        chosen: list[tuple[Field, FieldSet | None]] = []
        every = EVERY in mask.names
        for name, field in self._fields.items():
            inner = mask.names.get(name)
            if field.relation is not None:
                if inner is not None:
                    path = (*parent_path, name)
                    chosen.append((field, field.relation._choose_nested(inner, parameter, path)))
            elif inner is not None and inner.names:
                raise InvalidParameter(
                    parameter.parameter,
                    ".".join((*parent_path, name)),
                    "this field has no nested fields; request it without names after it",
                    code="not_expandable",
                )
            elif inner is not None or every:
                chosen.append((field, None))
        return FieldSet(tuple(chosen), self)

    def _choose_nested(
        self, mask: FieldMask, parameter: _FieldsParameter, path: tuple[str, ...]
    ) -> FieldSet:
        """Return the requested fields of a nested model; path is the path to the model."""
        if not mask.whole:
            return self._choose_fields(mask, parameter, path)
        # The default fields of the model are one level deeper than the model.
        if len(path) >= parameter.max_depth:
            raise too_deep_error(parameter.parameter, parameter.max_depth)
        if not mask.names:
            return self._default
        return self._union(self._default, self._choose_fields(mask, parameter, path))

    def _union(self, one: FieldSet, other: FieldSet) -> FieldSet:
        """Return the fields that are in at least one of two sets."""
        left, right = dict(one.members), dict(other.members)
        members: list[tuple[Field, FieldSet | None]] = []
        for field in self._fields.values():
            if field in left or field in right:
                first, second = left.get(field), right.get(field)
                if field.relation is not None and first is not None and second is not None:
                    members.append((field, field.relation._union(first, second)))
                else:
                    members.append((field, first or second))
        return FieldSet(tuple(members), self)


def _to_nested_allowed_fields(
    nested_model: type | AllowedFields | None, wildcard: bool, existing: _AllowedByModelId
) -> AllowedFields | None:
    """Return the list of fields of a nested model; None if there is no model."""
    if nested_model is None or isinstance(nested_model, AllowedFields):
        return nested_model
    if id(nested_model) in existing:
        return existing[id(nested_model)]
    nested = AllowedFields.__new__(AllowedFields)
    nested._initialize(nested_model, {}, {}, (), wildcard, existing)
    nested._default = nested._select_flat_fields()
    return nested


def select_same_fields(chosen: FieldSet, allowed: AllowedFields) -> FieldSet:
    """Return the set of those allowed fields that have the names of the chosen ones.

    Chosen fields that are not allowed are dropped.
    """
    members: list[tuple[Field, FieldSet | None]] = []
    for field, inner in chosen.members:
        kept = allowed.fields.get(field.name)
        if kept is not None:
            left = (
                select_same_fields(inner, kept.relation)
                if kept.relation and inner is not None
                else None
            )
            members.append((kept, left))
    return FieldSet(tuple(members), allowed)


def _unknown_fields_error(
    parameter: str, unknown: Sequence[tuple[str, AllowedFields]]
) -> InvalidParameter:
    """Return the error for unknown names. See `AllowedFields._find_unknown_names`."""
    paths = [repr(path[:100]) for path, _ in unknown[:_MAX_UNKNOWN_SHOWN]]
    more = " and more" if len(unknown) > _MAX_UNKNOWN_SHOWN else ""
    first, where = unknown[0]
    within = f" in {first.rpartition('.')[0]}" if "." in first else ""
    names = list(where.fields)
    shown = ", ".join(names[:MAX_SHOWN]) + (", …" if len(names) > MAX_SHOWN else "")
    return InvalidParameter(
        parameter,
        None,
        f"no such field: {', '.join(paths)}{more}; allowed fields{within} are {shown}",
        code="unknown_name",
        allowed=names[:MAX_SHOWN],
    )


def _check_names(
    model_fields: Sequence[_ModelField],
    needs: Mapping[str, Sequence[str]],
    expand: Mapping[str, AllowedFields],
    opaque: Collection[str],
) -> None:
    """Raise `InvalidOption` for invalid field names, and for options that name unknown fields."""
    names = [part.name for part in model_fields]
    for option, used in (("needs", needs), ("expand", expand), ("opaque", opaque)):
        for name in used:
            if name not in names:
                raise InvalidOption(option, name, f"a field of the schema: {', '.join(names)}")
    for name, given in expand.items():
        value: object = given
        if not isinstance(value, AllowedFields):
            raise InvalidOption(f"expand[{name!r}]", value, "an AllowedFields")
    for name in names:
        if (
            not name
            or name == EVERY
            or name.strip(" ") != name
            or RESERVED_CHARS.intersection(name)
        ):
            raise InvalidOption(
                "fields", name, "a name that is not empty, has no spaces around it and no ,().*"
            )
        if names.count(name) > 1:
            raise InvalidOption("fields", name, "a name that no other field has")
    for name, attributes in needs.items():
        if isinstance(attributes, str) or not all(isinstance(each, str) for each in attributes):
            raise InvalidOption(f"needs[{name!r}]", attributes, "a sequence of attribute names")


_AllowedByModelId = dict[int, AllowedFields]
"""The lists of fields that exist already, by ``id()`` of their model."""


class _FieldsParameter(NamedTuple):
    """The name of the ``fields=`` parameter and its depth limit, for error messages."""

    parameter: str
    max_depth: int


# The fields of models -----------------------------------------------------------------------------


class _ModelField(NamedTuple):
    """A field as the model declares it."""

    name: str
    attribute: str
    kind: Any
    """The annotation; None if it is unknown."""
    is_computed: bool = False
    is_conditional: bool = False


class ResolvedModelField(NamedTuple):
    """A field of a model, and the nested model in its annotation.

    `Partial` needs it to create the pydantic schema of the model.
    """

    name: str
    """The public name, which is used in JSON."""
    attribute: str
    nested: type | None
    """The nested model; None if the field is a single value."""
    many: bool
    """Whether the field is a list of nested models."""


def iter_resolved_model_fields(model: type) -> Iterator[ResolvedModelField]:
    """Iterate over the fields of a model."""
    for part in _read_fields(model):
        to, many = _find_nested_model(part.kind)
        yield ResolvedModelField(
            part.name, part.attribute, to if isinstance(to, type) else None, many
        )


def _read_fields(schema: object) -> Iterable[_ModelField]:
    """Return the fields of a schema: a model, names, or a mapping. See `AllowedFields`."""
    if isinstance(schema, Mapping):
        return [_to_model_field(name, value) for name, value in schema.items()]
    if isinstance(schema, type):
        if (read := _find_reader(schema)) is not None:
            return read(schema)
    elif isinstance(schema, Sequence) and not isinstance(schema, str | bytes):
        return [_to_model_field(name, name) for name in schema]
    raise InvalidOption(
        "schema",
        schema,
        "a model (pydantic, msgspec, dataclass, attrs, TypedDict), a sequence of field names, or a "
        "mapping from field names to attribute names, models or AllowedFields",
    )


def _to_model_field(name: object, value: object) -> _ModelField:
    """Return the field for a name and its value in a mapping."""
    if not isinstance(name, str):
        raise InvalidOption(
            f"schema[{name!r}]", value, "under a key that is a string: a field name"
        )
    if isinstance(value, str):
        return _ModelField(name, value, None)
    if _find_nested_model(value).to is None:
        raise InvalidOption(
            f"schema[{name!r}]", value, "the name of an attribute, a model or an AllowedFields"
        )
    return _ModelField(name, name, value)


def _find_reader(model: type) -> Callable[[Any], Iterable[_ModelField]] | None:
    """Return the function that reads the fields of a class; None if it is not a model."""
    for mark, read in _READERS:
        if hasattr(model, mark):
            return read
    return None


def _reject_table(model: Any) -> Iterable[_ModelField]:
    raise InvalidOption(
        "schema",
        model,
        "a model of the response, or the names of the fields to show, because a mapped table would "
        "show all of its columns",
    )


def _read_pydantic(model: Any) -> Iterator[_ModelField]:
    if not getattr(model, "__pydantic_complete__", True):
        _resolve_annotations(model, getattr(model, "model_rebuild", lambda: None))
    # Before pydantic 2.10, models only had the attribute model_fields.
    fields = getattr(model, "__pydantic_fields__", None) or model.model_fields
    for name, info in fields.items():
        # A field that the model excludes from its JSON cannot be requested.
        if info.exclude is not True and not getattr(info, "init_var", None):
            public = info.serialization_alias or name
            yield _ModelField(public, name, info.annotation, is_conditional=has_exclude_if(info))
    for name, computed in model.__pydantic_decorators__.computed_fields.items():
        info = computed.info
        yield _ModelField(
            info.alias or name, name, None, is_computed=True, is_conditional=has_exclude_if(info)
        )


def is_shown_in_every_row(name: str, allowed: AllowedFields) -> bool:
    """Return whether this field is allowed, and no row omits it because of ``exclude_if``."""
    field = allowed.fields.get(name)
    return field is not None and not field.is_conditional


def has_exclude_if(info: Any) -> bool:
    """Return whether a pydantic field has the option ``exclude_if``."""
    # It exists since pydantic 2.12; for computed fields since a later version.
    return getattr(info, "exclude_if", None) is not None


def _read_msgspec(model: Any) -> Iterator[_ModelField]:
    hints = _type_hints(model)
    for name, public in zip(model.__struct_fields__, model.__struct_encode_fields__, strict=True):
        yield _ModelField(public, name, hints.get(name))


def _read_attrs(model: Any) -> Iterator[_ModelField]:
    hints = _type_hints(model)
    for attribute in model.__attrs_attrs__:
        yield _ModelField(attribute.name, attribute.name, hints.get(attribute.name))


def _read_dataclass(model: Any) -> Iterator[_ModelField]:
    hints = _type_hints(model)
    for each in dataclasses.fields(model):
        yield _ModelField(each.name, each.name, hints.get(each.name))


def _read_typed_dict(model: Any) -> Iterator[_ModelField]:
    for name, kind in _type_hints(model).items():
        yield _ModelField(name, name, kind)


# A model is recognized by having an attribute; the first match is used. Mapped tables come first,
# because a mapped class can be a dataclass as well.
_READERS: Final[Sequence[tuple[str, Callable[[Any], Iterable[_ModelField]]]]] = (
    ("__mapper__", _reject_table),
    ("__table__", _reject_table),
    ("__pydantic_decorators__", _read_pydantic),
    ("__struct_fields__", _read_msgspec),
    ("__attrs_attrs__", _read_attrs),
    ("__dataclass_fields__", _read_dataclass),
    ("__required_keys__", _read_typed_dict),
)


def _type_hints(model: Any) -> dict[str, Any]:
    return _resolve_annotations(model, lambda: typing.get_type_hints(model))


def _resolve_annotations(model: Any, resolve: Callable[[], R]) -> R:
    """Call resolve. Raises `InvalidOption` if an annotation of the model has an undefined name."""
    try:
        return resolve()
    except NameError as exc:
        raise InvalidOption(
            "schema",
            model.__qualname__,
            f"a model whose annotations can be resolved ({exc}): import the missing name in the "
            "module of the model",
        ) from exc


# Models in annotations ----------------------------------------------------------------------------


class _NestedModel(NamedTuple):
    """The nested model of a field, if it has one."""

    to: type | AllowedFields | None
    many: bool
    """Whether the field is a list of this model."""


_NOT_NESTED: Final = _NestedModel(None, many=False)

_LISTS: Final = (list, tuple, set, frozenset, Sequence, Collection, Iterable, MutableSequence)


def _find_nested_model(annotation: Any) -> _NestedModel:
    """Return the model in an annotation such as ``Post``, ``Post | None`` or ``list[Post]``."""
    annotation = getattr(annotation, "__value__", annotation)  # type Name = ...
    match annotation:
        case AllowedFields():
            return _NestedModel(annotation, many=False)
        case [one]:
            return _find_nested_model(one)._replace(many=True)
        case type() if get_origin(annotation) is None:
            # A RootModel of pydantic is a single value, and BaseModel itself has no fields.
            is_model = not getattr(annotation, "__pydantic_root_model__", False) and _find_reader(
                annotation
            )
            is_base = annotation.__module__ == "pydantic.main"
            return _NestedModel(annotation, many=False) if is_model and not is_base else _NOT_NESTED
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _find_nested_model(arguments[0])
    if origin in (Union, types.UnionType):
        nested = {_find_nested_model(each) for each in arguments if each is not types.NoneType}
        return nested.pop() if len(nested) == 1 else _NOT_NESTED
    of_one_kind = [each for each in arguments if each is not Ellipsis]
    if origin in _LISTS and len(of_one_kind) == 1:
        return _find_nested_model(of_one_kind[0])._replace(many=True)
    return _NOT_NESTED
