"""The fields that a client may request: one list for SELECT, JSON, OpenAPI and sorting.

It is made from the model of the response (pydantic, msgspec, a dataclass, attrs, a TypedDict) or
from names, never from a table: columns are hidden unless they are listed. The names in it are the
public ones, with aliases and renames; a nested model is a relation. No library of models is
imported here: models are recognized by their attributes.

The error is the same for a hidden column, a misspelled name and a field that a role may not see.
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
from hasten.fields._mask import MARKS, MAX_DEPTH, MAX_NAMES, Mask, parse, too_deep

R = TypeVar("R")

MAX_SHOWN: Final = 50
"""How many allowed names are in an error."""

_MAX_UNKNOWN_SHOWN: Final = 10

EVERY: Final = "*"


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """One field that can be requested. It is only equal to itself."""

    name: str
    """The public name."""
    attribute: str
    """The name of the attribute: of the column, or of the relation."""
    needs: tuple[str, ...]
    """The attributes to select: its own, those it is computed from, or none for a relation."""
    relation: AllowedFields | None = None
    """The allowed fields of the related model; None for a plain value."""
    many: bool = False
    """Whether it leads to a list."""
    is_conditional: bool = False
    """Whether its value decides if a row shows it: ``exclude_if`` of pydantic."""

    @property
    def is_computed(self) -> bool:
        """Whether it is computed from other attributes."""
        return self.relation is None and self.needs != (self.attribute,)


@dataclass(frozen=True, slots=True, repr=False)
class FieldSet:
    """The requested fields, in the order of the model.

    Two requests for the same fields have equal sets, with equal hashes.
    """

    members: tuple[tuple[Field, FieldSet | None], ...]
    """Each field with the requested fields of its relation, None for a plain value."""
    allowed: AllowedFields = dataclasses.field(compare=False)
    """The list that the fields belong to."""

    @property
    def names(self) -> tuple[str, ...]:
        """The public names."""
        return tuple(field.name for field, _ in self.members)

    @property
    def needs(self) -> tuple[str, ...]:
        """The attributes to select, each once, without those of relations."""
        return tuple(dict.fromkeys(need for field, _ in self.members for need in field.needs))

    @property
    def relations(self) -> dict[Field, FieldSet]:
        """The requested fields of relations, by the field of the relation."""
        return {field: inner for field, inner in self.members if inner is not None}

    def __repr__(self) -> str:
        return f"FieldSet({str(self)!r})"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _: object) -> Self:
        return self  # its fields are compared by identity

    def __str__(self) -> str:
        """Return the value of ``fields=`` for this set. Equal sets have the same text."""
        return ",".join(
            field.name if inner is None else f"{field.name}({inner})"
            for field, inner in self.members
        )


class AllowedFields:
    """The fields that a client may request.

    schema is a model, a sequence of names, or a mapping from public names to attributes, nested
    models or other `AllowedFields` (in a list of one, if it leads to many). Raises `InvalidOption`
    for a wrong schema, and for a mapped table, which would show all its columns.

    - default: the fields of a request without ``fields=``, in the same notation ("id",
      "author(name)"); None for all plain values.
    - needs: the attributes that a field is computed from, by public name.
    - expand: other lists for nested models, by public name.
    - opaque: nested models that are one value (a JSON column), by public name.
    - wildcard: whether ``*`` requests all plain values.
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
        self._fill(schema, needs or {}, expand or {}, opaque, wildcard, {})
        self._default = self._plain()
        if default is not None:
            self._default = self._resolve_default(default)

    def __repr__(self) -> str:
        # Names only, because models may refer to each other.
        return f"{type(self).__name__}({', '.join(self._fields)})"

    @property
    def fields(self) -> Mapping[str, Field]:
        """All fields by public name, in the order of the model."""
        return types.MappingProxyType(self._fields)

    @property
    def model(self) -> type | None:
        """The model of the fields, None if they were given by name."""
        return self._model

    @property
    def default(self) -> FieldSet:
        """The fields of a request that does not choose."""
        return self._default

    def _chosen_by(
        self, mask: Mask | None, *, parameter: str = "fields", max_depth: int = MAX_DEPTH
    ) -> FieldSet:
        """Return the fields of a mask; None is the default. Raises `InvalidParameter`."""
        if mask is None:
            return self._default
        unknown = list(islice(self._unknown(mask, ""), _MAX_UNKNOWN_SHOWN + 1))
        if unknown:
            raise _refused(parameter, unknown)
        return self._choose(mask, _Request(parameter, max_depth), ())

    def parse(
        self,
        texts: Sequence[str],
        *,
        parameter: str = "fields",
        max_depth: int = MAX_DEPTH,
        max_names: int = MAX_NAMES,
    ) -> FieldSet:
        """Parse the values of the parameter; without values, return the default.

        Raises `InvalidParameter`.
        """
        if not texts:
            return self._default
        mask = parse(texts, parameter=parameter, max_depth=max_depth, max_names=max_names)
        return self._chosen_by(mask, parameter=parameter, max_depth=max_depth)

    def without(self, *paths: str) -> AllowedFields:
        """Return the list without these fields, as if they did not exist: for some roles.

        "author.email" removes the field from the list of author, wherever a client reaches it.
        Raises `InvalidOption` for an unknown field.
        """
        removed: dict[AllowedFields, set[str]] = {}
        for path in paths:
            *through, name = path.split(".")
            where: AllowedFields | None = self
            for step in through:
                field = where._fields.get(step) if where else None
                where = field.relation if field else None
            if where is None or name not in where._fields:
                raise InvalidOption("without", path, "a field that exists")
            removed.setdefault(where, set()).add(name)
        return self._copied_without(removed)

    def _is_made_from(self, other: AllowedFields) -> bool:
        """Return whether this is the other list, or was made from it by `without`."""
        one: AllowedFields | None = self
        while one is not None:
            if one is other or (one._is_copy and one._structure() == other._structure()):
                return True
            one = one._origin
        return False

    def paths(self, max_depth: int = 2) -> Iterator[str]:
        """Iterate over all paths up to a depth: ``id``, ``author``, ``author.name``."""
        for field in self._fields.values():
            if field.relation is None:
                yield field.name
            elif max_depth > 1:
                yield field.name
                for path in field.relation.paths(max_depth - 1):
                    yield f"{field.name}.{path}"

    # Copies --------------------------------------------------------------------------------------
    #
    # A set of fields that comes from another process has its own list, which is compared by
    # structure. Within a process, copies of a set share the list.

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

    def _structure(self) -> list[list[object]]:
        """Return the list and all lists that it refers to, as plain values."""
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

    def _fill(
        self,
        source: object,
        needs: Mapping[str, Sequence[str]],
        expand: Mapping[str, AllowedFields],
        opaque: Collection[str],
        wildcard: bool,
        known: _Known,
    ) -> None:
        # Known before it is complete, because models may refer to each other.
        known[id(source)] = self
        self._origin: AllowedFields | None = None
        self._is_copy = False
        self._wildcard = wildcard
        self._model = source if isinstance(source, type) else None
        self._fields: dict[str, Field] = {}
        model_fields = list(_read(source))
        _check_names(model_fields, needs, expand, opaque)
        nested = {
            part.name: _NOWHERE if part.name in opaque else _nested(part.kind)
            for part in model_fields
        }
        # A list in expand is used wherever its model appears.
        for name, given in expand.items():
            known.setdefault(id(nested[name].to), given)
        for part in model_fields:
            to, many = nested[part.name]
            relation = expand.get(part.name) or _nested_list(to, wildcard, known)
            if relation is not None:
                wanted: tuple[str, ...] = ()
            elif part.name in needs:
                wanted = tuple(needs[part.name])
            elif part.is_computed:
                raise InvalidOption(
                    "needs",
                    dict(needs),
                    f"a mapping that names what the computed field {part.name!r} needs: "
                    f"{{{part.name!r}: ('first', 'last')}}; for a nested model use expand=",
                )
            else:
                wanted = (part.attribute,)
            self._fields[part.name] = Field(
                part.name, part.attribute, wanted, relation, many, part.is_conditional
            )

    def _plain(self) -> FieldSet:
        return FieldSet(
            tuple((field, None) for field in self._fields.values() if field.relation is None), self
        )

    def _resolve_default(self, default: Iterable[str]) -> FieldSet:
        texts = [default] if isinstance(default, str) else list(default)
        try:
            return self._chosen_by(parse(texts, parameter="default"), parameter="default")
        except InvalidParameter as error:
            raise InvalidOption("default", texts, f"fields that exist: {error}") from None

    def _copied_without(self, removed: Mapping[AllowedFields, Collection[str]]) -> AllowedFields:
        # All lists are copied, because each may refer to one that changes.
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
            twin._default = moved(one._default, twin)
        return twins[self]

    # Choosing ------------------------------------------------------------------------------------

    def _unknown(self, mask: Mask, path: str) -> Iterator[tuple[str, AllowedFields]]:
        """Yield the paths of names that do not exist, each with the list that was searched."""
        for name, inner in mask.names.items():
            field = self._fields.get(name)
            if field is None:
                if not (name == EVERY and self._wildcard and not inner.names):
                    yield path + name, self
            elif field.relation is not None:
                yield from field.relation._unknown(inner, f"{path}{name}.")

    def _choose(self, mask: Mask, request: _Request, within: tuple[str, ...]) -> FieldSet:
        chosen: list[tuple[Field, FieldSet | None]] = []
        every = EVERY in mask.names
        for name, field in self._fields.items():
            inner = mask.names.get(name)
            if field.relation is not None:
                if inner is not None:
                    path = (*within, name)
                    chosen.append((field, field.relation._choose_within(inner, request, path)))
            elif inner is not None and inner.names:
                raise InvalidParameter(
                    request.parameter,
                    ".".join((*within, name)),
                    "it has no fields: omit the names within it",
                    code="not_expandable",
                )
            elif inner is not None or every:
                chosen.append((field, None))
        return FieldSet(tuple(chosen), self)

    def _choose_within(self, mask: Mask, request: _Request, path: tuple[str, ...]) -> FieldSet:
        if not mask.whole:
            return self._choose(mask, request, path)
        # Its default fields are one level deeper than its name.
        if len(path) >= request.max_depth:
            raise too_deep(request.parameter, request.max_depth)
        if not mask.names:
            return self._default
        return self._united(self._default, self._choose(mask, request, path))

    def _united(self, one: FieldSet, other: FieldSet) -> FieldSet:
        left, right = dict(one.members), dict(other.members)
        members: list[tuple[Field, FieldSet | None]] = []
        for field in self._fields.values():
            if field in left or field in right:
                first, second = left.get(field), right.get(field)
                if field.relation is not None and first is not None and second is not None:
                    members.append((field, field.relation._united(first, second)))
                else:
                    members.append((field, first or second))
        return FieldSet(tuple(members), self)


