"""Rows of what is in memory: dicts by public name, or objects by attribute.

They are written as rows of a database are: as they come where the type that the model states can
be written so, and through the model's own validators and serializers where it has some.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, cast

from hasten.fields._allowed import AllowedFields, Field, FieldSet
from hasten.fields._rows import Compute, Make, Making, Values, making, optional_keys, stated_kinds

_LISTS: Final = frozenset({list, tuple, set, frozenset})


class Items:
    """How rows are made of items."""

    def __init__(
        self, allowed: AllowedFields, *, cap: Callable[[Field], int], more: str, compute: Compute
    ) -> None:
        """cap says how many items a field that leads to many shows; more ends its marker.

        Raises `InvalidOption` for a field that cannot be made.
        """
        self._cap = cap
        self._more = more
        self._compute = compute
        self._makings: dict[AllowedFields, Making] = {}
        self._add(allowed)
        self._maker = lru_cache(256)(self._make)

    def row(self, item: object, chosen: FieldSet) -> Values:
        """What was asked for of one item."""
        how, make, is_flat, optional = self._maker(chosen)
        if optional and isinstance(item, Mapping) and not optional <= item.keys():
            lacking = optional - item.keys()
            given = [each for each in chosen.members if each[0].name not in lacking]
            return self.row(item, FieldSet(tuple(given), chosen.allowed))
        if make is not None:
            made = self._made(item, chosen, how, make)
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
        """What is asked for of one of the values that a field leads to, or of a list of them."""
        if value is None:
            return None
        if type(value) in _LISTS:
            return [self._one(each, inner) for each in cast("Iterable[object]", value)]
        return self.row(value, inner)

    def _made(self, item: object, chosen: FieldSet, how: Making, make: Make) -> Values:
        names = {field.attribute: field.name for field in chosen.allowed.fields.values()}
        values = {need: value_of(item, names.get(need, need), need) for need in chosen.needs}
        is_valid = how.model is not None and isinstance(item, how.model)
        made = make(values, item) if is_valid else make(values)
        made |= {
            field.name: values[field.attribute]
            for field, inner in chosen.members
            if inner is None and how.is_plain(field)
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
        if allowed in self._makings:
            return
        self._makings[allowed] = making(allowed, stated_kinds(allowed.model), self._compute)
        for field in allowed.fields.values():
            if field.relation is not None:
                self._add(field.relation)

    def _make(self, chosen: FieldSet) -> tuple[Making, Make | None, bool, frozenset[str]]:
        """How the plain fields of a set are made, whether there are no others, and which of all
        its fields an item may lack.
        """
        fields = [field for field, inner in chosen.members if inner is None]
        how = self._makings[chosen.allowed]
        optional = optional_keys(chosen.allowed.model) & set(chosen.names)
        return how, how.maker(fields), len(fields) == len(chosen.members), optional


def value_of(item: object, name: str, attribute: str) -> object:
    """The value of an item: by public name of a dict, by attribute of any other object."""
    found: object = item[name] if isinstance(item, Mapping) else getattr(item, attribute)
    return found
