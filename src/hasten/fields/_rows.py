"""Build the values of a JSON response from rows, without validating them a second time.

Values of the database have their type already: if the type of the column and the annotation agree
on a type that the encoder writes as the model would (see `_PLAIN`), the value is used as it is. All
other fields go through the model one by one: its validators, then its serializers. Which fields do
is decided when the application starts.

One difference remains: floats from 1e16 on are written with another form of the same exponent.
"""

from __future__ import annotations

import enum
import types
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    NotRequired,
    Protocol,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)
from uuid import UUID

import msgspec

from hasten.errors import InvalidOption
from hasten.fields._allowed import AllowedFields, Field, is_conditional

Values = dict[str, object]
"""Attributes of one row, or the fields built from them."""

Compute = Mapping[Field, Callable[..., object]]
"""The functions of computed fields. Their arguments are the needs of the field, in order."""


class Build(Protocol):
    """Builds fields, by public name, from the attributes of a row.

    instance is the instance of the model that the row was read from, if there is one: it is valid
    already. A field that the model excludes from its JSON is missing in the result.
    """

    def __call__(self, row: Values, instance: object = None, /) -> Values: ...


_encoder: Final = msgspec.json.Encoder()


def encode(content: object) -> bytes:
    """Return the JSON of a row, a list of rows, or an envelope around them."""
    return _encoder.encode(content)


@dataclass(frozen=True, slots=True, eq=False)
class FieldBuilder:
    """Builds the fields of one list that are not plain attributes of a row."""

    model: Any
    """The pydantic model, None if there is none."""
    through_model: frozenset[Field]
    """Those that go through the validators and serializers of the model."""
    computed: Compute

    def is_plain(self, field: Field) -> bool:
        """Return whether the value of a field is used as it is."""
        return field not in self.through_model and field not in self.computed

    def of(self, fields: Collection[Field]) -> Build | None:
        """Return the function that builds these fields, None if all of them are plain."""
        through_model = [field for field in fields if field in self.through_model]
        computed = [
            (field.name, field.needs, self.computed[field])
            for field in fields
            if field in self.computed
        ]
        if not through_model and not computed:
            return None
        validated = (
            _through_model(self.model, through_model, self._checked()) if through_model else None
        )

        def build(row: Values, instance: object = None, /) -> Values:
            made = validated(row, instance) if validated else {}
            for name, needs, function in computed:
                made[name] = function(*[row[need] for need in needs])
            return made

        return build

    def _checked(self) -> frozenset[str]:
        return frozenset(field.attribute for field in self.through_model if not field.is_computed)


def field_builder(
    allowed: AllowedFields, kinds: Mapping[str, type | None], computed: Compute
) -> FieldBuilder:
    """Decide how each field is built. Raises `InvalidOption` if a field cannot be built alone.

    kinds holds the types of the values of attributes, None where the type is unknown.
    """
    fields = [field for field in allowed.fields.values() if field.relation is None]
    own_computed = {field: computed[field] for field in fields if field in computed}
    model: Any = allowed.model
    if model is None or not hasattr(model, "__pydantic_decorators__"):
        if model is not None:
            _check_no_pydantic(model, allowed)
        for field in fields:
            if field.is_computed and field not in own_computed:
                raise InvalidOption(
                    "compute",
                    None,
                    f"a function that computes {field.name!r} from {', '.join(field.needs)}: "
                    f"compute={{{field.name!r}: function}}",
                )
        return FieldBuilder(None, frozenset(), own_computed)
    _check_supports_partial(model, allowed)
    customized = _customized(model)
    through_model = frozenset(
        field
        for field in fields
        if field not in own_computed
        and (field.is_computed or not _is_plain(model, field, kinds, customized))
    )
    _check_needs(model, through_model)
    return FieldBuilder(model, through_model, own_computed)


# Through the model --------------------------------------------------------------------------------


