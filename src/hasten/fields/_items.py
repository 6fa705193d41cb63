"""Rows of items in memory: dicts by public name, or objects by attribute.

They are built as rows of a database are: values are used as they are where their annotation allows
it, and otherwise go through the validators and serializers of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, cast

from hasten.fields._allowed import AllowedFields, Field, FieldSet
from hasten.fields._rows import (
    Build,
    Compute,
    FieldBuilder,
    Values,
    field_builder,
    optional_keys,
    stated_kinds,
)

_LISTS: Final = frozenset({list, tuple, set, frozenset})


class Items:
    """Builds rows from items."""

    def __init__(
        self, allowed: AllowedFields, *, cap: Callable[[Field], int], more: str, compute: Compute
    ) -> None:
        """cap returns the maximum number of related items of a field.

        more is the suffix of the name of its marker. Raises `InvalidOption` for a field that cannot
        be built.
        """
        self._cap = cap
        self._more = more
        self._compute = compute
        self._builders: dict[AllowedFields, FieldBuilder] = {}
        self._add(allowed)
        self._how = lru_cache(256)(self._decide)

    def row(self, item: object, chosen: FieldSet) -> Values:
        """Return the requested fields of one item."""
        builder, build, is_flat, optional = self._how(chosen)
        if optional and isinstance(item, Mapping) and not optional <= item.keys():
            lacking = optional - item.keys()
            given = [each for each in chosen.members if each[0].name not in lacking]
            return self.row(item, FieldSet(tuple(given), chosen.allowed))
        if build is not None:
            made = self._built(item, chosen, builder, build)
        else:
            made = {
                field.name: value_of(item, field.name, field.attribute)
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
            value: Any = value_of(item, field.name, field.attribute)
            if field.many:
                self._fill(row, field, value, inner)
            else:
                row[field.name] = self._one(value, inner)
        return row

    def _one(self, value: object, inner: FieldSet) -> object:
        """Return the requested fields of a related item, or of a list of them."""
        if value is None:
            return None
        if type(value) in _LISTS:
            return [self._one(each, inner) for each in cast("Iterable[object]", value)]
        return self.row(value, inner)

    def _built(self, item: object, chosen: FieldSet, builder: FieldBuilder, build: Build) -> Values:
        names = {field.attribute: field.name for field in chosen.allowed.fields.values()}
        values = {need: value_of(item, names.get(need, need), need) for need in chosen.needs}
        is_valid = builder.model is not None and isinstance(item, builder.model)
        made = build(values, item) if is_valid else build(values)
        made |= {
            field.name: values[field.attribute]
            for field, inner in chosen.members
            if inner is None and builder.is_plain(field)
        }
        return made

    def _fill(
        self, row: Values, field: Field, value: Sequence[object] | None, inner: FieldSet
    ) -> None:
        cap = self._cap(field)
        if value is None:
            row[field.name] = None
            return
        items = list(value)
        row[field.name] = [self._one(each, inner) for each in items[:cap]]
        if len(items) > cap:
            row[field.name + self._more] = True

    def _add(self, allowed: AllowedFields) -> None:
        if allowed in self._builders:
            return
        self._builders[allowed] = field_builder(allowed, stated_kinds(allowed.model), self._compute)
        for field in allowed.fields.values():
            if field.relation is not None:
                self._add(field.relation)

    def _decide(self, chosen: FieldSet) -> tuple[FieldBuilder, Build | None, bool, frozenset[str]]:
        """Return how to build the items of a set.

        That is the builder, the function for the plain fields, whether the set has no relations,
        and which of its fields may be missing in an item.
        """
        fields = [field for field, inner in chosen.members if inner is None]
        builder = self._builders[chosen.allowed]
        optional = optional_keys(chosen.allowed.model) & set(chosen.names)
        return builder, builder.of(fields), len(fields) == len(chosen.members), optional


def value_of(item: object, name: str, attribute: str) -> object:
    """Return a value of an item: by public name of a dict, by attribute of other objects."""
    found: object = item[name] if isinstance(item, Mapping) else getattr(item, attribute)
    return found
