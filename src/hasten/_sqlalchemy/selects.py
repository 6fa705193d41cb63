"""Functions that read a SQLAlchemy select (its entity, its ORDER BY) or copy it with changes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from sqlalchemy import (
    Column,
    ColumnElement,
    FromClause,
    Select,
    asc,
    desc,
    inspect,
    nulls_first,
    nulls_last,
    select,
    tuple_,
)
from sqlalchemy.orm import LoaderCriteriaOption, Mapper, UserDefinedOption
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import (
    Label,
    TextClause,
    UnaryExpression,
    _label_reference,
    _textual_label_reference,
)

from hasten.errors import InvalidOption

if TYPE_CHECKING:
    Selection: TypeAlias = Select[*tuple[Any, ...]]
    """A SELECT statement, with any columns."""
else:
    Selection = Select  # SQLAlchemy 2.0 has one type parameter here, 2.1 any number

Expression: TypeAlias = ColumnElement[Any]


def get_mapper(model: type) -> Mapper[Any]:
    """Return the SQLAlchemy mapper of a class. Raises `InvalidOption` if it is not mapped."""
    mapper: object = inspect(model, raiseerr=False)
    if not isinstance(mapper, Mapper):
        raise InvalidOption("model", model, "a class that is mapped to a table")
    return mapper


def get_selected_entity(statement: Selection, mapper: Mapper[Any]) -> Any:
    """Return the entity that a select selects: the mapped class, a subclass, or an alias of either.

    Raises `InvalidOption` if the select has other or more columns than this entity.
    """
    given: object = statement
    if isinstance(given, Select) and _selects_class_only(given, mapper):
        return mapper.class_
    if isinstance(given, Select) and len(statement.column_descriptions) == 1:
        description = statement.column_descriptions[0]
        entity = description.get("entity")
        if entity is not None and description["expr"] is entity:
            found = inspect(entity).mapper
            if found is mapper or found.isa(mapper):
                return entity
    name = mapper.class_.__name__
    raise InvalidOption(
        "statement",
        type(statement).__name__,
        f"a select of {name} and nothing else: select({name}).where(…)",
    )


def _selects_class_only(statement: Selection, mapper: Mapper[Any]) -> bool:
    """Return whether a select has the form ``select(Post)``, for exactly this class.

    This is the usual case, and the check is ten times as fast as ``column_descriptions``.
    """
    columns = statement._raw_columns
    if len(columns) != 1 or not isinstance(columns[0], FromClause):
        return False
    return columns[0]._annotations.get("parententity") is mapper


def to_expression(expression: Any) -> Expression:
    """Return the SQL expression of an ORM attribute, such as ``Post.id``.

    An argument that is already an SQL expression is returned unchanged.
    """
    if hasattr(expression, "__clause_element__"):
        expression = expression.__clause_element__()
    found: Expression = expression
    return found


def is_same_expression(one: Expression, other: Expression) -> bool:
    """Return whether two expressions are the same column or have the same structure."""
    if isinstance(one, Column) and isinstance(other, Column):
        return bool(one.table == other.table) and one.name == other.name
    return one is other or bool(one.compare(other))


# Options ------------------------------------------------------------------------------------------


def pick_filter_options(options: Iterable[Any]) -> tuple[Any, ...]:
    """Return those statement options that filter rows or that event listeners of the session read.

    Loader options, such as ``selectinload()``, are left out.
    """
    if not options:
        return ()
    return tuple(each for each in options if isinstance(each, _FILTERS))


_FILTERS: Final = (LoaderCriteriaOption, UserDefinedOption)


def without_order_and_loading(statement: Selection) -> Selection:
    """Return the select without its ORDER BY and without its loader options."""
    plain = statement.order_by(None)
    plain._with_options = pick_filter_options(statement._with_options)
    return plain


def select_only(statement: Selection, *columns: Any) -> Selection:
    """Return the select with these columns instead of its own.

    ORDER BY and loader options are removed.
    """
    bare = without_order_and_loading(statement)
    return bare.with_only_columns(*columns, maintain_column_froms=True)


def copy_orm_filters_to_outer(inner: Selection, outer: Selection) -> Selection:
    """Return outer, which selects from the sub-query inner, with the ORM filters of inner added.

    The ORM applies ``with_loader_criteria()`` and session listeners only to the statement that is
    executed, and only if it is marked as an ORM statement. So the filter options of inner and its
    mark are copied to outer.
    """
    # After with_only_columns(), SQLAlchemy keeps the earlier options together with the earlier
    # entities, in _memoized_select_entities.
    earlier: Any = inner._memoized_select_entities
    options = [option for each in (*earlier, inner) for option in each._with_options]
    found = outer.options(*pick_filter_options(options))
    found._propagate_attrs = inner._propagate_attrs
    return found


# Replacing columns --------------------------------------------------------------------------------


def make_safe_for_with_only_columns(statement: Selection, entity: Any) -> Selection:
    """Return a copy of the select that still works after ``with_only_columns()``.

    Loader options are removed; filter options stay. A string in ORDER BY is replaced by the
    attribute with that name, because the selected column that it refers to may be removed.
    Raises `InvalidOption` for a select with FOR UPDATE.
    """
    if statement._for_update_arg is not None:
        raise InvalidOption(
            "statement",
            "a select with FOR UPDATE",
            "a select without with_for_update(): pages and fields are read with joins and counts, "
            "which databases cannot lock; lock the rows with a separate select",
        )
    plain = statement
    if statement._with_options:
        plain = statement.where()
        plain._with_options = pick_filter_options(statement._with_options)
    orders = order_by_clauses(statement, entity)
    if not orders:
        return plain
    return plain.order_by(None).order_by(
        *[order.apply_direction_to(order.expression) for order in orders]
    )


def has_limit_distinct_or_group_by(statement: Selection) -> bool:
    """Return whether the select has LIMIT, OFFSET, FETCH, DISTINCT or GROUP BY.

    A join that is added to such a select would change which rows it returns.
    """
    limits = (statement._limit_clause, statement._offset_clause, statement._fetch_clause)
    return bool(
        any(clause is not None for clause in limits)
        or statement._distinct
        or statement._group_by_clauses
    )


def without_rows_repeated_by_joins(statement: Selection, mapper: Mapper[Any]) -> Selection:
    """Return a select that returns each row once where a one-to-many join would repeat it.

    The new select has no ORDER BY. A select without joins, or with LIMIT, DISTINCT or GROUP BY, is
    returned unchanged.
    """
    entity = get_selected_entity(statement, mapper)
    is_joined = (
        statement._setup_joins or statement._from_obj or len(statement.get_final_froms()) > 1
    )
    if has_limit_distinct_or_group_by(statement) or not is_joined:
        return statement
    names = [mapper.get_property_by_column(column).key for column in mapper.primary_key]
    keys = [getattr(entity, name) for name in names]
    plain = make_safe_for_with_only_columns(statement, entity)
    inside = plain.order_by(None).with_only_columns(*keys, maintain_column_froms=True)
    key = keys[0] if len(keys) == 1 else tuple_(*keys)
    found: Selection = select(entity).where(key.in_(inside.correlate(None)))
    return found


class OrderByClause(NamedTuple):
    """One clause of ORDER BY, split into the expression and its direction."""

    expression: Any
    """The expression without ``desc()``, ``nulls_last()`` and the like."""
    modifiers: tuple[Any, ...]
    """The functions that set the direction, such as ``desc``; the outermost one comes first."""

    def apply_direction_to(self, expression: Any) -> Any:
        """Return an expression with the direction and the NULLS FIRST or LAST of this clause."""
        for modifier in reversed(self.modifiers):
            expression = modifier(expression)
        return expression


_MODIFIERS: Final = {
    operators.desc_op: desc,
    operators.asc_op: asc,
    operators.nulls_first_op: nulls_first,
    operators.nulls_last_op: nulls_last,
}


def order_by_clauses(statement: Selection, entity: Any) -> list[OrderByClause]:
    """Return the clauses of ORDER BY.

    A string becomes the attribute of the entity with that name. Raises `InvalidOption` if there is
    no such attribute, and for ``text()``.
    """
    return [_to_order_by_clause(clause, entity) for clause in statement._order_by_clauses]


def _to_order_by_clause(clause: Any, entity: Any) -> OrderByClause:
    modifiers: list[Any] = []
    while True:
        if isinstance(clause, UnaryExpression) and clause.modifier in _MODIFIERS:
            modifiers.append(_MODIFIERS[clause.modifier])
            clause = clause.element
        elif isinstance(clause, TextClause):
            raise _text_order_by_error()
        elif isinstance(clause, _label_reference | Label):
            clause = clause.element
        elif isinstance(clause, _textual_label_reference):
            clause = getattr(entity, str(clause.element), None)
            if clause is None:
                raise _text_order_by_error()
        else:
            return OrderByClause(clause, tuple(modifiers))


def _text_order_by_error() -> InvalidOption:
    return InvalidOption(
        "statement",
        "a select with a string in ORDER BY",
        "ordered by columns, such as .order_by(Post.id)",
    )
