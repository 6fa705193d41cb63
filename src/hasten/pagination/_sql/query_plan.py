"""The plan of a select: how it is cut into pages of the requested fields.

The rows of the select are entities, which show what identifies a row. The planned statements select
columns. So a page creates no object of the ORM, and columns that nobody requested are not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Final

from sqlalchemy import literal_column

from hasten._sqlalchemy.analysis import AnalyzedSelect
from hasten._sqlalchemy.selects import Expression, Selection, is_same_expression, select_only
from hasten._sqlalchemy.sort_columns import SortColumn, SortColumns
from hasten._sqlalchemy.templates import Bindings
from hasten.fields._allowed import AllowedFields, is_shown
from hasten.fields._sql.shapes import Shape
from hasten.pagination._order import Order
from hasten.pagination._sql.advice import Advisor
from hasten.pagination._sql.page_statements import PageStatements

_MAX_LISTS: Final = 16
"""How many lists of allowed fields are kept that were checked for the keys of an order."""


class QueryPlan:
    """What all selects of one structure have in common, without their values."""

    def __init__(
        self,
        analyzed: AnalyzedSelect,
        keys: SortColumns,
        shape: Shape,
        columns: Mapping[str, Expression],
        order: Order,
    ) -> None:
        """columns are those of the plain fields, by public name; order is the requested order."""
        self.analyzed: Final = analyzed
        self.keys: Final = keys
        self.shape: Final = shape
        self.order: Final = order
        self.statements: Final = PageStatements(analyzed, keys)
        self.advisor: Advisor | None = None
        self.hidden_sort_key: Final = lru_cache(_MAX_LISTS)(self._hidden_sort_key)
        self._columns = dict(columns)
        self._text: str | None = None

    def _hidden_sort_key(self, allowed: AllowedFields) -> SortColumn | None:
        """Return a key whose values rows with these fields may hide, None if there is none."""
        shown = [each for name, each in self._columns.items() if is_shown(name, allowed)]
        for key in self.keys:
            if not any(is_same_expression(key.column, each) for each in shown):
                return key
        return None

    @cached_property
    def sorting(self) -> list[list[object]]:
        """The keys as plain values."""
        return [
            [str(key.column), key.descending, key.nullable, key.nulls, str(key.column.type)]
            for key in self.keys
        ]

    def filter_text(self, bindings: Bindings) -> str:
        """Return the text of the select without columns: the same in every process."""
        # Selects of one structure have the same options, except for their values.
        if self._text is None:
            self._text = str(self.filter_select(bindings).compile())
        return self._text

    def filter_select(self, bindings: Bindings) -> Selection:
        """Return the select without columns, with the options of a request."""
        return select_only(self.analyzed.statement.options(*bindings.options), literal_column("1"))
