"""The options of a paginator that concern sorting, and their checks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from hasten.errors import InvalidOption, InvalidParameter
from hasten.fields._allowed import AllowedFields, is_shown_in_every_row
from hasten.pagination._cursor import hidden_sort_key_error
from hasten.pagination._order import Order, SortKey, parse_sort


class SortOptions:
    """The fields that a client may sort by, the default order, and the unique fields of items."""

    def __init__(
        self,
        allowed: AllowedFields,
        sort: Iterable[str | SortKey],
        default_sort: str | None,
        unique: Sequence[str],
        *,
        is_nullable: Callable[[str], bool],
    ) -> None:
        """Check the options. Raises `InvalidOption` for an invalid one.

        allowed are the fields of the schema; sort, default_sort and unique are the options of
        `Paginator`. is_nullable returns whether the attribute with a name may be NULL.
        """
        self._allowed = allowed
        self._is_nullable = is_nullable
        self.attributes: Final = _find_sortable_attributes(allowed)
        """The attribute name of each sortable field, by the field's public name."""
        self.explicit_nulls: Final[set[str]] = set()
        """The fields that were passed as `SortKey`, which says where NULLs are sorted."""
        self.sorts: Final[Mapping[str, SortKey]] = dict(self._to_sort_keys(sort))
        self.default: Final = self._parse_default_sort(default_sort)
        self.unique: Final = self._check_unique_option(unique)

    def make_total_order(self, order: Order) -> Order:
        """Return an order followed by the unique fields, so that no two items are equal in it.

        Fields that the order contains already are not repeated. The others get the direction of its
        last key, or ascend if it is empty.
        """
        descending = bool(order) and order[-1].descending
        named = {key.name for key in order}
        rest = [SortKey(name, descending) for name in self.unique if name not in named]
        return (*order, *rest)

    def check_cursors_reveal_no_hidden_fields(self) -> None:
        """Raise `InvalidOption` if a cursor could contain a value that some rows do not show."""
        for name in [*self.sorts, *(key.name for key in self.default), *self.unique]:
            if not is_shown_in_every_row(name, self._allowed):
                raise hidden_sort_key_error(name)

    def find_attributes_in_cursors(self) -> list[str]:
        """Return the names of the attributes whose values cursors may contain."""
        return [self.attributes[key.name] for key in (*self.sorts.values(), *self.default)]

    def _to_sort_keys(self, sort: Iterable[str | SortKey]) -> Iterable[tuple[str, SortKey]]:
        if isinstance(sort, str):
            raise InvalidOption("sort", sort, f"a sequence of names, such as ({sort!r},)")
        for each in sort:
            if isinstance(each, str):
                yield each, self._make_sort_key(each, "sort")
                continue
            if each.descending:
                raise InvalidOption(
                    "sort",
                    each,
                    "a SortKey without descending=, because the client chooses the direction",
                )
            key = self._make_sort_key(each.name, "sort")
            self.explicit_nulls.add(key.name)
            yield key.name, replace(key, nulls=each.nulls)

    def _make_sort_key(self, name: str, option: str) -> SortKey:
        if name not in self.attributes:
            raise InvalidOption(
                option,
                name,
                "a field of the schema that is neither nested nor computed: "
                f"{', '.join(self.attributes)}",
            )
        return SortKey(name, nullable=self._is_nullable(self.attributes[name]))

    def _parse_default_sort(self, default_sort: str | None) -> Order:
        if default_sort is None:
            return ()
        known = {name: self._make_sort_key(name, "default_sort") for name in self.attributes}
        try:
            return parse_sort(default_sort, {**known, **self.sorts}, parameter="default_sort")
        except InvalidParameter as error:
            raise InvalidOption("default_sort", default_sort, str(error)) from None

    def _check_unique_option(self, unique: Sequence[str]) -> tuple[str, ...]:
        if isinstance(unique, str):
            raise InvalidOption("unique", unique, f"a sequence of names, such as ({unique!r},)")
        return tuple(self._make_sort_key(name, "unique").name for name in unique)


def _find_sortable_attributes(allowed: AllowedFields) -> dict[str, str]:
    """Return the attribute name of each sortable field, by the field's public name.

    Nested objects and computed fields have no column to sort by.
    """
    return {
        field.name: field.attribute
        for field in allowed.fields.values()
        if field.relation is None and not field.is_computed
    }
