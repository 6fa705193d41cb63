"""Build the values of a JSON response from rows, and validate only the values that need it.

Values from a database already have a type. If the column and the annotation of a field have the
same type, and the JSON encoder writes this type as the model would (see `_PLAIN`), the value is
used unchanged. The other fields pass through the validators and serializers of the model, one by
one. How each field is built is decided when the application starts.

The JSON is the same as that of the model, except that floats from 1e16 on have another notation of
the exponent.
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
from hasten.fields._allowed import AllowedFields, Field, has_exclude_if

Values = dict[str, object]
"""The values of one row by attribute name, or the built fields by public name."""

Compute = Mapping[Field, Callable[..., object]]
"""The functions of computed fields. A function is called with the attributes in ``field.needs``."""


class BuildFields(Protocol):
    """A function that builds fields, by public name, from the values of a row.

    If the row was read from an instance of the model, it is passed as instance. It is not validated
    again. A field that the model excludes from its JSON is missing in the result.
    """

    def __call__(self, row: Values, instance: object = None, /) -> Values: ...


_encoder: Final = msgspec.json.Encoder()


def encode(content: object) -> bytes:
    """Encode a row, a list of rows, or an envelope around them as JSON."""
    return _encoder.encode(content)


@dataclass(frozen=True, slots=True, eq=False)
class FieldBuilder:
    """Makes the functions that build the fields of one model from the values of a row.

    A field is called plain if its value is used unchanged, computed if a function of the
    application returns its value; other values pass through the model.
    """

    model: Any
    """The pydantic model; None if the fields have another model or none."""
    through_model: frozenset[Field]
    """The fields whose values pass through the validators and serializers of the model."""
    computed: Compute

    def is_used_unchanged(self, field: Field) -> bool:
        """Return whether the value of a field is used unchanged."""
        return field not in self.through_model and field not in self.computed

    def make_build_function(self, fields: Collection[Field]) -> BuildFields | None:
        """Return the function that builds those of these fields that are not plain.

        Returns None if all of them are plain.
        """
        through_model = [field for field in fields if field in self.through_model]
        computed = [
            (field.name, field.needs, self.computed[field])
            for field in fields
            if field in self.computed
        ]
        if not through_model and not computed:
            return None
        build_validated = (
            _make_model_build_function(self.model, through_model, self._validated_attributes())
            if through_model
            else None
        )

        def build(row: Values, instance: object = None, /) -> Values:
            made = build_validated(row, instance) if build_validated else {}
            for name, needs, function in computed:
                made[name] = function(*[row[need] for need in needs])
            return made

        return build

    def _validated_attributes(self) -> frozenset[str]:
        return frozenset(field.attribute for field in self.through_model if not field.is_computed)


def make_field_builder(
    allowed: AllowedFields, attribute_types: Mapping[str, type | None], computed: Compute
) -> FieldBuilder:
    """Decide how each field is built.

    attribute_types has the type of each attribute's values, or None where it is unknown. computed
    has the functions of computed fields. Raises `InvalidOption` if a field cannot be built without
    the fields that a request leaves out.
    """
    fields = [field for field in allowed.fields.values() if field.relation is None]
    own_computed = {field: computed[field] for field in fields if field in computed}
    model: Any = allowed.model
    if model is None or not hasattr(model, "__pydantic_decorators__"):
        if model is not None:
            _reject_ineffective_pydantic_options(model, allowed)
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
    customized = _attributes_with_rules(model)
    through_model = frozenset(
        field
        for field in fields
        if field not in own_computed
        and (
            field.is_computed or not _is_usable_unchanged(model, field, attribute_types, customized)
        )
    )
    _check_can_build_fields(model, through_model)
    return FieldBuilder(model, through_model, own_computed)


# Through the model --------------------------------------------------------------------------------


def _make_model_build_function(
    model: Any, fields: Sequence[Field], validated_attributes: frozenset[str]
) -> BuildFields:
    """Return a function that validates and serializes these fields with a pydantic model.

    validated_attributes are the names of the attributes to validate. The others are only inputs
    of computed fields.
    """
    order = list(_field_infos(model))
    needs = {need for field in fields for need in field.needs}
    attributes = [(name, name in validated_attributes) for name in order if name in needs]
    included = {field.attribute for field in fields}
    check = model.__pydantic_validator__.validate_assignment
    dump = model.__pydantic_serializer__.to_python

    def build(row: Values, instance: object = None, /) -> Values:
        if instance is not None:
            found: Values = dump(instance, mode="json", by_alias=True, include=included)
            return found
        one = model.model_construct()
        # Remove the defaults, so that no field is computed from an attribute that was not read.
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
    """Raise `InvalidOption` if the model can only be serialized with all of its fields."""
    for name in _iter_whole_model_rules(model):
        raise InvalidOption(
            "schema",
            model,
            f"a model without {name!r}: a rule for the whole model cannot run when only some "
            "fields are requested; use field_validator, field_serializer or computed_field",
        )
    config = _model_config(model)
    if getattr(model, "__pydantic_root_model__", False):
        raise InvalidOption("schema", model, "a model with fields, which a RootModel does not have")
    if config.get("extra") == "allow":
        raise InvalidOption(
            "schema",
            model,
            "a model that declares all of its fields: set extra='ignore' in its model_config",
        )
    if config.get("ser_json_inf_nan", "null") != "null":
        raise InvalidOption(
            "schema",
            model,
            "a model without ser_json_inf_nan, because NaN and infinity are always written as null",
        )
    if config.get("polymorphic_serialization"):
        raise InvalidOption(
            "schema",
            model,
            "a model without polymorphic_serialization, because fields of its subclasses are not "
            "known",
        )
    customized = _attributes_with_rules(model)
    for field in allowed.fields.values():
        if field.relation is None:
            continue
        info = _field_infos(model).get(field.attribute)
        has_effect = any(
            _may_change_value(each) for each in _iter_metadata(info) if each is not info
        )
        if field.attribute in customized or field.is_conditional or has_effect:
            raise InvalidOption(
                "schema",
                model,
                f"a model without validator, serializer or exclude_if for {field.name!r}, because "
                f"clients can request single fields of it: to show it only as a whole, use "
                f"opaque=({field.name!r},)",
            )


def _iter_whole_model_rules(model: Any) -> Iterator[str]:
    """Yield the names of the validators and serializers that need all fields of the model."""
    decorators = model.__pydantic_decorators__
    for kind in ("model_validators", "root_validators", "model_serializers"):
        yield from getattr(decorators, kind)
    for name in ("model_post_init", "__get_pydantic_core_schema__"):
        # Pydantic itself defines functions with these names, for example for private attributes.
        found = getattr(model, name, None)
        if found is not None and not found.__module__.startswith("pydantic."):
            yield name


def _reject_ineffective_pydantic_options(model: Any, allowed: AllowedFields) -> None:
    """Raise `InvalidOption` if a class that is not a BaseModel has options of pydantic.

    Such options, for example validators in ``Annotated``, would be ignored.
    """
    hints = get_type_hints(model, include_extras=True)
    config = getattr(model, "__pydantic_config__", {})
    matters = config.get("extra") == "allow" or config.keys() - _HARMLESS
    matters = matters or "alias_generator" in config
    defaults = getattr(model, "__dataclass_fields__", {})
    for field in allowed.fields.values():
        metadata = [*_iter_metadata(hints.get(field.attribute))]
        default = getattr(defaults.get(field.attribute), "default", None)
        if _is_field_info(default):
            metadata += _iter_metadata(default)
        if field.relation is None:
            metadata += _iter_leaf_types(hints.get(field.attribute))
        if matters or any(map(_may_change_value, metadata)):
            raise InvalidOption(
                "schema",
                model,
                f"a pydantic BaseModel, because pydantic's options for {field.name!r} have no "
                "effect in other classes",
            )


def _iter_metadata(annotation: Any) -> Iterator[object]:
    """Yield the metadata in an annotation: arguments of ``Annotated``, and pydantic's FieldInfo."""
    if _is_field_info(annotation):
        yield annotation
        yield from annotation.metadata
        annotation = annotation.annotation
    annotation = getattr(annotation, "__value__", annotation)  # type Name = ...
    if get_origin(annotation) is Annotated:
        for each in annotation.__metadata__:
            yield from _iter_metadata(each) if _is_field_info(each) else (each,)
    for inner in get_args(annotation):
        if get_origin(inner) is not None or hasattr(inner, "__value__"):
            yield from _iter_metadata(inner)


