"""Columns to sort by, and whether each database sorts NULLs first or last."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeAlias

from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import UnaryExpression

from hasten._sqlalchemy.selects import Expression

Nulls = Literal["first", "last"]

NULLS_ARE_LARGEST: Final = frozenset({"postgresql", "oracle", "cockroachdb"})
"""The dialects that sort NULL after all values by default; the others sort it before them."""

WITHOUT_NULLS_SYNTAX: Final = frozenset({"mysql", "mariadb"})
"""The dialects that have no NULLS FIRST and NULLS LAST."""


@dataclass(frozen=True, slots=True, eq=False)
class SortColumn:
    """One column or expression of an ORDER BY, with its direction and the place of NULLs."""

    column: Expression
    descending: bool = False
    nullable: bool = False
    nulls: Nulls | None = None
    """Where to sort NULLs; None for the default of the database. Ignored if not nullable."""

    def reverse(self, dialect: str) -> SortColumn:
        """Return this column sorted the other way round, NULLs included."""
        nulls: Nulls = "last" if self.sorts_nulls_first(dialect) else "first"
        return replace(self, descending=not self.descending, nulls=nulls)

    def sorts_nulls_first(self, dialect: str) -> bool:
        """Return whether NULLs come first in this order on this database."""
        if self.nulls is None:
            return self.sorts_nulls_first_by_default(dialect)
        return self.nulls == "first"

    def sorts_nulls_first_by_default(self, dialect: str) -> bool:
        """Return whether this database puts NULLs first if only ASC or DESC is given.

        An index without a NULLS clause, read in this direction, has them in the same place.
        """
        return self.descending == (dialect in NULLS_ARE_LARGEST)

    def matches_default_null_order(self, dialect: str) -> bool:
        """Return whether NULLs are wanted where the database puts them anyway.

        Then ORDER BY needs no NULLS clause, and an index without one can serve it. True as well if
        the column is never NULL.
        """
        return not self.nullable or self.sorts_nulls_first(
            dialect
        ) == self.sorts_nulls_first_by_default(dialect)


SortColumns: TypeAlias = tuple[SortColumn, ...]


def make_order_by_terms(keys: SortColumns, dialect: str) -> list[Expression]:
    """Return the terms of an ORDER BY clause.

    NULLS FIRST or NULLS LAST is only written where it differs from the default of the database.
    """
    terms: list[Expression] = []
    for key in keys:
        term = key.column.desc() if key.descending else key.column.asc()
        if not key.matches_default_null_order(dialect):
            first = key.sorts_nulls_first(dialect)
            if dialect in WITHOUT_NULLS_SYNTAX:
                is_null = key.column.is_(None)
                terms.append(is_null.desc() if first else is_null.asc())
            else:
                term = term.nulls_first() if first else term.nulls_last()
        terms.append(term)
    return terms


def to_sort_column(expression: Any) -> SortColumn:
    """Parse a term of ORDER BY or of an index, such as ``Post.created_at.desc()``.

    The result is marked as nullable, because the expression does not show whether it may be NULL.
    """
    descending, nulls = False, None
    while isinstance(expression, UnaryExpression):
        match expression.modifier:
            case operators.desc_op:
                descending = True
            case operators.asc_op:
                pass
            case operators.nulls_first_op:
                nulls = "first"
            case operators.nulls_last_op:
                nulls = "last"
            case _:
                break
        expression = expression.element
    return SortColumn(expression, descending, nullable=True, nulls=nulls)  # type: ignore[arg-type]
