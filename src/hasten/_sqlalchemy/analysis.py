"""What a select says about its rows: which columns identify a row, and which may be NULL.

For one table, the primary key identifies a row. A join to at most one row (its unique key is
equated with columns that are fixed already) changes nothing. A join to many rows repeats rows: if
nothing of the joined table is selected, the repetition cannot be intended, and the join becomes a
semi-join, `WHERE id IN (SELECT id …)`. If something of it is selected, each pair is a row, and both
primary keys together identify it. Rows of GROUP BY and DISTINCT have no known key, unless they hold
the primary key: then the caller names one.
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

from hasten._sqlalchemy.from_sources import FromSources, from_sources, unique_keys
from hasten._sqlalchemy.selects import Expression, Selection, clause_of, is_same, only
from hasten._sqlalchemy.sort_columns import SortColumn, SortColumns, sort_column_of
from hasten.errors import InvalidOption


@dataclass(frozen=True, slots=True, eq=False)
class AnalyzedSelect:
    """A select without ORDER BY that returns each of its rows once."""

    statement: Selection
    identity: SortColumns
    """The columns that identify a row."""
    order: SortColumns
    """The ORDER BY that the select came with."""
    width: int
    """How many elements a row has."""
    holds_entities: bool
    """Whether a row holds objects of the ORM, not only columns."""
    is_grouped: bool
    is_distinct: bool
    is_keyed: bool
    """Whether the caller named the identity, so it may not be of one table."""
    table: Table | None
    """The one table whose rows it returns all, without a condition."""
    mapper: Mapper[Any] | None
    sources: FromSources
    repeated_by: tuple[FromClause, ...] = ()
    """The joins to many that became a semi-join."""

    def find(self, column: Expression) -> int | None:
        """Return the index of a column in a row, None if it is not selected as such."""
        if self.holds_entities:
            return None
        for index, expression in enumerate(_expressions(self.statement)):
            if is_same(clause_of(expression), column):
                return index
        return None

    def may_be_null(self, expression: Any) -> bool:
        """Return whether a column may be NULL. For other expressions this is unknown: True."""
        return _may_be_null(expression, self.sources)

    def total_order(self, keys: SortColumns) -> SortColumns:
        """Return keys that no two rows share: these, or the select's own order, and the identity.

        The identity is appended in the direction of the last key, so that one index serves, unless
        the keys are unique already. Raises `InvalidOption` for a key that a semi-join removed.
        """
        keys = keys or self.order
        for key in keys:
            _check_reachable(key.column, self)
        if _is_total(keys, self):
            return keys
        descending = keys[-1].descending if keys else False
        missing = [
            replace(each, descending=descending)
            for each in self.identity
            if not any(is_same(each.column, key.column) for key in keys)
        ]
        return (*keys, *missing)


def analyze(statement: Selection, *, key: Sequence[Any] = ()) -> AnalyzedSelect:
    """Analyze a select of entities or of columns.

    key names the columns that identify a row, where the select does not: for GROUP BY and DISTINCT
    without a primary key, and for rows of a sub-query. They may be NULL. Raises `InvalidOption`
    where rows could not be identified.
    """
    _check_kind(statement)
    bare = statement.order_by(None)
    sources = from_sources(bare)
    root = _find_root(bare, sources)
    analyzed = AnalyzedSelect(
        statement=bare,
        identity=tuple(
            SortColumn(clause_of(each), nullable=_may_be_null(each, sources)) for each in key
        ),
        order=_order_of(statement, sources),
        width=len(statement.column_descriptions),
        holds_entities=any(_is_entity(each) for each in statement.column_descriptions),
        is_grouped=bool(bare._group_by_clauses or bare._having_criteria),
        is_distinct=bare._distinct,
        is_keyed=bool(key),
        table=_whole_table(bare, sources, root),
        mapper=root.mapper if root else None,
        sources=sources,
    )
    if key:
        return analyzed
    if root is None or not root.primary_key:
        raise InvalidOption("statement", "a select without a primary key", NAME_THE_KEY)
    if analyzed.is_grouped:
        return replace(analyzed, identity=_group_identity(bare, root, sources))
    return _identify(analyzed, root)


NAME_THE_KEY: Final = (
    "the primary key in what it selects or groups by; for other rows, a class that is mapped to "
    "them, as to a view"
)


def _check_kind(statement: Selection) -> None:
    if not isinstance(statement, Select):
        raise InvalidOption(
            "statement", type(statement).__name__, "a select: for a UNION, select(union.subquery())"
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
            "a select of aliased(…, statement.subquery()), which has the same rows",
        )


# What the rows are of -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Root:
    """The first entity or table that a select selects."""

    source: FromClause
    primary_key: tuple[Expression, ...]
    entity: object | None
    mapper: Mapper[Any] | None


def _find_root(statement: Selection, sources: FromSources) -> _Root | None:
    for description in statement.column_descriptions:
        entity = description.get("entity")
        if entity is not None:
            return _entity_root(entity)
        column = clause_of(description["expr"])
        table = getattr(column, "table", None)
        if table is not None and table in sources:
            return _Root(table, tuple(_primary_key(table)), None, None)
    return None


def _entity_root(entity: Any) -> _Root:
    mapper = inspect(entity).mapper
    primary_key = tuple(
        clause_of(getattr(entity, mapper.get_property_by_column(column).key))
        for column in mapper.primary_key
    )
    source = primary_key[0].table
    return _Root(source, primary_key, entity, mapper)


def _group_identity(statement: Selection, root: _Root, sources: FromSources) -> SortColumns:
    grouped = [clause_of(each) for each in statement._group_by_clauses]
    for column in root.primary_key:
        if not any(is_same(column, each) for each in grouped):
            raise InvalidOption("statement", "GROUP BY without the primary key", NAME_THE_KEY)
    rest = [each for each in grouped if getattr(each, "table", None) != root.source]
    return _as_keys([*root.primary_key, *rest], sources)


def _identify(analyzed: AnalyzedSelect, root: _Root) -> AnalyzedSelect:
    sources = analyzed.sources
    if sources.are_determined_by([root.source]) and root.source not in sources.outer:
        return _identified(analyzed, _as_keys(root.primary_key, sources))
    if _is_of_root_alone(analyzed.statement, root):
        return _semi_joined(analyzed, root)
    return _identified(analyzed, _as_keys(_identity_of_pairs(analyzed, root), sources))


def _identity_of_pairs(analyzed: AnalyzedSelect, root: _Root) -> list[Expression]:
    """Return the primary keys that together identify a row of the select."""
    columns = list(root.primary_key)
    chosen = [root.source]
    # What the ORM puts between two entities gets a new name each time: it can determine nothing.
    lasting = from_sources(analyzed.statement)
    candidates = sorted(
        (source for source in analyzed.sources.all if source in lasting),
        key=lambda source: not _is_selected_from(source, analyzed.statement),
    )
    for source in candidates:
        if not any(source == each for each in analyzed.sources.determined_by(chosen)):
            chosen.append(source)
            found = _selected_key(source, analyzed.statement) or _primary_key(source)
            columns += found
            if not found:
                raise InvalidOption("statement", f"a join to many of {source}", NAME_THE_KEY)
    if not analyzed.sources.are_determined_by(chosen):
        raise InvalidOption("statement", "a join to many that has no name", NAME_THE_KEY)
    return columns


def _is_selected_from(source: FromClause, statement: Selection) -> bool:
    return any(getattr(column, "table", None) == source for column in statement.selected_columns)


def _selected_key(source: FromClause, statement: Selection) -> list[Expression]:
    """Return the primary key of the entity that is selected from this source, or []."""
    for description in statement.column_descriptions:
        if description.get("entity") is not None:
            root = _entity_root(description["entity"])
            if root.source == source:
                return list(root.primary_key)
    return []


def _primary_key(source: FromClause) -> list[Expression]:
    """Return the primary key of a table, [] for a sub-query: it may be repeated there."""
    element: Any = source
    while isinstance(element, Alias):
        element = element.element
    return list(source.primary_key) if isinstance(element, (Table, Join)) else []


def _identified(analyzed: AnalyzedSelect, identity: SortColumns) -> AnalyzedSelect:
    """Store the identity. Removes DISTINCT, which changes nothing where the key is selected."""
    if analyzed.is_distinct:
        for key in identity:
            if not _is_selected(key.column, analyzed.statement):
                raise InvalidOption("statement", "DISTINCT without the primary key", NAME_THE_KEY)
        analyzed = replace(
            analyzed, statement=_without_distinct(analyzed.statement), is_distinct=False
        )
    return replace(analyzed, identity=identity)


def _without_distinct(statement: Selection) -> Selection:
    plain = statement.order_by(None)
    plain._distinct = False
    return plain


def _semi_joined(analyzed: AnalyzedSelect, root: _Root) -> AnalyzedSelect:
    statement = analyzed.statement
    if any(_is_contains_eager(option) for option in statement._with_options):
        raise InvalidOption(
            "statement",
            "contains_eager() over a join to many",
            "selectinload() in addition to the join: a page has each row once",
        )
    if analyzed.is_distinct and not all(
        _is_selected(column, statement) for column in root.primary_key
    ):
        raise InvalidOption("statement", "DISTINCT without the primary key", NAME_THE_KEY)
    primary_key = tuple(root.primary_key)
    inside = _without_distinct(only(statement, *primary_key)).correlate(None)
    whole = primary_key[0] if len(primary_key) == 1 else tuple_(*primary_key)
    outside: Selection = (
        select(*_expressions(statement))
        .options(*statement._with_options)
        .execution_options(**statement.get_execution_options())
        .where(whole.in_(inside))
    )
    sources = from_sources(outside)
    once = analyzed.sources.determined_by([root.source])
    return replace(
        analyzed,
        statement=outside,
        repeated_by=tuple(
            source for source in analyzed.sources.all if not any(source == each for each in once)
        ),
        identity=_as_keys(primary_key, sources),
        is_distinct=False,
        sources=sources,
    )


def _is_contains_eager(option: object) -> bool:
    return any(
        "eager_from_alias" in getattr(step, "local_opts", ())
        for step in getattr(option, "context", ())
    )


def _is_of_root_alone(statement: Selection, root: _Root) -> bool:
    for description in statement.column_descriptions:
        if root.entity is not None:
            if description.get("entity") is not root.entity:
                return False
        elif getattr(clause_of(description["expr"]), "table", None) != root.source:
            return False
    return True


def _is_selected(column: Expression, statement: Selection) -> bool:
    for description in statement.column_descriptions:
        if _is_entity(description):
            if any(
                is_same(column, each)
                for each in _entity_root(description.get("entity")).primary_key
            ):
                return True
        elif is_same(column, clause_of(description["expr"])):
            return True
    return False


def _whole_table(statement: Selection, sources: FromSources, root: _Root | None) -> Table | None:
    """Return the table if the select returns all of its rows and nothing else."""
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


def _expressions(statement: Selection) -> list[Any]:
    return [description["expr"] for description in statement.column_descriptions]


def _is_entity(description: Any) -> bool:
    return not isinstance(clause_of(description["expr"]), ColumnElement)


def _as_keys(columns: Sequence[Expression], sources: FromSources) -> SortColumns:
    return tuple(
        SortColumn(column, nullable=getattr(column, "table", None) in sources.outer)
        for column in columns
    )


def _may_be_null(expression: Any, sources: FromSources) -> bool:
    column = clause_of(expression)
    if not isinstance(column, Column):
        return True
    is_of_table = isinstance(getattr(column.table, "element", column.table), Table)
    return bool(column.nullable) or not is_of_table or column.table in sources.outer


def _is_total(keys: SortColumns, analyzed: AnalyzedSelect) -> bool:
    if all(any(is_same(each.column, key.column) for key in keys) for each in analyzed.identity):
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
    return any(key <= names for key in unique_keys(table, not_null=True))


def _check_reachable(column: Expression, analyzed: AnalyzedSelect) -> None:
    """Raise `InvalidOption` for a sort column of a table that a semi-join has removed."""
    table = getattr(column, "table", None)
    if table is None or table in analyzed.sources:
        return
    raise InvalidOption(
        "sort",
        str(column),
        "a column with one value in each row: a table of a join to many has several",
    )


def _order_of(statement: Selection, sources: FromSources) -> SortColumns:
    keys = [sort_column_of(clause_of(clause)) for clause in statement._order_by_clauses]
    return tuple(replace(key, nullable=_may_be_null(key.column, sources)) for key in keys)
