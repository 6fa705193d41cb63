"""What a select reads from, and which of these tables join at most one row to each other row."""

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

from hasten._sqlalchemy.selects import Expression, Selection, clause_of, only


@dataclass(frozen=True, slots=True, eq=False)
class FromSources:
    """The tables, aliases and sub-queries in the FROM clause of a select."""

    all: list[FromClause] = field(default_factory=list)
    outer: set[FromClause] = field(default_factory=set)
    """Those on the nullable side of an outer join."""
    equal: list[tuple[Expression, FromClause | None]] = field(default_factory=list)
    """Columns that a condition equates with a value, and the source of the value. None: a
    parameter."""

    def __contains__(self, source: object) -> bool:
        return any(source == each for each in self.all)

    def determined_by(self, roots: Sequence[FromClause]) -> list[FromClause]:
        """Return the sources that join at most one row to each combination of rows of roots."""
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
                if any(key <= fixed for key in unique_keys(source)):
                    known.append(source)
                    unknown.remove(source)
                    found = True
        return known

    def are_determined_by(self, roots: Sequence[FromClause]) -> bool:
        """Return whether roots determine all sources."""
        known = self.determined_by(roots)
        return all(any(source == each for each in known) for source in self.all)


def from_sources(statement: Selection) -> FromSources:
    """Return the sources of a select."""
    sources = FromSources()
    for criterion in statement._where_criteria:
        _add_equalities(criterion, sources)
    table = _only_table(statement)
    # The other way compiles the select, which takes longer than the rest of its analysis.
    froms = [table] if table is not None else only(statement, func.count()).get_final_froms()
    for clause in froms:
        _add(clause, sources)
    return sources


def _only_table(statement: Selection) -> Table | None:
    """Return the table of a select of one class without joins; None if it may read others."""
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


def _add(clause: FromClause, sources: FromSources) -> list[FromClause]:
    """Add the leaves of a tree of joins, and return them."""
    if not isinstance(clause, Join):
        sources.all.append(clause)
        return [clause]
    left, right = _add(clause.left, sources), _add(clause.right, sources)
    if clause.isouter or clause.full:
        sources.outer.update(right)
    if clause.full:
        sources.outer.update(left)
    elif clause.onclause is not None:
        _add_equalities(clause.onclause, sources, right if clause.isouter else None)
    return [*left, *right]


def _add_equalities(
    criterion: ClauseElement, sources: FromSources, targets: Collection[FromClause] | None = None
) -> None:
    """Add the equalities of a condition. An outer join fixes columns of targets only."""
    for condition in _conjuncts(criterion):
        if not isinstance(condition, BinaryExpression) or condition.operator is not operators.eq:
            continue
        sides = (condition.left, condition.right)
        for column, other in (sides, sides[::-1]):
            table = getattr(column, "table", None)
            source = getattr(other, "table", None)
            if table is None or (source is None and not isinstance(other, BindParameter)):
                continue
            if targets is None or any(table == each for each in targets):
                sources.equal.append((column, source))


def _conjuncts(criterion: ClauseElement) -> Iterator[ClauseElement]:
    match criterion:
        case Grouping():
            inner: Any = criterion.element
            yield from _conjuncts(inner)
        case BooleanClauseList() if criterion.operator is operators.and_:
            for clause in criterion.get_children():
                yield from _conjuncts(clause)
        case _:
            yield criterion


# Unique keys --------------------------------------------------------------------------------------


def unique_keys(source: FromClause, *, not_null: bool = False) -> list[set[str]]:
    """Return the sets of columns, by name, that no two rows share; not_null: nor are NULL."""
    element: Any = source
    while isinstance(element, Alias):
        element = element.element
    if isinstance(element, (Subquery, CTE)):
        return [] if not_null else _group_keys(element)
    if not isinstance(element, Table):
        return []
    keys = [list(element.primary_key)]
    keys += [
        list(each.columns) for each in element.constraints if isinstance(each, UniqueConstraint)
    ]
    keys += [list(each.columns) for each in element.indexes if _is_unique_for_all(each)]
    return [
        {column.name for column in key}
        for key in keys
        if key and not (not_null and any(column.nullable for column in key))
    ]


def is_partial(index: Index) -> bool:
    """Return whether an index has a WHERE clause."""
    return any(
        index.dialect_options[name].get("where") is not None for name in ("postgresql", "sqlite")
    )


def _is_unique_for_all(index: Index) -> bool:
    is_plain = all(isinstance(each, Column) for each in index.expressions)
    return bool(index.unique) and is_plain and not is_partial(index)


def _group_keys(subquery: Subquery | CTE) -> list[set[str]]:
    """Return the names of the GROUP BY columns of a sub-query, which are a unique key of it."""
    element = subquery.element
    if not isinstance(element, Select) or not element._group_by_clauses:
        return []
    names = set()
    for clause in element._group_by_clauses:
        inner: Any = clause_of(clause)
        column = subquery.corresponding_column(inner)
        if column is None:
            return []
        names.add(column.name)
    return [names]
