"""The query of one request: a cached plan, with the values and the session of the request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hasten._sqlalchemy.execution import Database, DatabaseIdentity
from hasten._sqlalchemy.selects import Selection, select_only
from hasten._sqlalchemy.templates import RequestBindings
from hasten.errors import InvalidOption
from hasten.fields._allowed import AllowedFields
from hasten.pagination._counts import Count, CountFunction, UncachedCounting, to_checked_count
from hasten.pagination._cursor import hidden_sort_key_error
from hasten.pagination._slices import KeysetSlice, OffsetSlice
from hasten.pagination._sql.cursor_values import cursor_value_to_column_value, to_fingerprint_value
from hasten.pagination._sql.fetching import fetch_count, fetch_keyset_slice, fetch_offset_slice
from hasten.pagination._sql.query_plan import QueryPlan


class PageQuery:
    """Reads the rows of a page, their total count and aggregates for the select of one request."""

    __slots__ = ("_bindings", "_database", "_dialect", "_execute", "_plan")

    def __init__(self, plan: QueryPlan, bindings: RequestBindings, database: Database) -> None:
        self._plan = plan
        self._bindings = bindings
        self._database = database
        self._dialect = database.find_dialect(plan.analyzed.mapper, plan.analyzed.statement)
        self._execute = bindings.wrap_execute_with_values_and_options(database.execute)

    async def read_offset_slice(
        self, *, limit: int, offset: int, count: UncachedCounting
    ) -> OffsetSlice:
        """Read up to limit rows at an offset, with the requested fields only."""
        self._warn_about_query_once()
        found = await fetch_offset_slice(
            self._plan.statements,
            self._execute,
            limit=limit,
            offset=offset,
            dialect=self._dialect,
            count=count,
        )
        self._warn_about_large_count(found.count)
        return OffsetSlice(await self._build_rows(found.rows), found.has_more, found.count)

    async def read_keyset_slice(
        self, position: Sequence[object] | None, *, limit: int, backwards: bool
    ) -> KeysetSlice:
        """Read up to limit rows after a position, or before it if backwards.

        The rows contain the requested fields only.
        """
        self._warn_about_query_once()
        if position is not None:
            keys = self._plan.keys
            position = [
                cursor_value_to_column_value(*each) for each in zip(keys, position, strict=True)
            ]
        found = await fetch_keyset_slice(
            self._plan.statements,
            self._execute,
            position,
            limit=limit,
            dialect=self._dialect,
            backwards=backwards,
        )
        rows = await self._build_rows(found.rows)
        return KeysetSlice(rows, found.has_more, found.first, found.last)

    async def count_rows(
        self, counting: UncachedCounting | CountFunction, statement: Selection
    ) -> Count:
        """Count the rows.

        If counting is a function of the application, it is called with the session and with
        statement, which is the original select.
        """
        if callable(counting):
            return to_checked_count(await self._database.call_sync_or_async(counting, statement))
        found = await fetch_count(
            self._plan.statements, self._execute, dialect=self._dialect, count=counting
        )
        self._warn_about_large_count(found)
        return found

    async def read_aggregates(self, expressions: Sequence[Any]) -> list[object]:
        """Return the values of aggregates, such as ``func.max(…)``, over all rows of the select."""
        analyzed = self._plan.analyzed
        if analyzed.is_grouped or analyzed.is_distinct:
            raise InvalidOption(
                "version",
                "an expression",
                "omitted for a select with GROUP BY or DISTINCT: use etag=True instead",
            )
        return list((await self._execute(select_only(analyzed.statement, *expressions), {})).one())

    def check_cursors_reveal_no_hidden_fields(self, allowed: AllowedFields) -> None:
        """Raise `InvalidOption` if a cursor would contain a value that the response hides.

        allowed are the fields that the request may choose from.
        """
        hidden = self._plan.hidden_sort_key(allowed)
        if hidden is not None:
            raise hidden_sort_key_error(str(hidden.column))

    def make_fingerprint_values(self) -> list[object]:
        """Return the values that identify this query: its order, its SQL and the values in it.

        They have types that `compute_fingerprint` accepts, and are the same in every process.
        """
        plan, bindings = self._plan, self._bindings
        if bindings.parameters is None:
            compiled = plan.make_filter_only_select(bindings).compile()
            values = [to_fingerprint_value(value) for _, value in sorted(compiled.params.items())]
            return [plan.sort_keys_for_fingerprint, str(compiled), values]
        found = [each.effective_value for each in bindings.parameters]
        if plan.advisor is not None:
            plan.advisor.warn_about_filter(found)
        return [
            plan.sort_keys_for_fingerprint,
            plan.make_filter_sql_for_fingerprint(bindings),
            [to_fingerprint_value(each) for each in found],
        ]

    def find_schema_translation_pairs(self) -> list[list[str | None]]:
        """Return the ``schema_translate_map`` of the request as sorted pairs.

        See `Database.find_schema_translation_pairs`.
        """
        analyzed = self._plan.analyzed
        return self._database.find_schema_translation_pairs(
            analyzed.mapper, analyzed.statement, self._bindings.execution_options
        )

    def database_identity(self) -> DatabaseIdentity:
        """Return two values that identify the database. See `Database.identity`."""
        analyzed = self._plan.analyzed
        return self._database.make_identity(analyzed.mapper, analyzed.statement)

    async def _build_rows(self, rows: list[Any]) -> list[dict[str, object]]:
        """Convert result rows to dicts of the requested fields, and read nested objects."""
        if self._plan.analyzed.width == 1:
            rows = [(row,) for row in rows]
        loader = self._plan.loader
        if not loader.has_related:
            return loader.build_dicts(rows)
        execute = self._bindings.wrap_execute_with_options(self._database.execute)
        return await loader.read_nested_dicts(rows, execute, self._dialect)

    def _warn_about_query_once(self) -> None:
        """Warn about the joins, NULLs and indexes of the query, once for each plan."""
        if self._plan.advisor is not None:
            self._plan.advisor.warn_about_query(self._dialect)

    def _warn_about_large_count(self, count: Count) -> None:
        """Warn once if the exact count is large."""
        if self._plan.advisor is not None and count.total is not None and count.relation == "eq":
            self._plan.advisor.warn_about_large_count(count.total)
