"""Rows become what the JSON of an answer holds, without being validated a second time.

What the database returns has its type already: a value whose column and whose annotation agree on
a type that the encoder writes as the model would (see `_PLAIN`) goes as it is. All others take
the model's own way, field by field: through its validators, then through its serializers. Which
way a field goes is decided when the application starts.

One difference is left: floats from 1e16 on are written with another form of the same exponent.
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
"""Attributes of one row, or the fields made of them."""

Compute = Mapping[Field, Callable[..., object]]
"""How fields that are no attributes are made, of their needs, in that order."""


class Make(Protocol):
    """Makes fields, by public name, of the attributes of a row.

    instance is what the row was read of, if that is an instance of the model: it is valid already.
    A field that the model leaves out of its JSON is missing in the result.
    """

    def __call__(self, row: Values, instance: object = None, /) -> Values: ...


_encoder: Final = msgspec.json.Encoder()


def encode(answer: object) -> bytes:
    """The JSON of what was read: a row, a list of rows, an envelope around them."""
    return _encoder.encode(answer)


@dataclass(frozen=True, slots=True, eq=False)
class Making:
    """How the fields of one list are made that are not plain attributes of a row."""

    model: Any
    """The pydantic model that has a say, None if there is none."""
    own_way: frozenset[Field]
    """Those that go through the model."""
    computed: Compute

    def is_plain(self, field: Field) -> bool:
        """The value goes as it comes."""
        return field not in self.own_way and field not in self.computed

    def maker(self, fields: Collection[Field]) -> Make | None:
        """What makes these fields. None if all are plain, and there is nothing to make."""
        own_way = [field for field in fields if field in self.own_way]
        computed = [
            (field.name, field.needs, self.computed[field])
            for field in fields
            if field in self.computed
        ]
        if not own_way and not computed:
            return None
        through = _through(self.model, own_way, self._checked()) if own_way else None

        def make(row: Values, instance: object = None, /) -> Values:
            made = through(row, instance) if through else {}
            for name, needs, function in computed:
                made[name] = function(*[row[need] for need in needs])
            return made

        return make

    def _checked(self) -> frozenset[str]:
        return frozenset(field.attribute for field in self.own_way if not field.is_computed)


def making(allowed: AllowedFields, kinds: Mapping[str, type | None], computed: Compute) -> Making:
    """Decide how each field is made. Raises `InvalidOption` for what cannot be made in part.

    kinds says of which type the values of an attribute are, None if nobody knows.
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
                    f"how to make {field.name!r} of {', '.join(field.needs)}: "
                    f"compute={{{field.name!r}: function}}",
                )
        return Making(None, frozenset(), own_computed)
    _check_divisible(model, allowed)
    told = _told(model)
    own_way = frozenset(
        field
        for field in fields
        if field not in own_computed
        and (field.is_computed or not _is_plain(model, field, kinds, told))
    )
    _check_needs(model, own_way)
    return Making(model, own_way, own_computed)


# The model's own way ------------------------------------------------------------------------------


def _through(model: Any, fields: Sequence[Field], checked: frozenset[str]) -> Make:
    order = list(_infos(model))
    needs = {need for field in fields for need in field.needs}
    attributes = [(name, name in checked) for name in order if name in needs]
    asked = {field.attribute for field in fields}
    check = model.__pydantic_validator__.validate_assignment
    dump = model.__pydantic_serializer__.to_python

    def make(row: Values, instance: object = None, /) -> Values:
        if instance is not None:
            found: Values = dump(instance, mode="json", by_alias=True, include=asked)
            return found
        one = model.model_construct()
        # Without defaults: what is made of an attribute that was not selected is no answer.
        one.__dict__.clear()
        for name, is_checked in attributes:
            if is_checked:
                check(one, name, row[name])
            else:
                one.__dict__[name] = row[name]
        made: Values = dump(one, mode="json", by_alias=True, include=asked)
        return made

    return make


