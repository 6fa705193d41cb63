"""The tables that a select reads from, and which of its joins cannot repeat rows.

A joined table cannot repeat rows if the join condition fixes all columns of one of its unique keys:
then it has at most one row for each row of the other tables.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import (
    Alias,
    ClauseElement,
    Column,
    FromClause,
    Index,
    Join,
    Select,
    Subquery,
    Table,
    UniqueConstraint,
    func,
)
from sqlalchemy.orm import Mapper
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BinaryExpression, BindParameter, BooleanClauseList, Grouping
from sqlalchemy.sql.selectable import CTE

from hasten._sqlalchemy.selects import Expression, Selection, select_only, to_expression


@dataclass(frozen=True, slots=True, eq=False)
class FromSources:
    """The sources of a select: the tables, aliases and sub-queries in its FROM clause."""

    all: list[FromClause] = field(default_factory=list)
    outer: set[FromClause] = field(default_factory=set)
    """The sources on the nullable side of an outer join."""
    equal: list[tuple[Expression, FromClause | None]] = field(default_factory=list)
    """The columns that a condition with ``=`` fixes. The second item is the source of the column on
    the other side, or None if the other side is a parameter."""

    def __contains__(self, source: object) -> bool:
        return any(source == each for each in self.all)

    def find_sources_determined_by(self, roots: Sequence[FromClause]) -> list[FromClause]:
        """Return roots, and all sources that join at most one row to each row of roots."""
        known = list(roots)
        unknown = [source for source in self.all if not any(source == root for root in roots)]
        found = True
        while found:
            found = False
            for source in list(unknown):
                fixed = {
                    column.name
                    for column, other in self.equal
                    if column.table == source
                    if other is None or any(other == each for each in known)
                }
                if any(key <= fixed for key in find_unique_keys(source)):
                    known.append(source)
                    unknown.remove(source)
                    found = True
        return known

    def are_all_determined_by(self, roots: Sequence[FromClause]) -> bool:
        """Return whether joining all other sources to roots repeats no row of roots."""
        known = self.find_sources_determined_by(roots)
        return all(any(source == each for each in known) for source in self.all)


def find_sources(statement: Selection) -> FromSources:
    """Return the sources of a select, with the equalities in its WHERE and ON conditions."""
    sources = FromSources()
    for criterion in statement._where_criteria:
        _add_equalities(criterion, sources)
    table = _find_single_table(statement)
    # get_final_froms() compiles the select, which takes longer than the rest of its analysis.
    froms = [table] if table is not None else select_only(statement, func.count()).get_final_froms()
    for clause in froms:
        _add_sources(clause, sources)
    return sources


def _find_single_table(statement: Selection) -> Table | None:
    """Return the table of a select of one class without joins; None if it may read more tables."""
    columns = statement._raw_columns
    if statement._setup_joins or statement._from_obj or len(columns) != 1:
        return None
    if not isinstance(columns[0], FromClause):
        return None
    mapper = columns[0]._annotations.get("parententity")
    if not isinstance(mapper, Mapper) or mapper.with_polymorphic or mapper.inherits:
        return None
    table = mapper.persist_selectable
    if not isinstance(table, Table) or any(
        source != table for each in statement._where_criteria for source in each._from_objects
    ):
        return None
    return table


def _add_sources(clause: FromClause, sources: FromSources) -> list[FromClause]:
    """Add the tables of a FROM clause, which may be a tree of joins, and return these tables."""
    if not isinstance(clause, Join):
        sources.all.append(clause)
        return [clause]
    left, right = _add_sources(clause.left, sources), _add_sources(clause.right, sources)
    if clause.isouter or clause.full:
        sources.outer.update(right)
    if clause.full:
        sources.outer.update(left)
    elif clause.onclause is not None:
        _add_equalities(clause.onclause, sources, right if clause.isouter else None)
    return [*left, *right]


def _add_equalities(
    criterion: ClauseElement,
    sources: FromSources,
    only_columns_of: Collection[FromClause] | None = None,
) -> None:
    """Add the equalities ``column = column`` and ``column = parameter`` of a condition.

    With only_columns_of, columns of other sources are not added: the ON condition of an outer join
    says nothing about the rows of the other side, which are returned without a match, too.
    """
    for condition in _split_conjuncts(criterion):
        if not isinstance(condition, BinaryExpression) or condition.operator is not operators.eq:
            continue
        sides = (condition.left, condition.right)
        for column, other in (sides, sides[::-1]):
            table = getattr(column, "table", None)
            source = getattr(other, "table", None)
            if table is None or (source is None and not isinstance(other, BindParameter)):
                continue
            if only_columns_of is None or any(table == each for each in only_columns_of):
                sources.equal.append((column, source))


def _split_conjuncts(criterion: ClauseElement) -> Iterator[ClauseElement]:
    """Split a condition at its ANDs: yield the parts, or the condition itself without AND."""
    match criterion:
        case Grouping():
            inner: Any = criterion.element
            yield from _split_conjuncts(inner)
        case BooleanClauseList() if criterion.operator is operators.and_:
            for clause in criterion.get_children():
                yield from _split_conjuncts(clause)
        case _:
            yield criterion


# Unique keys --------------------------------------------------------------------------------------


def find_unique_keys(source: FromClause, *, only_not_null: bool = False) -> list[set[str]]:
    """Return the unique keys of a source: each is a set of column names.

    These are the primary key, unique constraints and unique indexes of a table, or the GROUP BY
    columns of a sub-query. With only_not_null, keys with a nullable column are left out, because a
    unique index may hold several NULLs.
    """
    element: Any = source
    while isinstance(element, Alias):
        element = element.element
    if isinstance(element, (Subquery, CTE)):
        return [] if only_not_null else _find_group_by_key(element)
    if not isinstance(element, Table):
        return []
    keys = [list(element.primary_key)]
    keys += [
        list(each.columns) for each in element.constraints if isinstance(each, UniqueConstraint)
    ]
    keys += [list(each.columns) for each in element.indexes if _is_unique_key(each)]
    return [
        {column.name for column in key}
        for key in keys
        if key and not (only_not_null and any(column.nullable for column in key))
    ]


def is_partial(index: Index) -> bool:
    """Return whether an index has a WHERE clause."""
    return any(
        index.dialect_options[name].get("where") is not None for name in ("postgresql", "sqlite")
    )


def _is_unique_key(index: Index) -> bool:
    """Return whether an index is unique, contains only columns, and covers all rows."""
    is_plain = all(isinstance(each, Column) for each in index.expressions)
    return bool(index.unique) and is_plain and not is_partial(index)


def _find_group_by_key(subquery: Subquery | CTE) -> list[set[str]]:
    """Return the only known unique key of a sub-query: its GROUP BY columns.

    Returns [] without GROUP BY, or if the sub-query does not select all of these columns.
    """
    element = subquery.element
    if not isinstance(element, Select) or not element._group_by_clauses:
        return []
    names = set()
    for clause in element._group_by_clauses:
        inner: Any = to_expression(clause)
        column = subquery.corresponding_column(inner)
        if column is None:
            return []
        names.add(column.name)
    return [names]