def _nested_list(
    to: type | AllowedFields | None, wildcard: bool, known: _Known
) -> AllowedFields | None:
    if to is None or isinstance(to, AllowedFields):
        return to
    if id(to) in known:
        return known[id(to)]
    nested = AllowedFields.__new__(AllowedFields)
    nested._fill(to, {}, {}, (), wildcard, known)
    nested._default = nested._plain()
    return nested


def moved(chosen: FieldSet, allowed: AllowedFields) -> FieldSet:
    """Return the set in the fields of another list, without fields that it does not have."""
    members: list[tuple[Field, FieldSet | None]] = []
    for field, inner in chosen.members:
        kept = allowed.fields.get(field.name)
        if kept is not None:
            left = moved(inner, kept.relation) if kept.relation and inner is not None else None
            members.append((kept, left))
    return FieldSet(tuple(members), allowed)


def _refused(parameter: str, unknown: Sequence[tuple[str, AllowedFields]]) -> InvalidParameter:
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
    names = [part.name for part in model_fields]
    for option, used in (("needs", needs), ("expand", expand), ("opaque", opaque)):
        for name in used:
            if name not in names:
                raise InvalidOption(option, name, f"a field that exists: {', '.join(names)}")
    for name, given in expand.items():
        value: object = given
        if not isinstance(value, AllowedFields):
            raise InvalidOption(f"expand[{name!r}]", value, "an AllowedFields")
    for name in names:
        if not name or name == EVERY or name.strip(" ") != name or MARKS.intersection(name):
            raise InvalidOption(
                "fields", name, "a name without surrounding spaces, and without ,().*"
            )
        if names.count(name) > 1:
            raise InvalidOption("fields", name, "a different name for each field")
    for name, attributes in needs.items():
        if isinstance(attributes, str) or not all(isinstance(each, str) for each in attributes):
            raise InvalidOption(f"needs[{name!r}]", attributes, "a sequence of names")


