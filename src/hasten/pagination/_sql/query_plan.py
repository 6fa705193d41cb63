"""The plan for reading the pages of a select: its sort columns and its SQL statements.

The application passes a select of ORM objects. The planned statements select only the columns of
the requested fields, so no ORM objects are created.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Final

from sqlalchemy import literal_column

from hasten._sqlalchemy.analysis import AnalyzedSelect
from hasten._sqlalchemy.selects import Expression, Selection, is_same_expression, select_only
from hasten._sqlalchemy.sort_columns import SortColumn, SortColumns
from hasten._sqlalchemy.templates import RequestBindings
from hasten.fields._allowed import AllowedFields, is_shown_in_every_row
from hasten.fields._sql.field_loader import FieldLoader
from hasten.pagination._order import Order
from hasten.pagination._sql.advice import QueryAdvisor
from hasten.pagination._sql.page_statements import PageStatements

_MAX_LISTS: Final = 16
"""The size of the cache of `QueryPlan.hidden_sort_key`, whose argument is a list of fields."""


class QueryPlan:
    """The plan for all selects that differ only in their values. It contains no values."""

    def __init__(
        self,
        analyzed: AnalyzedSelect,
        keys: SortColumns,
        loader: FieldLoader,
        columns: Mapping[str, Expression],
        order: Order,
    ) -> None:
        """Create a plan that has not checked anything or built a statement yet.

        keys are the columns to sort by, ending with a unique key; order is the requested order.
        loader reads the requested fields. columns are the columns that can be sorted by, by the
        public name of their field.
        """
        self.analyzed: Final = analyzed
        self.keys: Final = keys
        self.loader: Final = loader
        self.order: Final = order
        self.statements: Final = PageStatements(analyzed, keys)
        self.advisor: QueryAdvisor | None = None
        self.hidden_sort_key: Final = lru_cache(_MAX_LISTS)(self._find_hidden_sort_key)
        self._columns = dict(columns)
        self._text: str | None = None

    def _find_hidden_sort_key(self, allowed: AllowedFields) -> SortColumn | None:
        """Return a sort key that these fields do not always show; None if there is none."""
        shown = [
            each for name, each in self._columns.items() if is_shown_in_every_row(name, allowed)
        ]
        for key in self.keys:
            if not any(is_same_expression(key.column, each) for each in shown):
                return key
        return None

    @cached_property
    def sort_keys_for_fingerprint(self) -> list[list[object]]:
        """The sort keys as lists of strings and booleans, for the fingerprint of the query."""
        return [
            [str(key.column), key.descending, key.nullable, key.nulls, str(key.column.type)]
            for key in self.keys
        ]

    def make_filter_sql_for_fingerprint(self, bindings: RequestBindings) -> str:
        """Return the SQL text of `make_filter_only_select`, without the values of its parameters.

        It is the same in every process. bindings has the options of the request's select, such as
        ``with_loader_criteria``.
        """
        # All selects of this plan have the same options except for values, so one SQL fits all.
        if self._text is None:
            self._text = str(self.make_filter_only_select(bindings).compile())
        return self._text

    def make_filter_only_select(self, bindings: RequestBindings) -> Selection:
        """Return the select with its tables and conditions, but without its columns and ORDER BY.

        The options in bindings are added, because they may filter rows.
        """
        return select_only(self.analyzed.statement.options(*bindings.options), literal_column("1"))
