"""The query of one request: a plan with the values of the request, on its session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hasten._sqlalchemy.execution import Database
from hasten._sqlalchemy.selects import Selection, select_only
from hasten._sqlalchemy.templates import Bindings
from hasten.errors import InvalidOption
from hasten.fields._allowed import AllowedFields
from hasten.pagination._counts import Count, CountFunction, Uncached, checked_count
from hasten.pagination._cursor import hidden_sort_key_error
from hasten.pagination._slices import KeysetSlice, OffsetSlice
from hasten.pagination._sql.cursor_values import plain_value, to_column_value
from hasten.pagination._sql.fetching import fetch_count, fetch_keyset_slice, fetch_offset_slice
from hasten.pagination._sql.query_plan import QueryPlan


class PageQuery:
    """Reads pages of the select of one request."""

    __slots__ = ("_bindings", "_database", "_dialect", "_execute", "_plan")

    def __init__(self, plan: QueryPlan, bindings: Bindings, database: Database) -> None:
        self._plan = plan
        self._bindings = bindings
        self._database = database
        self._dialect = database.dialect(plan.analyzed.mapper, plan.analyzed.statement)
        self._execute = bindings.bind(database.execute)

    async def offset_slice(self, *, limit: int, offset: int, count: Uncached) -> OffsetSlice:
        """Read the requested fields of the rows at an offset."""
        self._advise()
        found = await fetch_offset_slice(
            self._plan.statements,
            self._execute,
            limit=limit,
            offset=offset,
            dialect=self._dialect,
            count=count,
        )
        self._advise_on_count(found.count)
        return OffsetSlice(await self._shaped(found.rows), found.has_more, found.count)

    async def keyset_slice(
        self, position: Sequence[object] | None, *, limit: int, backwards: bool
    ) -> KeysetSlice:
        """Read the requested fields of the rows after a position, or before it if backwards."""
        self._advise()
        if position is not None:
            keys = self._plan.keys
            position = [to_column_value(*each) for each in zip(keys, position, strict=True)]
        found = await fetch_keyset_slice(
            self._plan.statements,
            self._execute,
            position,
            limit=limit,
            dialect=self._dialect,
            backwards=backwards,
        )
        rows = await self._shaped(found.rows)
        return KeysetSlice(rows, found.has_more, found.first, found.last)

    async def count(self, count: Uncached | CountFunction, statement: Selection) -> Count:
        """Count the rows. A function of the application gets the statement."""
        if callable(count):
            return checked_count(await self._database.call(count, statement))
        found = await fetch_count(
            self._plan.statements, self._execute, dialect=self._dialect, count=count
        )
        self._advise_on_count(found)
        return found

    async def version(self, expressions: Sequence[Any]) -> list[object]:
        """Return the values of expressions over all rows of the select."""
        analyzed = self._plan.analyzed
        if analyzed.is_grouped or analyzed.is_distinct:
            raise InvalidOption(
                "version", "an expression", "omitted for GROUP BY and DISTINCT: use etag=True"
            )
        return list((await self._execute(select_only(analyzed.statement, *expressions), {})).one())

    def check_shown(self, allowed: AllowedFields) -> None:
        """Raise `InvalidOption` if a cursor would contain a value that no allowed field shows."""
        hidden = self._plan.hidden_sort_key(allowed)
        if hidden is not None:
            raise hidden_sort_key_error(str(hidden.column))

    def identity(self) -> list[object]:
        """Return what distinguishes this query from every other one, in plain values.

        These are the order, the text of the select and its values: the same in every process.
        """
        plan, bindings = self._plan, self._bindings
        if bindings.parameters is None:
            compiled = plan.filter_select(bindings).compile()
            values = [plain_value(value) for _, value in sorted(compiled.params.items())]
            return [plan.sorting, str(compiled), values]
        found = [each.effective_value for each in bindings.parameters]
        if plan.advisor is not None:
            plan.advisor.on_filter(found)
        return [plan.sorting, plan.filter_text(bindings), [plain_value(each) for each in found]]

    def schemas(self) -> list[list[str | None]]:
        """Return the schema names that are replaced. See `Database.translated_schemas`."""
        analyzed = self._plan.analyzed
        return self._database.translated_schemas(
            analyzed.mapper, analyzed.statement, self._bindings.execution_options
        )

    def database_identity(self) -> tuple[list[str | None], int]:
        """Return what identifies the database. See `Database.identity`."""
        analyzed = self._plan.analyzed
        return self._database.identity(analyzed.mapper, analyzed.statement)

    async def _shaped(self, rows: list[Any]) -> list[dict[str, object]]:
        if self._plan.analyzed.width == 1:
            rows = [(row,) for row in rows]
        shape = self._plan.shape
        if not shape.has_related:
            return shape.build_all(rows)
        execute = self._bindings.bind_options(self._database.execute)
        return await shape.read(rows, execute, self._dialect)

    def _advise(self) -> None:
        if self._plan.advisor is not None:
            self._plan.advisor.on_query(self._dialect)

    def _advise_on_count(self, count: Count) -> None:
        if self._plan.advisor is not None and count.total is not None and count.relation == "eq":
            self._plan.advisor.on_count(count.total)