def _check_divisible(model: Any, allowed: AllowedFields) -> None:
    """A rule for the model as a whole has nothing to say of a part of it."""
    for name in _rules_for_all(model):
        raise InvalidOption(
            "schema",
            model,
            f"a model without {name!r}: a rule for all fields at once cannot be kept where "
            "some are asked for; field_validator, field_serializer and computed_field can",
        )
    config = _config(model)
    if getattr(model, "__pydantic_root_model__", False):
        raise InvalidOption("schema", model, "a model with fields: a RootModel is one value")
    if config.get("extra") == "allow":
        raise InvalidOption(
            "schema",
            model,
            "a model that names all of its fields: set extra='ignore' in its model_config",
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
    told = _told(model)
    for field in allowed.fields.values():
        if field.relation is None:
            continue
        info = _infos(model).get(field.attribute)
        acts = any(_acts(mark) for mark in _marks(info) if mark is not info)
        if field.attribute in told or field.is_conditional or acts:
            raise InvalidOption(
                "schema",
                model,
                f"no validator, serializer or exclude_if for {field.name!r}, which is read in "
                f"parts: opaque=({field.name!r},) makes it one value",
            )


def _rules_for_all(model: Any) -> Iterator[str]:
    """The names of what a model says of all its fields at once."""
    decorators = model.__pydantic_decorators__
    for kind in ("model_validators", "root_validators", "model_serializers"):
        yield from getattr(decorators, kind)
    for name in ("model_post_init", "__get_pydantic_core_schema__"):
        # pydantic has functions of its own by these names, also for private attributes.
        found = getattr(model, name, None)
        if found is not None and not found.__module__.startswith("pydantic."):
            yield name


def _check_no_pydantic(model: Any, allowed: AllowedFields) -> None:
    """What is written for pydantic has no effect in a model that is not read by it."""
    hints = get_type_hints(model, include_extras=True)
    config = getattr(model, "__pydantic_config__", {})
    matters = config.get("extra") == "allow" or config.keys() - _MATTERS_NOT
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
                f"a pydantic BaseModel: how pydantic would write {field.name!r} is not known of "
                "any other class",
            )


def _marks(said: Any) -> Iterator[object]:
    """All that stands beside types in an annotation, and in pydantic's own note of a field."""
    if _is_field_info(said):
        yield said
        yield from said.metadata
        said = said.annotation
    said = getattr(said, "__value__", said)  # type Name = ...
    if get_origin(said) is Annotated:
        for mark in said.__metadata__:
            yield from _marks(mark) if _is_field_info(mark) else (mark,)
    for inner in get_args(said):
        if get_origin(inner) is not None or hasattr(inner, "__value__"):
            yield from _marks(inner)


def _is_field_info(said: object) -> bool:
    return type(said).__name__ == "FieldInfo" and type(said).__module__ == "pydantic.fields"


def _leaf_types(annotation: Any) -> Iterator[type]:
    annotation = getattr(annotation, "__value__", annotation)
    if isinstance(annotation, type) and get_origin(annotation) is None:
        yield annotation
    for inner in get_args(annotation):
        yield from _leaf_types(inner)


def _acts(mark: Any) -> bool:
    """Whether it may change a value, or keep it out of the JSON."""
    if _is_field_info(mark):
        return bool(mark.exclude or is_conditional(mark) or mark.serialization_alias)
    if hasattr(mark, "__is_annotated_types_grouped_metadata__"):
        return any(map(_acts, mark))
    if type(mark).__name__ == "_PydanticGeneralMetadata":
        return not _is_constraint(mark)
    return hasattr(mark, "__get_pydantic_core_schema__")


