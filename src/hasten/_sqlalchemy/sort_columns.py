"""Columns to sort by, and where each database puts NULLs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeAlias

from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import UnaryExpression

from hasten._sqlalchemy.selects import Expression

Nulls = Literal["first", "last"]

NULLS_ARE_LARGEST: Final = frozenset({"postgresql", "oracle", "cockroachdb"})

WITHOUT_NULLS_SYNTAX: Final = frozenset({"mysql", "mariadb"})


@dataclass(frozen=True, slots=True, eq=False)
class SortColumn:
    """One column or expression of an ORDER BY."""

    column: Expression
    descending: bool = False
    nullable: bool = False
    nulls: Nulls | None = None
    """None is where the database puts them by default. Has no effect if not nullable."""

    def reversed(self, dialect: str) -> SortColumn:
        """Return the same for reading the order from its end."""
        nulls: Nulls = "last" if self.nulls_first(dialect) else "first"
        return replace(self, descending=not self.descending, nulls=nulls)

    def nulls_first(self, dialect: str) -> bool:
        """Return whether NULLs come first."""
        if self.nulls is None:
            return self.native_nulls_first(dialect)
        return self.nulls == "first"

    def native_nulls_first(self, dialect: str) -> bool:
        """Return whether a plain index that is read in this direction has NULLs first."""
        return self.descending == (dialect in NULLS_ARE_LARGEST)

    def is_native(self, dialect: str) -> bool:
        """Return whether a plain index has the NULLs at the requested end."""
        return not self.nullable or self.nulls_first(dialect) == self.native_nulls_first(dialect)


SortColumns: TypeAlias = tuple[SortColumn, ...]


def order_by(keys: SortColumns, dialect: str) -> list[Expression]:
    """Return the terms of ORDER BY; NULLS FIRST or LAST only where the default is the other."""
    terms: list[Expression] = []
    for key in keys:
        term = key.column.desc() if key.descending else key.column.asc()
        if not key.is_native(dialect):
            first = key.nulls_first(dialect)
            if dialect in WITHOUT_NULLS_SYNTAX:
                is_null = key.column.is_(None)
                terms.append(is_null.desc() if first else is_null.asc())
            else:
                term = term.nulls_first() if first else term.nulls_last()
        terms.append(term)
    return terms


def sort_column_of(expression: Any) -> SortColumn:
    """Return the column of an ORDER BY clause or an index, with its direction. It may be NULL."""
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