_Known = dict[int, AllowedFields]
"""The lists of models that refer to each other, by the id of the model."""


class _Request(NamedTuple):
    parameter: str
    max_depth: int


# The fields of models -----------------------------------------------------------------------------


class _ModelField(NamedTuple):
    name: str
    attribute: str
    kind: Any
    is_computed: bool = False
    is_conditional: bool = False


class Member(NamedTuple):
    """One field of a model."""

    name: str
    """The name in JSON."""
    attribute: str
    nested: type | None
    """The model of a relation."""
    many: bool


def members_of(model: type) -> Iterator[Member]:
    """Iterate over the fields of a model, for its schema."""
    for part in _read(model):
        to, many = _nested(part.kind)
        yield Member(part.name, part.attribute, to if isinstance(to, type) else None, many)


def _read(source: object) -> Iterable[_ModelField]:
    if isinstance(source, Mapping):
        return [_named(name, value) for name, value in source.items()]
    if isinstance(source, type):
        if (read := _reader(source)) is not None:
            return read(source)
    elif isinstance(source, Sequence) and not isinstance(source, str | bytes):
        return [_named(name, name) for name in source]
    raise InvalidOption(
        "schema", source, "a model (pydantic, msgspec, dataclass, attrs, TypedDict) or names"
    )