def _through_model(model: Any, fields: Sequence[Field], checked: frozenset[str]) -> Build:
    order = list(_infos(model))
    needs = {need for field in fields for need in field.needs}
    attributes = [(name, name in checked) for name in order if name in needs]
    included = {field.attribute for field in fields}
    check = model.__pydantic_validator__.validate_assignment
    dump = model.__pydantic_serializer__.to_python

    def build(row: Values, instance: object = None, /) -> Values:
        if instance is not None:
            found: Values = dump(instance, mode="json", by_alias=True, include=included)
            return found
        one = model.model_construct()
        # Without defaults: a field must not be computed from an attribute that was not selected.
        one.__dict__.clear()
        for name, is_checked in attributes:
            if is_checked:
                check(one, name, row[name])
            else:
                one.__dict__[name] = row[name]
        made: Values = dump(one, mode="json", by_alias=True, include=included)
        return made

    return build


def _check_supports_partial(model: Any, allowed: AllowedFields) -> None:
    """Raise `InvalidOption` if a rule of the model needs all fields, also those not requested."""
    for name in _rules_for_all(model):
        raise InvalidOption(
            "schema",
            model,
            f"a model without {name!r}: a rule for the whole model cannot run when only some "
            "fields are requested; use field_validator, field_serializer or computed_field",
        )
    config = _config(model)
    if getattr(model, "__pydantic_root_model__", False):
        raise InvalidOption("schema", model, "a model with fields: a RootModel is one value")
    if config.get("extra") == "allow":
        raise InvalidOption(
            "schema",
            model,
            "a model that declares all of its fields: set extra='ignore' in its model_config",
        )
    if config.get("ser_json_inf_nan", "null") != "null":
        raise InvalidOption(
            "schema", model, "a model without ser_json_inf_nan: NaN and infinity are null in JSON"
        )
    if config.get("polymorphic_serialization"):
        raise InvalidOption(
            "schema",
            model,
            "a model without polymorphic_serialization: the fields of subclasses are not listed",
        )
    customized = _customized(model)
    for field in allowed.fields.values():
        if field.relation is None:
            continue
        info = _infos(model).get(field.attribute)
        acts = any(_acts(mark) for mark in _marks(info) if mark is not info)
        if field.attribute in customized or field.is_conditional or acts:
            raise InvalidOption(
                "schema",
                model,
                f"a model without validator, serializer or exclude_if for {field.name!r}, whose "
                f"fields can be requested: opaque=({field.name!r},) makes it one value",
            )


def _rules_for_all(model: Any) -> Iterator[str]:
    """Yield the names of the validators and serializers that handle all fields at once."""
    decorators = model.__pydantic_decorators__
    for kind in ("model_validators", "root_validators", "model_serializers"):
        yield from getattr(decorators, kind)
    for name in ("model_post_init", "__get_pydantic_core_schema__"):
        # pydantic itself has functions with these names, also for private attributes.
        found = getattr(model, name, None)
        if found is not None and not found.__module__.startswith("pydantic."):
            yield name


def _check_no_pydantic(model: Any, allowed: AllowedFields) -> None:
    """Raise `InvalidOption` for pydantic's options in a model that is not a pydantic model."""
    hints = get_type_hints(model, include_extras=True)
    config = getattr(model, "__pydantic_config__", {})
    matters = config.get("extra") == "allow" or config.keys() - _HARMLESS
    matters = matters or "alias_generator" in config
    defaults = getattr(model, "__dataclass_fields__", {})
    for field in allowed.fields.values():
        marks = [*_marks(hints.get(field.attribute))]
        default = getattr(defaults.get(field.attribute), "default", None)
        if _is_field_info(default):
            marks += _marks(default)
        if field.relation is None:
            marks += _leaf_types(hints.get(field.attribute))
        if matters or any(map(_acts, marks)):
            raise InvalidOption(
                "schema",
                model,
                f"a pydantic BaseModel: pydantic's options for {field.name!r} are not applied in "
                "other classes",
            )


