"""What a select says of itself, and how it gets other columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from sqlalchemy import (
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
    Selection = Select  # SQLAlchemy 2.0 knows one parameter, 2.1 any number


def entity_of(statement: Selection, mapper: Mapper[Any]) -> Any:
    """What is selected: the class, or an alias of it. Raises `InvalidOption` for anything else."""
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
    """What nearly all are: told at a tenth of the cost of a description."""
    columns = statement._raw_columns
    if len(columns) != 1 or not isinstance(columns[0], FromClause):
        return False
    return columns[0]._annotations.get("parententity") is mapper


def narrowed(statement: Selection, entity: Any) -> Selection:
    """The select, ready to get other columns.

    It loses the options that say how to load entities; those that filter stay. A name to sort by
    becomes the attribute of that name: what it stood for may not be selected any more. Raises
    `InvalidOption` for a select that locks its rows.
    """
    if statement._for_update_arg is not None:
        raise InvalidOption(
            "statement",
            "a select with FOR UPDATE",
            "one without with_for_update(): pages and fields are read with joins and totals, which "
            "databases do not lock; lock the rows by a select of your own",
        )
    plain = statement
    if statement._with_options:
        plain = statement.where()
        plain._with_options = tuple(
            option
            for option in statement._with_options
            if isinstance(option, LoaderCriteriaOption | UserDefinedOption)
        )
    orders = sorted_by(statement, entity)
    if not orders:
        return plain
    return plain.order_by(None).order_by(*[order.restore(order.bare) for order in orders])


def is_cut(statement: Selection) -> bool:
    """It says which of the rows, so nothing may be joined to them before."""
    limits = (statement._limit_clause, statement._offset_clause, statement._fetch_clause)
    return bool(
        any(clause is not None for clause in limits)
        or statement._distinct
        or statement._group_by_clauses
    )


def each_once(statement: Selection, mapper: Mapper[Any]) -> Selection:
    """The same rows in no order, each once: a join to many repeats them.

    What says itself which of the rows it selects stays as it is.
    """
    entity = entity_of(statement, mapper)
    is_joined = (
        statement._setup_joins or statement._from_obj or len(statement.get_final_froms()) > 1
    )
    if is_cut(statement) or not is_joined:
        return statement
    names = [mapper.get_property_by_column(column).key for column in mapper.primary_key]
    keys = [getattr(entity, name) for name in names]
    plain = narrowed(statement, entity)
    inside = plain.order_by(None).with_only_columns(*keys, maintain_column_froms=True)
    key = keys[0] if len(keys) == 1 else tuple_(*keys)
    found: Selection = select(entity).where(key.in_(inside.correlate(None)))
    return found


class SortedBy(NamedTuple):
    """One clause of ORDER BY: the expression without its direction, and the direction."""

    bare: Any
    modifiers: tuple[Any, ...]

    def restore(self, other: Any) -> Any:
        """Another expression, sorted by in the same direction."""
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
    """What the select sorts by. Raises `InvalidOption` for a text that is no attribute."""
    return [_sorted_by(clause, entity) for clause in statement._order_by_clauses]


def _sorted_by(clause: Any, entity: Any) -> SortedBy:
    modifiers: list[Any] = []
    while True:
        if isinstance(clause, UnaryExpression) and clause.modifier in _MODIFIERS:
            modifiers.append(_MODIFIERS[clause.modifier])
            clause = clause.element
        elif isinstance(clause, TextClause):
            raise _no_text()
        elif isinstance(clause, _label_reference | Label):
            clause = clause.element
        elif isinstance(clause, _textual_label_reference):
            clause = getattr(entity, str(clause.element), None)
            if clause is None:
                raise _no_text()
        else:
            return SortedBy(clause, tuple(modifiers))


def _no_text() -> InvalidOption:
    return InvalidOption("statement", "a select with ORDER BY a text", "order_by() of columns")