def _check_needs(model: Any, own_way: Collection[Field]) -> None:
    for field in own_way:
        if not hasattr(model, "model_construct"):
            raise InvalidOption(
                "schema",
                model,
                f"a BaseModel: a dataclass makes {field.name!r} with all others or not at all",
            )
        for need in field.needs:
            if need not in _infos(model):
                raise InvalidOption(
                    f"needs[{field.name!r}]",
                    need,
                    f"a field of {model.__qualname__}: add {need} to it as Field(exclude=True), "
                    f"or give compute={{{field.name!r}: …}}",
                )
        info = _infos(model).get(field.attribute)
        if info is not None and (info.frozen or _config(model).get("frozen")):
            raise InvalidOption(
                "schema", model, f"{field.name!r} not to be frozen: it has to be validated alone"
            )


# Which values go as they come ---------------------------------------------------------------------

_PLAIN: Final = frozenset({str, int, float, bool, datetime, date, time, Decimal, UUID})
"""Types that the encoder writes as pydantic does by default."""

_CONSTRAINTS: Final = frozenset("Gt Ge Lt Le MultipleOf MinLen MaxLen Len Interval".split())
"""They refuse a value, but never change it."""

_RULES: Final = frozenset("pattern strict max_digits decimal_places allow_inf_nan".split())

_MATTERS_NOT: Final = frozenset(
    "alias_generator arbitrary_types_allowed cache_strings coerce_numbers_to_str defer_build extra "
    "field_title_generator from_attributes frozen hide_input_in_errors ignored_types "
    "json_schema_extra json_schema_serialization_defaults_required loc_by_alias "
    "model_title_generator populate_by_name protected_namespaces regex_engine "
    "revalidate_instances serialize_by_alias str_max_length str_min_length title "
    "use_attribute_docstrings validate_assignment validate_by_alias validate_by_name "
    "validate_default".split()
)
"""Settings of a model that leave alone how a value is written."""


def _infos(model: Any) -> Mapping[str, Any]:
    # Before 2.10 a model had its fields under another name; a dataclass has them under this one.
    fields: Mapping[str, Any] = getattr(model, "__pydantic_fields__", None) or model.model_fields
    return fields


def _config(model: Any) -> Mapping[str, Any]:
    config: Mapping[str, Any] = getattr(model, "model_config", None) or getattr(
        model, "__pydantic_config__", {}
    )
    return config


def _told(model: Any) -> frozenset[str]:
    """The attributes that the model has validators or serializers for."""
    decorators = model.__pydantic_decorators__
    rules = [
        rule
        for kind in ("validators", "field_validators", "field_serializers")
        for rule in getattr(decorators, kind).values()
    ]
    named = frozenset(name for rule in rules for name in rule.info.fields)
    return frozenset(_infos(model)) if "*" in named else named


def _is_plain(
    model: Any, field: Field, kinds: Mapping[str, type | None], told: Collection[str]
) -> bool:
    if field.attribute in told or not _MATTERS_NOT.issuperset(_config(model)):
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
    """Whether values of this type are what is annotated, and written as pydantic would."""
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
    """What is said of the type of each attribute, and of each computed field."""
    if not hasattr(model, "__pydantic_decorators__"):
        return get_type_hints(model, include_extras=True)
    computed = model.__pydantic_decorators__.computed_fields
    return {
        **{name: Annotated[info.annotation, info] for name, info in _infos(model).items()},
        **{name: each.info.return_type for name, each in computed.items()},
    }


def optional_keys(model: Any) -> frozenset[str]:
    """The keys that a dict of this TypedDict may lack."""
    if not hasattr(model, "__optional_keys__"):
        return frozenset()
    hints = get_type_hints(model, include_extras=True)
    # Python overlooks the mark in annotations that are texts.
    marked = {name for name, kind in hints.items() if get_origin(kind) is NotRequired}
    return frozenset(model.__optional_keys__ | marked)


def stated_kinds(model: Any) -> dict[str, type | None]:
    """The types that values in memory are taken to have: those of their annotations."""
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
    # What stands in a dict in memory need not be JSON: a model, bytes, a set.
    return kind if isinstance(kind, type) and kind is not dict else None