def _marks(annotation: Any) -> Iterator[object]:
    """Yield the metadata of an annotation, and of pydantic's FieldInfo."""
    if _is_field_info(annotation):
        yield annotation
        yield from annotation.metadata
        annotation = annotation.annotation
    annotation = getattr(annotation, "__value__", annotation)  # type Name = ...
    if get_origin(annotation) is Annotated:
        for mark in annotation.__metadata__:
            yield from _marks(mark) if _is_field_info(mark) else (mark,)
    for inner in get_args(annotation):
        if get_origin(inner) is not None or hasattr(inner, "__value__"):
            yield from _marks(inner)


def _is_field_info(annotation: object) -> bool:
    return (
        type(annotation).__name__ == "FieldInfo"
        and type(annotation).__module__ == "pydantic.fields"
    )


def _leaf_types(annotation: Any) -> Iterator[type]:
    annotation = getattr(annotation, "__value__", annotation)
    if isinstance(annotation, type) and get_origin(annotation) is None:
        yield annotation
    for inner in get_args(annotation):
        yield from _leaf_types(inner)


def _acts(mark: Any) -> bool:
    """Return whether metadata may change a value, or exclude it from the JSON."""
    if _is_field_info(mark):
        return bool(mark.exclude or is_conditional(mark) or mark.serialization_alias)
    if hasattr(mark, "__is_annotated_types_grouped_metadata__"):
        return any(map(_acts, mark))
    if type(mark).__name__ == "_PydanticGeneralMetadata":
        return not _is_constraint(mark)
    return hasattr(mark, "__get_pydantic_core_schema__")


def _check_needs(model: Any, through_model: Collection[Field]) -> None:
    for field in through_model:
        if not hasattr(model, "model_construct"):
            raise InvalidOption(
                "schema",
                model,
                f"a BaseModel: a dataclass cannot build {field.name!r} without all other fields",
            )
        for need in field.needs:
            if need not in _infos(model):
                raise InvalidOption(
                    f"needs[{field.name!r}]",
                    need,
                    f"a field of {model.__qualname__}: declare {need} there with "
                    f"Field(exclude=True), or pass compute={{{field.name!r}: …}}",
                )
        info = _infos(model).get(field.attribute)
        if info is not None and (info.frozen or _config(model).get("frozen")):
            raise InvalidOption(
                "schema",
                model,
                f"a model whose {field.name!r} is not frozen: it has to be validated alone",
            )


# Which values need no model ----------------------------------------------------------------------

_PLAIN: Final = frozenset({str, int, float, bool, datetime, date, time, Decimal, UUID})
"""Types that the encoder writes as pydantic does by default."""

_CONSTRAINTS: Final = frozenset("Gt Ge Lt Le MultipleOf MinLen MaxLen Len Interval".split())
"""They reject a value, but never change it."""

_RULES: Final = frozenset("pattern strict max_digits decimal_places allow_inf_nan".split())

_HARMLESS: Final = frozenset(
    "alias_generator arbitrary_types_allowed cache_strings coerce_numbers_to_str defer_build extra "
    "field_title_generator from_attributes frozen hide_input_in_errors ignored_types "
    "json_schema_extra json_schema_serialization_defaults_required loc_by_alias "
    "model_title_generator populate_by_name protected_namespaces regex_engine "
    "revalidate_instances serialize_by_alias str_max_length str_min_length title "
    "use_attribute_docstrings validate_assignment validate_by_alias validate_by_name "
    "validate_default".split()
)
"""Settings of a model that do not change how a value is written."""


def _infos(model: Any) -> Mapping[str, Any]:
    # Before 2.10 a model had its fields under another name; a dataclass has them under this one.
    fields: Mapping[str, Any] = getattr(model, "__pydantic_fields__", None) or model.model_fields
    return fields


