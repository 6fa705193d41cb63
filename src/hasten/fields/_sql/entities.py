"""Find the mapped columns and relationships of the allowed fields when the application starts.

So a field that is not mapped causes an error at startup, not when a client first requests it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy import (
    ClauseElement,
    Column,
    ColumnClause,
    ColumnElement,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.ext.hybrid import HybridExtensionType
from sqlalchemy.orm import MANYTOONE, Mapper, RelationshipProperty
from sqlalchemy.sql import operators
from sqlalchemy.sql.visitors import iterate, replacement_traverse

from hasten._sqlalchemy.selects import get_mapper
from hasten.errors import InvalidOption
from hasten.fields._allowed import AllowedFields, Field
from hasten.fields._rows import Compute, FieldBuilder, make_field_builder

if TYPE_CHECKING:
    Relationship: TypeAlias = RelationshipProperty[Any]
else:
    Relationship = RelationshipProperty


@dataclass(slots=True, eq=False)
class MappedEntity:
    """A mapped class, and what is needed to read its allowed fields."""

    mapper: Mapper[Any]
    builder: FieldBuilder
    primary_key: tuple[str, ...]
    """The names of the attributes of the primary key."""
    links: dict[Field, RelationshipLink] = field(default_factory=dict)
    """The relationship of each field that shows another mapped class."""


@dataclass(frozen=True, slots=True, eq=False)
class RelationshipLink:
    """A relationship from an entity, called its owner, to the entity that a nested field shows."""

    relationship: Relationship
    target: MappedEntity
    local: tuple[str, ...]
    """The names of the owner's attributes in the join condition; empty if not is_joined."""
    remote: tuple[str, ...]
    """The names of the target's attributes in the join condition; empty if not is_joined."""
    is_joined: bool
    """Whether the target is read with a join, because each owner has at most one related row."""
    is_indexed: bool
    """Whether the tables declare an index that finds the related rows of one owner."""

    @property
    def attribute(self) -> str:
        """The name of the relationship attribute in the mapped class."""
        return self.relationship.key

    def make_join_condition(
        self, owner_columns: Mapping[str, Any], target_columns: Mapping[str, Any]
    ) -> ColumnElement[bool]:
        """Return the join condition, with other columns in place of those of the tables.

        owner_columns and target_columns have the columns to use, by attribute name.
        """

        def replace(element: Any, **_: object) -> Any:
            if not isinstance(element, ColumnClause) or element.table is None:
                return None
            owner, target = self.relationship.parent, self.relationship.mapper
            if "remote" in element._annotations or element.table not in owner.tables:
                return target_columns[target.get_property_by_column(element).key]
            return owner_columns[owner.get_property_by_column(element).key]

        condition: ColumnElement[bool] = replacement_traverse(
            self.relationship.primaryjoin, {}, replace
        )
        return condition


def resolve_entity(allowed: AllowedFields, model: type, compute: Compute) -> MappedEntity:
    """Find the columns and relationships of the allowed fields in a mapped class.

    compute has the functions of computed fields. Raises `InvalidOption` for a field that the class
    does not have.
    """
    return _resolve_entity(allowed, get_mapper(model), compute, {})


_Known: TypeAlias = dict[tuple[AllowedFields, Mapper[Any]], MappedEntity]
"""The entities that were found so far."""


def _resolve_entity(
    allowed: AllowedFields, mapper: Mapper[Any], compute: Compute, known: _Known
) -> MappedEntity:
    if (allowed, mapper) in known:
        return known[allowed, mapper]
    needs = {need: each for each in allowed.fields.values() for need in each.needs}
    for need, each in needs.items():
        _check_is_selectable(mapper, need, each)
    primary_key = tuple(_find_attribute_names(mapper, mapper.primary_key, "the primary key"))
    builder = make_field_builder(allowed, _find_column_types(mapper, needs), compute)
    entity = MappedEntity(mapper, builder, primary_key)
    # Stored before it is complete, because models may refer to each other.
    known[allowed, mapper] = entity
    for each in allowed.fields.values():
        if each.relation is not None:
            relationship = _find_relationship(mapper, each)
            target = _resolve_entity(each.relation, relationship.mapper, compute, known)
            entity.links[each] = _make_link(mapper, relationship, target)
    return entity


