"""Rows of what is in memory: dicts by public name, or objects by attribute.

They are written as rows of a database are: as they come where the type that the model states can
be written so, and through the model's own validators and serializers where it has some.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

from hasten.fields.allowed import Allowed, Field, FieldSet
from hasten.fields.rows import Compute, Making, Values, making, stated_kinds

Make: TypeAlias = Callable[[Values], Values]


class Items:
    """How rows are made of items."""

    def __init__(
        self, allowed: Allowed, *, cap: Callable[[Field], int], more: str, compute: Compute
    ) -> None:
        """cap says how many items a field that leads to many shows; more ends its marker.

        Raises `InvalidOption` for a field that cannot be made.
        """
        self._cap = cap
        self._more = more
        self._compute = compute
        self._makings: dict[Allowed, Making] = {}
        self._add(allowed)
        self._maker = lru_cache(256)(self._make)

    def row(self, item: object, chosen: FieldSet) -> Values:
        """What was asked for of one item."""
        made = self._own(item, chosen)
        row: Values = {}
        for field, inner in chosen.members:
            if inner is None:
                row[field.name] = made[field.name]
                continue
            value: Any = value_of(item, field.name, field.attribute)
            if field.many:
                self._fill(row, field, value, inner)
            else:
                row[field.name] = None if value is None else self.row(value, inner)
        return row

    def _own(self, item: object, chosen: FieldSet) -> Values:
        allowed, make = self._maker(chosen)
        if make is None:
            return {
                field.name: value_of(item, field.name, field.attribute)
                for field, inner in chosen.members
                if inner is None
            }
        names = {field.attribute: field.name for field in allowed.fields.values()}
        values = {need: value_of(item, names.get(need, need), need) for need in chosen.needs}
        special = make(values)
        return {
            field.name: special[field.name] if field.name in special else values[field.attribute]
            for field, inner in chosen.members
            if inner is None
        }

    def _fill(self, row: Values, field: Field, value: Sequence[object], inner: FieldSet) -> None:
        cap = self._cap(field)
        items = list(value or ())
        row[field.name] = [self.row(each, inner) for each in items[:cap]]
        if len(items) > cap:
            row[field.name + self._more] = True

    def _add(self, allowed: Allowed) -> None:
        if allowed in self._makings:
            return
        self._makings[allowed] = making(allowed, stated_kinds(allowed.model), self._compute)
        for field in allowed.fields.values():
            if field.relation is not None:
                self._add(field.relation)

    def _make(self, chosen: FieldSet) -> tuple[Allowed, Make | None]:
        fields = [field for field, inner in chosen.members if inner is None]
        for allowed, how in self._makings.items():
            if all(allowed.fields.get(field.name) is field for field, _ in chosen.members):
                return allowed, how.maker(fields)
        raise TypeError("fields: a set of another allow-list")


def value_of(item: object, name: str, attribute: str) -> object:
    """The value of an item: by public name of a dict, by attribute of any other object."""
    found: object = item[name] if isinstance(item, Mapping) else getattr(item, attribute)
    return found