def _named(name: object, value: object) -> _ModelField:
    if not isinstance(name, str):
        raise InvalidOption("schema", name, "the name of a field, as a string")
    if isinstance(value, str):
        return _ModelField(name, value, None)
    if _nested(value).to is None:
        raise InvalidOption(
            f"schema[{name!r}]", value, "the name of an attribute, a model or AllowedFields"
        )
    return _ModelField(name, name, value)


def _reader(model: type) -> Callable[[Any], Iterable[_ModelField]] | None:
    for mark, read in _READERS:
        if hasattr(model, mark):
            return read
    return None


def _read_table(model: Any) -> Iterable[_ModelField]:
    raise InvalidOption(
        "schema",
        model,
        "a model of the response, or the names of the fields to show: a mapped table would show "
        "all of its columns",
    )


def _read_pydantic(model: Any) -> Iterator[_ModelField]:
    if not getattr(model, "__pydantic_complete__", True):
        _or_explain(model, getattr(model, "model_rebuild", lambda: None))
    # Before 2.10 a model had its fields under this name only.
    fields = getattr(model, "__pydantic_fields__", None) or model.model_fields
    for name, info in fields.items():
        # A field that the model excludes from its JSON cannot be requested.
        if info.exclude is not True and not getattr(info, "init_var", None):
            public = info.serialization_alias or name
            yield _ModelField(public, name, info.annotation, is_conditional=is_conditional(info))
    for name, computed in model.__pydantic_decorators__.computed_fields.items():
        info = computed.info
        yield _ModelField(
            info.alias or name, name, None, is_computed=True, is_conditional=is_conditional(info)
        )