def _is_field_info(annotation: object) -> bool:
    return (
        type(annotation).__name__ == "FieldInfo"
        and type(annotation).__module__ == "pydantic.fields"
    )


def _iter_leaf_types(annotation: Any) -> Iterator[type]:
    """Yield the classes in an annotation: int and str for ``dict[str, list[int]]``."""
    annotation = getattr(annotation, "__value__", annotation)
    if isinstance(annotation, type) and get_origin(annotation) is None:
        yield annotation
    for inner in get_args(annotation):
        yield from _iter_leaf_types(inner)


def _may_change_value(metadata: Any) -> bool:
    """Return whether metadata may change a value, rename it, or exclude it from the JSON."""
    if _is_field_info(metadata):
        return bool(metadata.exclude or has_exclude_if(metadata) or metadata.serialization_alias)
    if hasattr(metadata, "__is_annotated_types_grouped_metadata__"):
        return any(map(_may_change_value, metadata))
    if type(metadata).__name__ == "_PydanticGeneralMetadata":
        return not _is_constraint(metadata)
    return hasattr(metadata, "__get_pydantic_core_schema__")


def _check_can_build_fields(model: Any, fields: Collection[Field]) -> None:
    """Raise `InvalidOption` if the model cannot build these fields from only their `needs`."""
    for field in fields:
        if not hasattr(model, "model_construct"):
            raise InvalidOption(
                "schema",
                model,
                f"a BaseModel, because a dataclass cannot validate {field.name!r} without all "
                "other fields",
            )
        for need in field.needs:
            if need not in _field_infos(model):
                raise InvalidOption(
                    f"needs[{field.name!r}]",
                    need,
                    f"a field of {model.__qualname__}: declare it with Field(exclude=True), or "
                    f"pass compute={{{field.name!r}: …}}",
                )
        info = _field_infos(model).get(field.attribute)
        if info is not None and (info.frozen or _model_config(model).get("frozen")):
            raise InvalidOption(
                "schema",
                model,
                f"a model whose field {field.name!r} is not frozen, because single fields are "
                "validated by assigning them",
            )


