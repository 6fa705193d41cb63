"""Find out which columns identify a row of a select, and which of its columns may be NULL.

- A row of one table is identified by its primary key.
- A join to at most one row (the join condition fixes a unique key of the joined table) changes
  nothing.
- A join to many rows repeats rows. If the select returns no column of the joined table, repeated
  rows cannot be intended, and the join is replaced by a semi-join: ``WHERE id IN (SELECT id …)``.
  Otherwise each pair of rows is one result row, and both primary keys together identify it.
- Rows of GROUP BY and DISTINCT are identified by the primary key if they contain it. If not, the
  caller must name the columns that identify them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import (
    Alias,
    Column,
    ColumnElement,
    FromClause,
    Join,
    Select,
    Table,
    inspect,
    select,
    tuple_,
)
from sqlalchemy.orm import LoaderCriteriaOption, Mapper

from hasten._sqlalchemy.from_sources import FromSources, find_sources, find_unique_keys
from hasten._sqlalchemy.selects import (
    Expression,
    Selection,
    is_same_expression,
    select_only,
    to_expression,
)
from hasten._sqlalchemy.sort_columns import SortColumn, SortColumns, to_sort_column
from hasten.errors import InvalidOption


@dataclass(frozen=True, slots=True, eq=False)
class AnalyzedSelect:
    """A select without ORDER BY, whose joins return no row twice, and facts about the select.

    `analyze_select` makes it from the select of the application.
    """

    statement: Selection
    identity: SortColumns
    """The columns that identify a row."""
    order: SortColumns
    """The ORDER BY of the original select."""
    width: int
    """The number of elements in a row."""
    holds_entities: bool
    """Whether rows contain ORM objects, not only columns."""
    is_grouped: bool
    is_distinct: bool
    is_keyed: bool
    """Whether the caller named the columns of identity, which may belong to several tables."""
    table: Table | None
    """The table, if the select returns all rows of one table without a condition."""
    mapper: Mapper[Any] | None
    sources: FromSources
    repeated_by: tuple[FromClause, ...] = ()
    """The joined tables that would repeat rows, and that a semi-join replaces."""

    def find_column_index(self, column: Expression) -> int | None:
        """Return the index of a column in a result row.

        Returns None if the column is not selected, and for rows that contain ORM objects.
        """
        if self.holds_entities:
            return None
        for index, expression in enumerate(_selected_expressions(self.statement)):
            if is_same_expression(to_expression(expression), column):
                return index
        return None

    def may_be_null(self, expression: Any) -> bool:
        """Return whether a column may be NULL; True for an expression that is not a column."""
        return _may_be_null(expression, self.sources)

    def make_total_order(self, keys: SortColumns) -> SortColumns:
        """Return sort keys that order the rows completely: no two rows have the same values.

        Without keys, the ORDER BY of the original select is used. The identity columns are
        appended, unless the keys are unique already. They get the direction of the last key, so
        that one index can serve the whole order. Raises `InvalidOption` for a key of a table that a
        semi-join replaced.
        """
        keys = keys or self.order
        for key in keys:
            _check_column_is_in_sources(key.column, self)
        if _is_total_order(keys, self):
            return keys
        descending = keys[-1].descending if keys else False
        missing = [
            replace(each, descending=descending)
            for each in self.identity
            if not any(is_same_expression(each.column, key.column) for key in keys)
        ]
        return (*keys, *missing)


def analyze_select(
    statement: Selection, *, identifying_columns: Sequence[Any] = ()
) -> AnalyzedSelect:
    """Analyze a select of entities or of columns.

    identifying_columns identify a row. They are needed where the select has no primary key: for
    GROUP BY and DISTINCT without it, and for rows of a sub-query. These columns may be NULL. Raises
    `InvalidOption` if nothing identifies a row.
    """
    _check_supported(statement)
    bare = statement.order_by(None)
    sources = find_sources(bare)
    root = _find_root(bare, sources)
    analyzed = AnalyzedSelect(
        statement=bare,
        identity=tuple(
            SortColumn(to_expression(each), nullable=_may_be_null(each, sources))
            for each in identifying_columns
        ),
        order=_read_order_by(statement, sources),
        width=len(statement.column_descriptions),
        holds_entities=any(_is_entity(each) for each in statement.column_descriptions),
        is_grouped=bool(bare._group_by_clauses or bare._having_criteria),
        is_distinct=bare._distinct,
        is_keyed=bool(identifying_columns),
        table=_find_table_returned_whole(bare, sources, root),
        mapper=root.mapper if root else None,
        sources=sources,
    )
    if identifying_columns:
        return analyzed
    if root is None or not root.primary_key:
        raise InvalidOption("statement", "a select without a primary key", NAME_THE_KEY)
    if analyzed.is_grouped:
        return replace(analyzed, identity=_find_identity_of_grouped_rows(bare, root, sources))
    return _with_row_identity(analyzed, root)


NAME_THE_KEY: Final = (
    "a select with the primary key among its columns, and in GROUP BY if it has one; for rows "
    "without a primary key, map a class to them, for example to a view"
)


def _check_supported(statement: Selection) -> None:
    if not isinstance(statement, Select):
        raise InvalidOption(
            "statement",
            type(statement).__name__,
            "a select; for a UNION, use select(union.subquery())",
        )
    if statement._limit_clause is not None or statement._offset_clause is not None:
        raise InvalidOption(
            "statement",
            "a select with LIMIT",
            "a select without LIMIT and OFFSET, or a select from statement.subquery()",
        )
    if statement._fetch_clause is not None:
        raise InvalidOption(
            "statement",
            "a select with FETCH",
            "a select without FETCH, or a select from statement.subquery()",
        )
    # From SQLAlchemy 2.1 on, this is an extension of the syntax.
    extension = getattr(statement, "_pre_columns_clause", None)
    if statement._distinct_on or extension is not None:
        raise InvalidOption(
            "statement",
            "a select with DISTINCT ON",
            "a select without DISTINCT ON: select from aliased(…, statement.subquery()) instead",
        )


# The identity of a row ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _RootEntity:
    """The first entity or table in the columns of a select: its rows are what the select lists."""

    source: FromClause
    primary_key: tuple[Expression, ...]
    entity: object | None
    mapper: Mapper[Any] | None


def _find_root(statement: Selection, sources: FromSources) -> _RootEntity | None:
    for description in statement.column_descriptions:
        entity = description.get("entity")
        if entity is not None:
            return _make_entity_root(entity)
        column = to_expression(description["expr"])
        table = getattr(column, "table", None)
        if table is not None and table in sources:
            return _RootEntity(table, tuple(_get_primary_key(table)), None, None)
    return None


def _make_entity_root(entity: Any) -> _RootEntity:
    mapper = inspect(entity).mapper
    primary_key = tuple(
        to_expression(getattr(entity, mapper.get_property_by_column(column).key))
        for column in mapper.primary_key
    )
    source = primary_key[0].table
    return _RootEntity(source, primary_key, entity, mapper)


def _find_identity_of_grouped_rows(
    statement: Selection, root: _RootEntity, sources: FromSources
) -> SortColumns:
    """Return the columns that identify a row of a select with GROUP BY.

    These are the primary key of the root and the other GROUP BY columns. Raises `InvalidOption` if
    GROUP BY lacks the primary key.
    """
    grouped = [to_expression(each) for each in statement._group_by_clauses]
    for column in root.primary_key:
        if not any(is_same_expression(column, each) for each in grouped):
            raise InvalidOption(
                "statement", "a select with GROUP BY but without the primary key", NAME_THE_KEY
            )
    rest = [each for each in grouped if getattr(each, "table", None) != root.source]
    return _to_sort_columns([*root.primary_key, *rest], sources)


def _with_row_identity(analyzed: AnalyzedSelect, root: _RootEntity) -> AnalyzedSelect:
    """Return the select with the columns that identify a row as its identity.

    A join that would repeat rows is replaced by a semi-join.
    """
    sources = analyzed.sources
    if sources.are_all_determined_by([root.source]) and root.source not in sources.outer:
        return _with_identity(analyzed, _to_sort_columns(root.primary_key, sources))
    if _selects_root_only(analyzed.statement, root):
        return _replace_joins_by_semi_join(analyzed, root)
    return _with_identity(
        analyzed, _to_sort_columns(_combine_primary_keys(analyzed, root), sources)
    )


def _combine_primary_keys(analyzed: AnalyzedSelect, root: _RootEntity) -> list[Expression]:
    """Return the primary keys of several tables that together identify a row of a join to many.

    Raises `InvalidOption` if one of these tables has no primary key or no name of its own.
    """
    columns = list(root.primary_key)
    chosen = [root.source]
    # Each analysis gives a new anonymous alias to an association table that the ORM inserts between
    # two entities. Such an alias is not found in a second analysis, and cannot be used in a key.
    lasting = find_sources(analyzed.statement)
    candidates = sorted(
        (source for source in analyzed.sources.all if source in lasting),
        key=lambda source: not _is_selected_from(source, analyzed.statement),
    )
    for source in candidates:
        if not any(source == each for each in analyzed.sources.find_sources_determined_by(chosen)):
            chosen.append(source)
            found = _find_selected_primary_key(source, analyzed.statement) or _get_primary_key(
                source
            )
            columns += found
            if not found:
                raise InvalidOption(
                    "statement", f"a join to {source}, which repeats rows", NAME_THE_KEY
                )
    if not analyzed.sources.are_all_determined_by(chosen):
        raise InvalidOption(
            "statement", "a join to an unnamed table, which repeats rows", NAME_THE_KEY
        )
    return columns


def _is_selected_from(source: FromClause, statement: Selection) -> bool:
    return any(getattr(column, "table", None) == source for column in statement.selected_columns)


def _find_selected_primary_key(source: FromClause, statement: Selection) -> list[Expression]:
    """Return the primary key of the ORM entity that the select loads from this source.

    Returns [] if it loads none.
    """
    for description in statement.column_descriptions:
        if description.get("entity") is not None:
            root = _make_entity_root(description["entity"])
            if root.source == source:
                return list(root.primary_key)
    return []


def _get_primary_key(source: FromClause) -> list[Expression]:
    """Return the primary key of a table or a join.

    Returns [] for a sub-query, whose rows may repeat the primary key.
    """
    element: Any = source
    while isinstance(element, Alias):
        element = element.element
    return list(source.primary_key) if isinstance(element, (Table, Join)) else []


def _with_identity(analyzed: AnalyzedSelect, identity: SortColumns) -> AnalyzedSelect:
    """Return the select with this identity and without DISTINCT.

    DISTINCT changes nothing if the identity is selected. Raises `InvalidOption` if it is not.
    """
    if analyzed.is_distinct:
        for key in identity:
            if not _is_selected(key.column, analyzed.statement):
                raise InvalidOption(
                    "statement", "a select with DISTINCT but without the primary key", NAME_THE_KEY
                )
        analyzed = replace(
            analyzed, statement=_without_distinct(analyzed.statement), is_distinct=False
        )
    return replace(analyzed, identity=identity)


def _without_distinct(statement: Selection) -> Selection:
    plain = statement.order_by(None)
    plain._distinct = False
    return plain


def _replace_joins_by_semi_join(analyzed: AnalyzedSelect, root: _RootEntity) -> AnalyzedSelect:
    """Replace the joins of a select by ``WHERE id IN (SELECT id …)``, so that no row is repeated.

    The joins and conditions move into the sub-query; the outer select reads the root only. Raises
    `InvalidOption` for ``contains_eager()``, which needs the joined rows.
    """
    statement = analyzed.statement
    if any(_is_contains_eager(option) for option in statement._with_options):
        raise InvalidOption(
            "statement",
            "a select with contains_eager() over a join to many rows",
            "a select with selectinload() instead of contains_eager(), because a page shows each "
            "row once",
        )
    if analyzed.is_distinct and not all(
        _is_selected(column, statement) for column in root.primary_key
    ):
        raise InvalidOption(
            "statement", "a select with DISTINCT but without the primary key", NAME_THE_KEY
        )
    primary_key = tuple(root.primary_key)
    inside = _without_distinct(select_only(statement, *primary_key)).correlate(None)
    whole = primary_key[0] if len(primary_key) == 1 else tuple_(*primary_key)
    outside: Selection = (
        select(*_selected_expressions(statement))
        .options(*statement._with_options)
        .execution_options(**statement.get_execution_options())
        .where(whole.in_(inside))
    )
    sources = find_sources(outside)
    once = analyzed.sources.find_sources_determined_by([root.source])
    return replace(
        analyzed,
        statement=outside,
        repeated_by=tuple(
            source for source in analyzed.sources.all if not any(source == each for each in once)
        ),
        identity=_to_sort_columns(primary_key, sources),
        is_distinct=False,
        sources=sources,
    )


def _is_contains_eager(option: object) -> bool:
    return any(
        "eager_from_alias" in getattr(step, "local_opts", ())
        for step in getattr(option, "context", ())
    )


def _selects_root_only(statement: Selection, root: _RootEntity) -> bool:
    for description in statement.column_descriptions:
        if root.entity is not None:
            if description.get("entity") is not root.entity:
                return False
        elif getattr(to_expression(description["expr"]), "table", None) != root.source:
            return False
    return True


def _is_selected(column: Expression, statement: Selection) -> bool:
    """Return whether a select returns a column, on its own or as primary key of an ORM object."""
    for description in statement.column_descriptions:
        if _is_entity(description):
            if any(
                is_same_expression(column, each)
                for each in _make_entity_root(description.get("entity")).primary_key
            ):
                return True
        elif is_same_expression(column, to_expression(description["expr"])):
            return True
    return False


def _find_table_returned_whole(
    statement: Selection, sources: FromSources, root: _RootEntity | None
) -> Table | None:
    """Return the table if the select returns all rows of one table; None if it has a condition."""
    single = root is not None and root.mapper is not None and root.mapper.single
    is_plain = not (
        statement._where_criteria
        or statement._group_by_clauses
        or statement._having_criteria
        or statement._distinct
        or any(isinstance(each, LoaderCriteriaOption) for each in statement._with_options)
        or single
    )
    if is_plain and len(sources.all) == 1:
        source: Any = sources.all[0]
        source = getattr(source, "element", source) if isinstance(source, Alias) else source
        return source if isinstance(source, Table) else None
    return None


# Columns ------------------------------------------------------------------------------------------


def _selected_expressions(statement: Selection) -> list[Any]:
    return [description["expr"] for description in statement.column_descriptions]


def _is_entity(description: Any) -> bool:
    """Return whether an item of ``column_descriptions`` is an ORM entity, not a column."""
    return not isinstance(to_expression(description["expr"]), ColumnElement)


def _to_sort_columns(columns: Sequence[Expression], sources: FromSources) -> SortColumns:
    """Return key columns as ascending sort columns, nullable only after an outer join."""
    return tuple(
        SortColumn(column, nullable=getattr(column, "table", None) in sources.outer)
        for column in columns
    )


def _may_be_null(expression: Any, sources: FromSources) -> bool:
    column = to_expression(expression)
    if not isinstance(column, Column):
        return True
    is_of_table = isinstance(getattr(column.table, "element", column.table), Table)
    return bool(column.nullable) or not is_of_table or column.table in sources.outer


def _is_total_order(keys: SortColumns, analyzed: AnalyzedSelect) -> bool:
    """Return whether no two rows can have equal values of these keys.

    That is so if the keys contain the identity, or another unique key without NULLs of its table.
    """
    if all(
        any(is_same_expression(each.column, key.column) for key in keys)
        for each in analyzed.identity
    ):
        return True
    tables = {getattr(each.column, "table", None) for each in analyzed.identity}
    if len(tables) != 1 or analyzed.is_keyed or analyzed.is_grouped:
        return False
    (table,) = tables
    if table is None or table in analyzed.sources.outer:
        return False
    names = {
        key.column.name
        for key in keys
        if isinstance(key.column, Column) and key.column.table == table
    }
    return any(key <= names for key in find_unique_keys(table, only_not_null=True))


def _check_column_is_in_sources(column: Expression, analyzed: AnalyzedSelect) -> None:
    """Raise `InvalidOption` for a sort column of a joined table that a semi-join has replaced.

    The select can no longer refer to such a column, which had several values for each row.
    """
    table = getattr(column, "table", None)
    if table is None or table in analyzed.sources:
        return
    raise InvalidOption(
        "sort",
        str(column),
        "a column with one value in each row: the join to its table yields several values",
    )


def _read_order_by(statement: Selection, sources: FromSources) -> SortColumns:
    keys = [to_sort_column(to_expression(clause)) for clause in statement._order_by_clauses]
    return tuple(replace(key, nullable=_may_be_null(key.column, sources)) for key in keys)