def _check_is_selectable(mapper: Mapper[Any], attribute: str, field: Field) -> None:
    """Raise `InvalidOption` if an attribute that a field needs cannot be selected."""
    if attribute in mapper.column_attrs:
        return
    found = mapper.all_orm_descriptors.get(attribute)
    if attribute in mapper.synonyms:
        pass  # a synonym may stand for any attribute, so only its SQL is checked
    elif found is None or found.extension_type is not HybridExtensionType.HYBRID_PROPERTY:
        what = "there is none" if found is None else "it is another kind of attribute"
        raise InvalidOption(
            "model",
            mapper.class_,
            f"a class with a column or hybrid property {attribute!r} for the field {field.name!r}, "
            f"but {what}: map the attribute, name the columns that the field is computed from in "
            f"needs={{{field.name!r}: (…)}}, or remove the field",
        )
    _check_has_sql(mapper, attribute, field)


def _check_has_sql(mapper: Mapper[Any], attribute: str, field: Field) -> None:
    """Raise `InvalidOption` for a hybrid property without SQL, which would fail in each request."""
    try:
        clause: object = getattr(mapper.class_, attribute).__clause_element__()
    except Exception as exc:  # noqa: BLE001  # a function for objects fails when called on the class
        if type(exc) in (LookupError, RuntimeError):
            return  # its function may read a context variable that is only set in a request
        reason = f"{type(exc).__name__}: {exc}"
    else:
        if isinstance(clause, ClauseElement):
            return
        reason = f"it returns {type(clause).__name__} {clause!r}"[:200]
    raise InvalidOption(
        "model",
        mapper.class_,
        f"a class with an SQL expression for the hybrid property {attribute!r} ({reason}): add "
        f"@{attribute}.inplace.expression, or compute the field in Python with "
        f"needs={{{field.name!r}: (…)}} and compute={{{field.name!r}: function}}",
    )


def _find_relationship(mapper: Mapper[Any], field: Field) -> Relationship:
    """Return the relationship of a nested field.

    Raises `InvalidOption` if there is none, or if only one of the two is a list.
    """
    found = mapper.relationships.get(field.attribute)
    if found is None:
        raise InvalidOption(
            "model",
            mapper.class_,
            f"a class with a relationship {field.attribute!r} for the field {field.name!r}: "
            f"map it, or set opaque=({field.name!r},) if a JSON column contains the whole object",
        )
    if bool(found.uselist) != field.many:
        raise InvalidOption(
            "model",
            mapper.class_,
            f"a class whose relationship {field.attribute!r} is "
            f"{'a collection' if field.many else 'a single object'}, because the field "
            f"{field.name!r} is {'a list' if field.many else 'not a list'}",
        )
    return found


def _make_link(
    mapper: Mapper[Any], relationship: Relationship, target: MappedEntity
) -> RelationshipLink:
    _check_sorts_by_own_columns(relationship)
    is_joined = relationship.direction is MANYTOONE and _refers_to_unique_key(relationship)
    if not is_joined:
        is_indexed = _has_owner_index(relationship)
        return RelationshipLink(
            relationship, target, (), (), is_joined=False, is_indexed=is_indexed
        )
    local = tuple(_find_join_attributes(relationship, mapper))
    remote = tuple(_find_join_attributes(relationship, relationship.mapper))
    return RelationshipLink(relationship, target, local, remote, is_joined=True, is_indexed=True)