# Values that are used unchanged -------------------------------------------------------------------

_PLAIN: Final = frozenset({str, int, float, bool, datetime, date, time, Decimal, UUID})
"""The types that the JSON encoder writes as pydantic does by default."""

_CONSTRAINTS: Final = frozenset("Gt Ge Lt Le MultipleOf MinLen MaxLen Len Interval".split())
"""Classes of annotated_types that reject a value, but never change it."""

_CONSTRAINT_OPTIONS: Final = frozenset(
    "pattern strict max_digits decimal_places allow_inf_nan".split()
)
"""Options of a pydantic field that reject a value, but never change it."""

_HARMLESS: Final = frozenset(
    "alias_generator arbitrary_types_allowed cache_strings coerce_numbers_to_str defer_build extra "
    "field_title_generator from_attributes frozen hide_input_in_errors ignored_types "
    "json_schema_extra json_schema_serialization_defaults_required loc_by_alias "
    "model_title_generator populate_by_name protected_namespaces regex_engine "
    "revalidate_instances serialize_by_alias str_max_length str_min_length title "
    "use_attribute_docstrings validate_assignment validate_by_alias validate_by_name "
    "validate_default".split()
)
"""Options of a model's config that do not change how a value is written."""


def _field_infos(model: Any) -> Mapping[str, Any]:
    # Models have this attribute since pydantic 2.10. Dataclasses of pydantic always have it.
    fields: Mapping[str, Any] = getattr(model, "__pydantic_fields__", None) or model.model_fields
    return fields


def _model_config(model: Any) -> Mapping[str, Any]:
    config: Mapping[str, Any] = getattr(model, "model_config", None) or getattr(
        model, "__pydantic_config__", {}
    )
    return config