def is_shown(name: str, allowed: AllowedFields) -> bool:
    """Return whether each row shows the value of this field."""
    field = allowed.fields.get(name)
    return field is not None and not field.is_conditional


def is_conditional(info: Any) -> bool:
    """Return whether a field of pydantic has ``exclude_if``."""
    # From pydantic 2.12 on; for computed fields from a later version on.
    return getattr(info, "exclude_if", None) is not None


def _read_msgspec(model: Any) -> Iterator[_ModelField]:
    hints = _hints(model)
    for name, public in zip(model.__struct_fields__, model.__struct_encode_fields__, strict=True):
        yield _ModelField(public, name, hints.get(name))


def _read_attrs(model: Any) -> Iterator[_ModelField]:
    hints = _hints(model)
    for attribute in model.__attrs_attrs__:
        yield _ModelField(attribute.name, attribute.name, hints.get(attribute.name))


def _read_dataclass(model: Any) -> Iterator[_ModelField]:
    hints = _hints(model)
    for each in dataclasses.fields(model):
        yield _ModelField(each.name, each.name, hints.get(each.name))


def _read_typed_dict(model: Any) -> Iterator[_ModelField]:
    for name, kind in _hints(model).items():
        yield _ModelField(name, name, kind)


# Recognized by an attribute; the first one counts. A mapped table can be a dataclass, too.
_READERS: Final[Sequence[tuple[str, Callable[[Any], Iterable[_ModelField]]]]] = (
    ("__mapper__", _read_table),
    ("__table__", _read_table),
    ("__pydantic_decorators__", _read_pydantic),
    ("__struct_fields__", _read_msgspec),
    ("__attrs_attrs__", _read_attrs),
    ("__dataclass_fields__", _read_dataclass),
    ("__required_keys__", _read_typed_dict),
)


def _hints(model: Any) -> dict[str, Any]:
    return _or_explain(model, lambda: typing.get_type_hints(model))


def _or_explain(model: Any, resolve: Callable[[], R]) -> R:
    try:
        return resolve()
    except NameError as exc:
        raise InvalidOption(
            "schema",
            model.__qualname__,
            f"a model whose annotations can be resolved ({exc}): import the names in its module",
        ) from exc


# Models in annotations ----------------------------------------------------------------------------


class _NestedModel(NamedTuple):
    to: type | AllowedFields | None
    many: bool


_NOWHERE: Final = _NestedModel(None, many=False)

_LISTS: Final = (list, tuple, set, frozenset, Sequence, Collection, Iterable, MutableSequence)


def _nested(kind: Any) -> _NestedModel:
    """Return the model in an annotation: alone, optional or in a list."""
    kind = getattr(kind, "__value__", kind)  # type Name = ...
    match kind:
        case AllowedFields():
            return _NestedModel(kind, many=False)
        case [one]:
            return _nested(one)._replace(many=True)
        case type() if get_origin(kind) is None:
            # Neither a RootModel of pydantic, which is one value, nor BaseModel itself.
            is_model = not getattr(kind, "__pydantic_root_model__", False) and _reader(kind)
            is_base = kind.__module__ == "pydantic.main"
            return _NestedModel(kind, many=False) if is_model and not is_base else _NOWHERE
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _nested(arguments[0])
    if origin in (Union, types.UnionType):
        nested = {_nested(each) for each in arguments if each is not types.NoneType}
        return nested.pop() if len(nested) == 1 else _NOWHERE
    of_one_kind = [each for each in arguments if each is not Ellipsis]
    if origin in _LISTS and len(of_one_kind) == 1:
        return _nested(of_one_kind[0])._replace(many=True)
    return _NOWHERE