def _find_join_attributes(relationship: Relationship, mapper: Mapper[Any]) -> Iterator[str]:
    """Return the names of the mapper's attributes that are in the relationship's join condition."""
    columns = [
        column
        for column in iterate(relationship.primaryjoin)
        if getattr(column, "table", None) in mapper.tables
    ]
    what = f"the relationship {relationship.parent.class_.__name__}.{relationship.key}"
    return iter(dict.fromkeys(_find_attribute_names(mapper, columns, what)))


def _refers_to_unique_key(relationship: Relationship) -> bool:
    """Return whether a relationship refers to columns that are unique in the target table."""
    if relationship.secondary is not None:
        return False
    for clause in iterate(relationship.primaryjoin):
        # In a condition with OR, the columns are not always equal.
        if getattr(clause, "operator", None) is operators.or_:
            return False
    table = relationship.mapper.local_table
    keys: list[set[Any]] = [set(relationship.mapper.primary_key), set(table.primary_key)]
    keys += [
        set(constraint.columns)
        for constraint in getattr(table, "constraints", ())
        if isinstance(constraint, UniqueConstraint)
    ]
    keys += [set(index.columns) for index in getattr(table, "indexes", ()) if index.unique]
    equated: set[Any] = {remote for _, remote in relationship.local_remote_pairs or ()}
    return any(key and key <= equated for key in keys)


def _has_owner_index(relationship: Relationship) -> bool:
    """Return whether a declared index can find the related rows of one owner.

    Returns False if an association table may link the same two rows twice, because the index would
    then find a related row twice.
    """
    columns = {column for _, column in relationship.synchronize_pairs}
    tables = {column.table for column in columns}
    if len(tables) != 1:
        return False
    (table,) = tables
    if relationship.secondary is not None:
        pairs = relationship.secondary_synchronize_pairs or ()
        if set(table.primary_key) != columns | {column for _, column in pairs}:
            return False  # the association table may contain a pair twice
    indexes = [list(table.primary_key)]
    # A partial index and an index on an expression do not find all rows of an owner.
    indexes += [
        list(each.columns)
        for each in table.indexes
        if each.dialect_options["sqlite"].get("where") is None
        and all(isinstance(expression, Column) for expression in each.expressions)
    ]
    indexes += [
        list(each.columns) for each in table.constraints if isinstance(each, UniqueConstraint)
    ]
    return any(set(index[: len(columns)]) == columns for index in indexes)


def _check_sorts_by_own_columns(relationship: Relationship) -> None:
    """Raise `InvalidOption` if a relationship is sorted by columns of another table."""
    for clause in relationship.order_by or ():
        for column in iterate(clause):
            table = getattr(column, "table", None)
            if table is not None and not relationship.mapper.selectable.is_derived_from(table):
                raise InvalidOption(
                    "model",
                    relationship.parent.class_,
                    f"a class that sorts its relationship {relationship.key!r} by columns of "
                    f"{relationship.mapper.class_.__name__}, not by {column}",
                )


def _find_attribute_names(mapper: Mapper[Any], columns: Any, needed_by: str) -> Iterator[str]:
    """Return the names of the attributes that map these columns.

    Raises `InvalidOption` for a column that is not mapped. The error names needed_by: the part
    of the mapping that needs the columns, such as "the primary key".
    """
    for column in columns:
        if column not in mapper._columntoproperty:
            raise InvalidOption(
                "model",
                mapper.class_,
                f"a class that maps the column {column}: {needed_by} needs it",
            )
        yield mapper.get_property_by_column(column).key


def _find_column_types(
    mapper: Mapper[Any], attributes: Mapping[str, Field]
) -> dict[str, type | None]:
    return {name: _find_column_type(mapper, name) for name in attributes}


def _find_column_type(mapper: Mapper[Any], attribute: str) -> type | None:
    """Return the Python type of the values of a column; None if it is unknown."""
    column = mapper.columns.get(attribute)
    if column is None or isinstance(column.type, TypeDecorator):
        return None
    try:
        return column.type.python_type
    except NotImplementedError:
        return None