def _attributes_with_rules(model: Any) -> frozenset[str]:
    """Return the names of the attributes for which the model has validators or serializers."""
    decorators = model.__pydantic_decorators__
    rules = [
        rule
        for kind in ("validators", "field_validators", "field_serializers")
        for rule in getattr(decorators, kind).values()
    ]
    named = frozenset(name for rule in rules for name in rule.info.fields)
    return frozenset(_field_infos(model)) if "*" in named else named


def _is_usable_unchanged(
    model: Any,
    field: Field,
    attribute_types: Mapping[str, type | None],
    attributes_with_rules: Collection[str],
) -> bool:
    """Return whether the value of a field can be used unchanged, without the model."""
    if field.attribute in attributes_with_rules or not _HARMLESS.issuperset(_model_config(model)):
        return False
    info = _field_infos(model)[field.attribute]
    return (
        not field.is_conditional
        and all(map(_is_constraint, info.metadata))
        and _is_serialized_unchanged(info.annotation, attribute_types.get(field.attribute))
    )


def _is_constraint(rule: object) -> bool:
    """Return whether metadata of an annotation may reject a value, but never changes it."""
    kind = type(rule)
    if kind.__module__ == "annotated_types":
        return kind.__name__ in _CONSTRAINTS
    if kind.__name__ == "_PydanticGeneralMetadata":
        return _CONSTRAINT_OPTIONS.issuperset(vars(rule))
    return False


def _is_serialized_unchanged(annotation: Any, value_type: type | None) -> bool:
    """Return whether values of a type match an annotation, and are serialized unchanged."""
    if value_type is None:
        return False
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return all(map(_is_constraint, arguments[1:])) and _is_serialized_unchanged(
            arguments[0], value_type
        )
    if origin in (Union, types.UnionType):
        rest = [each for each in arguments if each is not types.NoneType]
        return len(rest) == 1 and _is_serialized_unchanged(rest[0], value_type)
    if origin is Literal:
        return all(type(each) is value_type and value_type in (str, int) for each in arguments)
    if annotation is dict or (origin is dict and arguments == (str, Any)):
        return value_type is dict
    if annotation is not value_type:
        return False
    return value_type in _PLAIN or _is_plain_enum(value_type)


def _is_plain_enum(value_type: type) -> bool:
    """Return whether a type is an Enum with str or int values, and has no pydantic schema."""
    if not issubclass(value_type, enum.Enum) or hasattr(value_type, "__get_pydantic_core_schema__"):
        return False
    return all(type(each.value) in (str, int) for each in value_type)


def get_annotations_by_attribute(model: Any) -> dict[str, Any]:
    """Return the annotation of each field of a model, computed ones too, by attribute name."""
    if not hasattr(model, "__pydantic_decorators__"):
        return get_type_hints(model, include_extras=True)
    computed = model.__pydantic_decorators__.computed_fields
    return {
        **{name: Annotated[info.annotation, info] for name, info in _field_infos(model).items()},
        **{name: each.info.return_type for name, each in computed.items()},
    }


def find_not_required_keys(model: Any) -> frozenset[str]:
    """Return the keys that a TypedDict does not require; an empty set for other models."""
    if not hasattr(model, "__optional_keys__"):
        return frozenset()
    hints = get_type_hints(model, include_extras=True)
    # Python does not add these keys to __optional_keys__ if the annotations are strings.
    marked = {name for name, kind in hints.items() if get_origin(kind) is NotRequired}
    return frozenset(model.__optional_keys__ | marked)


def find_value_types_by_attribute(model: Any) -> dict[str, type | None]:
    """Return the type that each attribute of a pydantic model is annotated with, None if unclear.

    Values of items in memory are assumed to have these types.
    """
    if not hasattr(model, "__pydantic_decorators__"):
        return {}
    return {name: _find_value_type(info.annotation) for name, info in _field_infos(model).items()}


def _find_value_type(annotation: Any) -> type | None:
    """Return the type in an annotation: int for ``int | None``; None if there are several."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _find_value_type(arguments[0])
    if origin in (Union, types.UnionType):
        rest = [each for each in arguments if each is not types.NoneType]
        return _find_value_type(rest[0]) if len(rest) == 1 else None
    if origin is Literal:
        return type(arguments[0])
    kind = origin or annotation
    # A dict in memory may contain values that JSON cannot: a model, bytes, a set.
    return kind if isinstance(kind, type) and kind is not dict else None
