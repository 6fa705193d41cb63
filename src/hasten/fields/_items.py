"""Build response rows from items in memory: dicts, or objects with attributes.

Rows are built like those from a database: a value is used unchanged if its annotation allows that,
and otherwise passes through the validators and serializers of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple, cast

from hasten.fields._allowed import AllowedFields, Field, FieldSet
from hasten.fields._rows import (
    BuildFields,
    Compute,
    FieldBuilder,
    Values,
    find_not_required_keys,
    find_value_types_by_attribute,
    make_field_builder,
)

_LISTS: Final = frozenset({list, tuple, set, frozenset})


class _RowPlan(NamedTuple):
    """How to build rows that have the same requested fields."""

    builder: FieldBuilder
    build_changed: BuildFields | None
    """The function for the fields whose values are not used unchanged; None if all are."""
    is_flat: bool
    """Whether no field is nested."""
    optional: frozenset[str]
    """The names of the fields that items may lack."""


class ItemRowBuilder:
    """Builds response rows from items in memory."""

    def __init__(
        self,
        allowed: AllowedFields,
        *,
        cap: Callable[[Field], int],
        more_suffix: str,
        compute: Compute,
    ) -> None:
        """Check that all fields can be built. Raises `InvalidOption` for one that cannot.

        cap returns how many items of a list field are shown. If there are more, the row gets a
        marker: a key with the name of the field and more_suffix. compute has the functions of
        computed fields.
        """
        self._cap = cap
        self._more = more_suffix
        self._compute = compute
        self._builders: dict[AllowedFields, FieldBuilder] = {}
        self._add_builders(allowed)
        self._cached_plan_row = lru_cache(256)(self._plan_row)

    def build_row(self, item: object, chosen: FieldSet) -> Values:
        """Return the requested fields of one item."""
        builder, build_changed, is_flat, optional = self._cached_plan_row(chosen)
        if optional and isinstance(item, Mapping) and not optional <= item.keys():
            lacking = optional - item.keys()
            given = [each for each in chosen.members if each[0].name not in lacking]
            return self.build_row(item, FieldSet(tuple(given), chosen.allowed))
        if build_changed is not None:
            made = self._build_flat_fields(item, chosen, builder, build_changed)
        else:
            made = {
                field.name: get_field_value(item, field.name, field.attribute)
                for field, inner in chosen.members
                if inner is None
            }
            if is_flat:
                return made
        row: Values = {}
        for field, inner in chosen.members:
            if inner is None:
                if field.name in made:
                    row[field.name] = made[field.name]
                continue
            value: Any = get_field_value(item, field.name, field.attribute)
            if field.many:
                self._add_nested_list(row, field, value, inner)
            else:
                row[field.name] = self._build_nested(value, inner)
        return row

    def _build_nested(self, value: object, nested_fields: FieldSet) -> object:
        """Return the requested fields of a nested item, or of each item in a list of them."""
        if value is None:
            return None
        if type(value) in _LISTS:
            return [
                self._build_nested(each, nested_fields) for each in cast("Iterable[object]", value)
            ]
        return self.build_row(value, nested_fields)

    def _build_flat_fields(
        self, item: object, chosen: FieldSet, builder: FieldBuilder, build_changed: BuildFields
    ) -> Values:
        """Return the requested fields of an item, except for nested ones.

        builder knows which values are used unchanged; build_changed builds the other fields.
        """
        names = {field.attribute: field.name for field in chosen.allowed.fields.values()}
        values = {need: get_field_value(item, names.get(need, need), need) for need in chosen.needs}
        is_valid = builder.model is not None and isinstance(item, builder.model)
        made = build_changed(values, item) if is_valid else build_changed(values)
        made |= {
            field.name: values[field.attribute]
            for field, inner in chosen.members
            if inner is None and builder.is_used_unchanged(field)
        }
        return made

    def _add_nested_list(
        self, row: Values, field: Field, value: Sequence[object] | None, nested_fields: FieldSet
    ) -> None:
        """Add a list of nested items to a row, with a marker if there are more than its cap."""
        cap = self._cap(field)
        if value is None:
            row[field.name] = None
            return
        items = list(value)
        row[field.name] = [self._build_nested(each, nested_fields) for each in items[:cap]]
        if len(items) > cap:
            row[field.name + self._more] = True

    def _add_builders(self, allowed: AllowedFields) -> None:
        """Make the builders for these allowed fields and for those of their nested models."""
        if allowed in self._builders:
            return
        self._builders[allowed] = make_field_builder(
            allowed, find_value_types_by_attribute(allowed.model), self._compute
        )
        for field in allowed.fields.values():
            if field.relation is not None:
                self._add_builders(field.relation)

    def _plan_row(self, chosen: FieldSet) -> _RowPlan:
        """Return the plan for rows with these fields. `_cached_plan_row` caches it."""
        fields = [field for field, inner in chosen.members if inner is None]
        builder = self._builders[chosen.allowed]
        optional = find_not_required_keys(chosen.allowed.model) & set(chosen.names)
        return _RowPlan(
            builder,
            builder.make_build_function(fields),
            is_flat=len(fields) == len(chosen.members),
            optional=optional,
        )


def get_field_value(item: object, key: str, attribute: str) -> object:
    """Return the value of a field: of the key in a dict, of the attribute in any other object."""
    found: object = item[key] if isinstance(item, Mapping) else getattr(item, attribute)
    return found