def _config(model: Any) -> Mapping[str, Any]:
    config: Mapping[str, Any] = getattr(model, "model_config", None) or getattr(
        model, "__pydantic_config__", {}
    )
    return config


def _customized(model: Any) -> frozenset[str]:
    """Return the attributes that have validators or serializers in the model."""
    decorators = model.__pydantic_decorators__
    rules = [
        rule
        for kind in ("validators", "field_validators", "field_serializers")
        for rule in getattr(decorators, kind).values()
    ]
    named = frozenset(name for rule in rules for name in rule.info.fields)
    return frozenset(_infos(model)) if "*" in named else named


def _is_plain(
    model: Any, field: Field, kinds: Mapping[str, type | None], customized: Collection[str]
) -> bool:
    if field.attribute in customized or not _HARMLESS.issuperset(_config(model)):
        return False
    info = _infos(model)[field.attribute]
    return (
        not field.is_conditional
        and all(map(_is_constraint, info.metadata))
        and _agree(info.annotation, kinds.get(field.attribute))
    )


def _is_constraint(rule: object) -> bool:
    kind = type(rule)
    if kind.__module__ == "annotated_types":
        return kind.__name__ in _CONSTRAINTS
    if kind.__name__ == "_PydanticGeneralMetadata":
        return _RULES.issuperset(vars(rule))
    return False


def _agree(annotation: Any, kind: type | None) -> bool:
    """Return whether values of this type match the annotation, and pydantic writes them as is."""
    if kind is None:
        return False
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return all(map(_is_constraint, arguments[1:])) and _agree(arguments[0], kind)
    if origin in (Union, types.UnionType):
        rest = [each for each in arguments if each is not types.NoneType]
        return len(rest) == 1 and _agree(rest[0], kind)
    if origin is Literal:
        return all(type(each) is kind and kind in (str, int) for each in arguments)
    if annotation is dict or (origin is dict and arguments == (str, Any)):
        return kind is dict
    if annotation is not kind:
        return False
    return kind in _PLAIN or _is_plain_enum(kind)


def _is_plain_enum(kind: type) -> bool:
    if not issubclass(kind, enum.Enum) or hasattr(kind, "__get_pydantic_core_schema__"):
        return False
    return all(type(each.value) in (str, int) for each in kind)


def annotations_of(model: Any) -> dict[str, Any]:
    """Return the annotation of each attribute and of each computed field."""
    if not hasattr(model, "__pydantic_decorators__"):
        return get_type_hints(model, include_extras=True)
    computed = model.__pydantic_decorators__.computed_fields
    return {
        **{name: Annotated[info.annotation, info] for name, info in _infos(model).items()},
        **{name: each.info.return_type for name, each in computed.items()},
    }


def optional_keys(model: Any) -> frozenset[str]:
    """Return the keys that may be missing in a dict of this TypedDict."""
    if not hasattr(model, "__optional_keys__"):
        return frozenset()
    hints = get_type_hints(model, include_extras=True)
    # Python does not see NotRequired in annotations that are strings.
    marked = {name for name, kind in hints.items() if get_origin(kind) is NotRequired}
    return frozenset(model.__optional_keys__ | marked)


def stated_kinds(model: Any) -> dict[str, type | None]:
    """Return the types of the annotations, which values in memory are assumed to have."""
    if not hasattr(model, "__pydantic_decorators__"):
        return {}
    return {name: _stated(info.annotation) for name, info in _infos(model).items()}


def _stated(annotation: Any) -> type | None:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _stated(arguments[0])
    if origin in (Union, types.UnionType):
        rest = [each for each in arguments if each is not types.NoneType]
        return _stated(rest[0]) if len(rest) == 1 else None
    if origin is Literal:
        return type(arguments[0])
    kind = origin or annotation
    # A dict in memory may hold values that are not JSON: a model, bytes, a set.
    return kind if isinstance(kind, type) and kind is not dict else None
