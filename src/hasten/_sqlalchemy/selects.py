"""Which class a select is of, what it sorts by, and the same select with other columns."""

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
    """A select of anything."""
else:
    Selection = Select  # SQLAlchemy 2.0 has one type parameter here, 2.1 any number

Expression: TypeAlias = ColumnElement[Any]


def mapper_of(model: type) -> Mapper[Any]:
    """Return the mapper of a class. Raises `InvalidOption` if it is not mapped."""
    mapper: object = inspect(model, raiseerr=False)
    if not isinstance(mapper, Mapper):
        raise InvalidOption("model", model, "a class that is mapped to a table")
    return mapper


def entity_of(statement: Selection, mapper: Mapper[Any]) -> Any:
    """Return what is selected: the mapped class or an alias of it.

    Raises `InvalidOption` for a select of anything else.
    """
    given: object = statement
    if isinstance(given, Select) and _is_of_class(given, mapper):
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
        "statement", type(statement).__name__, f"a select of {name} alone: select({name}).where(…)"
    )


def _is_of_class(statement: Selection, mapper: Mapper[Any]) -> bool:
    """Return whether a select selects exactly this class, which is the usual case.

    This takes a tenth of the time of ``column_descriptions``.
    """
    columns = statement._raw_columns
    if len(columns) != 1 or not isinstance(columns[0], FromClause):
        return False
    return columns[0]._annotations.get("parententity") is mapper


def clause_of(expression: Any) -> Expression:
    """Return the SQL expression of an attribute of a mapped class; an expression as it is."""
    if hasattr(expression, "__clause_element__"):
        expression = expression.__clause_element__()
    found: Expression = expression
    return found


def is_same(one: Expression, other: Expression) -> bool:
    """Return whether two expressions are the same column or have the same structure."""
    if isinstance(one, Column) and isinstance(other, Column):
        return bool(one.table == other.table) and one.name == other.name
    return one is other or bool(one.compare(other))


# Options ------------------------------------------------------------------------------------------


def filter_options(options: Iterable[Any]) -> tuple[Any, ...]:
    """Return the options that filter rows or that listeners read, without those that load."""
    if not options:
        return ()
    return tuple(each for each in options if isinstance(each, _FILTERS))


_FILTERS: Final = (LoaderCriteriaOption, UserDefinedOption)


def without_loading(statement: Selection) -> Selection:
    """Return the select without ORDER BY and without options that load entities."""
    plain = statement.order_by(None)
    plain._with_options = filter_options(statement._with_options)
    return plain


def only(statement: Selection, *columns: Any) -> Selection:
    """Return a select of the same rows in no order, with these columns only."""
    return without_loading(statement).with_only_columns(*columns, maintain_column_froms=True)


def with_filters_of(inner: Selection, outer: Selection) -> Selection:
    """Return outer, a select from inner, with the ORM filters of inner.

    The ORM applies with_loader_criteria() and session listeners only to the statement that is
    executed, and only if it is marked as an ORM statement. So this copies the options and the mark.
    """
    # With other columns, a select keeps its options apart, with the entities that it had.
    earlier: Any = inner._memoized_select_entities
    options = [option for each in (*earlier, inner) for option in each._with_options]
    found = outer.options(*filter_options(options))
    found._propagate_attrs = inner._propagate_attrs
    return found


# Other columns ------------------------------------------------------------------------------------


def prepare_for_other_columns(statement: Selection, entity: Any) -> Selection:
    """Return a copy of the select that is safe to use with ``with_only_columns``.

    Options that load entities are removed; options that filter stay. A name in ORDER BY becomes
    the attribute of that name, because the label that it refers to may not be selected any more.
    Raises `InvalidOption` for a select that locks its rows.
    """
    if statement._for_update_arg is not None:
        raise InvalidOption(
            "statement",
            "a select with FOR UPDATE",
            "a select without with_for_update(): pages and fields are read with joins and totals, "
            "which databases do not lock; lock the rows by a select of your own",
        )
    plain = statement
    if statement._with_options:
        plain = statement.where()
        plain._with_options = filter_options(statement._with_options)
    orders = sorted_by(statement, entity)
    if not orders:
        return plain
    return plain.order_by(None).order_by(*[order.restore(order.expression) for order in orders])


def is_cut(statement: Selection) -> bool:
    """Return whether LIMIT, DISTINCT or GROUP BY decides which rows there are.

    Nothing may be joined to the table before that.
    """
    limits = (statement._limit_clause, statement._offset_clause, statement._fetch_clause)
    return bool(
        any(clause is not None for clause in limits)
        or statement._distinct
        or statement._group_by_clauses
    )


def each_once(statement: Selection, mapper: Mapper[Any]) -> Selection:
    """Return a select of the same rows in no order, each once: a join to many repeats them.

    A select with LIMIT, DISTINCT or GROUP BY is returned as it is.
    """
    entity = entity_of(statement, mapper)
    is_joined = (
        statement._setup_joins or statement._from_obj or len(statement.get_final_froms()) > 1
    )
    if is_cut(statement) or not is_joined:
        return statement
    names = [mapper.get_property_by_column(column).key for column in mapper.primary_key]
    keys = [getattr(entity, name) for name in names]
    plain = prepare_for_other_columns(statement, entity)
    inside = plain.order_by(None).with_only_columns(*keys, maintain_column_froms=True)
    key = keys[0] if len(keys) == 1 else tuple_(*keys)
    found: Selection = select(entity).where(key.in_(inside.correlate(None)))
    return found


class SortedBy(NamedTuple):
    """One clause of ORDER BY."""

    expression: Any
    """Without its direction."""
    modifiers: tuple[Any, ...]

    def restore(self, other: Any) -> Any:
        """Return another expression with the same direction."""
        for modifier in reversed(self.modifiers):
            other = modifier(other)
        return other


_MODIFIERS: Final = {
    operators.desc_op: desc,
    operators.asc_op: asc,
    operators.nulls_first_op: nulls_first,
    operators.nulls_last_op: nulls_last,
}


def sorted_by(statement: Selection, entity: Any) -> list[SortedBy]:
    """Return the clauses of ORDER BY. Raises `InvalidOption` for a text that is no attribute."""
    return [_sorted_by(clause, entity) for clause in statement._order_by_clauses]


def _sorted_by(clause: Any, entity: Any) -> SortedBy:
    modifiers: list[Any] = []
    while True:
        if isinstance(clause, UnaryExpression) and clause.modifier in _MODIFIERS:
            modifiers.append(_MODIFIERS[clause.modifier])
            clause = clause.element
        elif isinstance(clause, TextClause):
            raise _text_in_order_by()
        elif isinstance(clause, _label_reference | Label):
            clause = clause.element
        elif isinstance(clause, _textual_label_reference):
            clause = getattr(entity, str(clause.element), None)
            if clause is None:
                raise _text_in_order_by()
        else:
            return SortedBy(clause, tuple(modifiers))


def _text_in_order_by() -> InvalidOption:
    return InvalidOption("statement", "a select with ORDER BY a string", "order_by() of columns")
