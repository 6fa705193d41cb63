"""Make the plan for reading the pages of a select, and cache it.

Selects that differ only in their values share one plan.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import Select
from sqlalchemy.orm import Mapper

from hasten._sqlalchemy.analysis import AnalyzedSelect, analyze_select
from hasten._sqlalchemy.execution import Database
from hasten._sqlalchemy.selects import (
    Selection,
    get_selected_entity,
    pick_filter_options,
    to_expression,
)
from hasten._sqlalchemy.sort_columns import SortColumn, SortColumns
from hasten._sqlalchemy.templates import SelectCache
from hasten.errors import InvalidOption
from hasten.fields._allowed import FieldSet
from hasten.fields._sql.field_loader import FieldLoaderCache, is_hybrid, make_expression_cache_key
from hasten.pagination._order import Order
from hasten.pagination._sql.advice import QueryAdvisor
from hasten.pagination._sql.page_query import PageQuery
from hasten.pagination._sql.query_plan import QueryPlan

MAX_ADVISED: Final = 100
"""How many different queries are checked for problems that a warning could report."""


class QueryPlanner:
    """Makes and caches the query plans for the selects of one mapped class."""

    def __init__(
        self,
        mapper: Mapper[Any],
        loaders: FieldLoaderCache,
        attributes: Mapping[str, str],
        *,
        explicit_nulls: Collection[str] = (),
        advise: bool = False,
    ) -> None:
        """Create a planner without cached plans.

        attributes are the names of the sortable attributes, by public field name. explicit_nulls
        are the fields whose `SortKey` declares where NULLs are sorted. If advise, warnings are
        issued for problems in the first `MAX_ADVISED` plans that are cached.
        """
        self.advise = advise
        self._mapper = mapper
        self._loaders = loaders
        self._attributes = attributes
        self._explicit_nulls = explicit_nulls
        self._hybrids = {
            name: attribute
            for name, attribute in attributes.items()
            if is_hybrid(mapper, attribute)
        }
        # Only cached plans are checked: for others, each request would repeat the warnings.
        self._plans: SelectCache[QueryPlan] = SelectCache(
            self._make_plan, on_cached=self._add_advisor
        )
        self._advised = 0

    def make_page_query(
        self, database: Database, statement: Selection, chosen: FieldSet, order: Order
    ) -> PageQuery:
        """Return the query that reads the pages of a select.

        chosen are the fields to read. Raises `InvalidOption` if the select cannot be paged.
        """
        given: object = statement
        if not isinstance(given, Select):
            get_selected_entity(
                statement, self._mapper
            )  # raises an error that says what is expected
        options = statement._with_options
        has_filter_options = bool(options and pick_filter_options(options))
        state = self._make_cache_key_of_hybrid_sql(chosen, order)
        plan, bindings = self._plans.get(statement, chosen, order, has_filter_options, state)
        return PageQuery(plan, bindings, database)

    @property
    def cached_plan_count(self) -> int:
        """The number of cached plans."""
        return self._plans.cached_result_count

    def _make_cache_key_of_hybrid_sql(self, chosen: FieldSet, order: Order) -> Hashable:
        """Return a value that represents the SQL of the hybrid properties that a query uses.

        It is part of the cache key of a plan, because a hybrid property may return other SQL in
        each request.
        """
        shown = self._loaders.make_cache_key_of_hybrid_sql(chosen)
        if not self._hybrids:
            return shown
        names = [self._hybrids[key.name] for key in order if key.name in self._hybrids]
        return (
            shown,
            *[make_expression_cache_key(getattr(self._mapper.class_, name)) for name in names],
        )

    def _make_plan(
        self,
        statement: Selection,
        chosen: FieldSet,
        order: Order,
        has_filter_options: bool,
        _hybrid_cache_key: Hashable,
    ) -> QueryPlan:
        """Make the plan for a select.

        has_filter_options: the select has options that filter rows. _hybrid_cache_key is only part
        of the cache key of the plan.
        """
        entity = get_selected_entity(statement, self._mapper)
        columns = {
            name: to_expression(getattr(entity, attribute))
            for name, attribute in self._attributes.items()
        }
        whole = analyze_select(statement)
        keys = resolve_sort_columns(whole, order, columns)
        loader = self._loaders.get(whole.statement, chosen, without_joins=True)
        narrow = loader.make_select(whole.statement)
        analyzed = replace(
            whole,
            statement=narrow,
            width=len(narrow.column_descriptions),
            holds_entities=False,
            table=None if has_filter_options else whole.table,
        )
        return QueryPlan(analyzed, keys, loader, columns, order)

    def _add_advisor(self, plan: QueryPlan) -> None:
        if not self.advise:
            return
        # Limited, because clients choose the orders, and Python keeps each warning text forever.
        self._advised += 1
        if self._advised <= MAX_ADVISED:
            plan.advisor = QueryAdvisor(
                self._mapper, plan.analyzed, plan.keys, plan.order, self._explicit_nulls
            )


def resolve_sort_columns(
    analyzed: AnalyzedSelect, order: Order, columns: Mapping[str, Any]
) -> SortColumns:
    """Return the columns to sort by, so that no two rows have equal values in all of them.

    The primary key is appended if needed. columns has the column or expression of each sortable
    name. Without an order, the ORDER BY of the select is used.
    """
    keys = []
    for key in order:
        if key.name not in columns:
            raise InvalidOption("sort", key.name, "one of " + ", ".join(map(repr, columns)))
        column = to_expression(columns[key.name])
        nullable = key.nullable or analyzed.may_be_null(column)
        keys.append(SortColumn(column, key.descending, nullable, key.nulls))
    return analyzed.make_total_order(tuple(keys))
