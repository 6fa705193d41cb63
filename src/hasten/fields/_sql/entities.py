"""Find the columns and relationships of allowed fields when the application starts.

So a field that is not mapped is an error then, not when a client first requests it.
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

from hasten._sqlalchemy.selects import mapper_of
from hasten.errors import InvalidOption
from hasten.fields._allowed import AllowedFields, Field
from hasten.fields._rows import Compute, FieldBuilder, field_builder

if TYPE_CHECKING:
    Relationship: TypeAlias = RelationshipProperty[Any]
else:
    Relationship = RelationshipProperty


@dataclass(slots=True, eq=False)
class Entity:
    """A list of allowed fields on a mapped class."""

    mapper: Mapper[Any]
    builder: FieldBuilder
    primary_key: tuple[str, ...]
    """Attributes."""
    links: dict[Field, Link] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Link:
    """A relation of one entity to another."""

    relationship: Relationship
    target: Entity
    local: tuple[str, ...]
    """The attributes of the owner in the condition of the join; none if it is not joined."""
    remote: tuple[str, ...]
    """Those of the target."""
    is_joined: bool
    """Whether it refers to at most one row, by a unique key: a join repeats no owner."""
    is_indexed: bool
    """The tables declare an index that finds the rows of one owner, each once."""

    @property
    def attribute(self) -> str:
        """The name of the relationship."""
        return self.relationship.key

    def condition(self, local: Mapping[str, Any], remote: Mapping[str, Any]) -> ColumnElement[bool]:
        """Return the condition of a join between the columns of the attributes of both sides."""

        def replace(element: Any, **_: object) -> Any:
            if not isinstance(element, ColumnClause) or element.table is None:
                return None
            owner, target = self.relationship.parent, self.relationship.mapper
            if "remote" in element._annotations or element.table not in owner.tables:
                return remote[target.get_property_by_column(element).key]
            return local[owner.get_property_by_column(element).key]

        condition: ColumnElement[bool] = replacement_traverse(
            self.relationship.primaryjoin, {}, replace
        )
        return condition


def resolve(allowed: AllowedFields, model: type, compute: Compute) -> Entity:
    """Find the columns and relationships of fields. Raises `InvalidOption`."""
    return _resolve(allowed, mapper_of(model), compute, {})


_Known: TypeAlias = dict[tuple[AllowedFields, Mapper[Any]], Entity]


def _resolve(
    allowed: AllowedFields, mapper: Mapper[Any], compute: Compute, known: _Known
) -> Entity:
    if (allowed, mapper) in known:
        return known[allowed, mapper]
    needs = {need: each for each in allowed.fields.values() for need in each.needs}
    for need, each in needs.items():
        _check_column(mapper, need, each)
    primary_key = tuple(_attributes(mapper, mapper.primary_key, "the primary key"))
    entity = Entity(mapper, field_builder(allowed, _kinds(mapper, needs), compute), primary_key)
    # Known before it is complete, because models may refer to each other.
    known[allowed, mapper] = entity
    for each in allowed.fields.values():
        if each.relation is not None:
            relationship = _relationship(mapper, each)
            target = _resolve(each.relation, relationship.mapper, compute, known)
            entity.links[each] = _link(mapper, relationship, target)
    return entity


def _check_column(mapper: Mapper[Any], attribute: str, field: Field) -> None:
    if attribute in mapper.column_attrs:
        return
    found = mapper.all_orm_descriptors.get(attribute)
    if attribute in mapper.synonyms:
        pass  # for any attribute that has SQL
    elif found is None or found.extension_type is not HybridExtensionType.HYBRID_PROPERTY:
        what = "there is none" if found is None else "it is another kind of attribute"
        raise InvalidOption(
            "model",
            mapper.class_,
            f"a class with a column or hybrid {attribute!r} for the field {field.name!r}, but "
            f"{what}: map it, name the columns it is computed from in "
            f"needs={{{field.name!r}: (…)}}, or omit it",
        )
    _check_has_sql(mapper, attribute, field)


def _check_has_sql(mapper: Mapper[Any], attribute: str, field: Field) -> None:
    """Raise `InvalidOption` for a hybrid without SQL, which would fail in each request."""
    try:
        clause: object = getattr(mapper.class_, attribute).__clause_element__()
    except Exception as exc:  # noqa: BLE001  # its function expects an object, and gets a class
        if type(exc) in (LookupError, RuntimeError):
            return  # it reads a context variable or the like, which only a request sets
        reason = f"{type(exc).__name__}: {exc}"
    else:
        if isinstance(clause, ClauseElement):
            return
        reason = f"it returns {type(clause).__name__} {clause!r}"[:200]
    raise InvalidOption(
        "model",
        mapper.class_,
        f"a class with SQL for the hybrid {attribute!r} ({reason}): add "
        f"@{attribute}.inplace.expression, or compute the field by "
        f"needs={{{field.name!r}: (…)}} and compute={{{field.name!r}: function}}",
    )


def _relationship(mapper: Mapper[Any], field: Field) -> Relationship:
    found = mapper.relationships.get(field.attribute)
    if found is None:
        raise InvalidOption(
            "model",
            mapper.class_,
            f"a class with a relationship {field.attribute!r} for the field {field.name!r}: "
            f"map it, or set opaque=({field.name!r},) if one column holds all of it",
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


def _link(mapper: Mapper[Any], relationship: Relationship, target: Entity) -> Link:
    _check_order(relationship)
    is_joined = relationship.direction is MANYTOONE and _is_unique(relationship)
    if not is_joined:
        is_indexed = _is_indexed(relationship)
        return Link(relationship, target, (), (), is_joined=False, is_indexed=is_indexed)
    local = tuple(_join_attributes(relationship, mapper))
    remote = tuple(_join_attributes(relationship, relationship.mapper))
    return Link(relationship, target, local, remote, is_joined=True, is_indexed=True)


def _join_attributes(relationship: Relationship, mapper: Mapper[Any]) -> Iterator[str]:
    """Return the names of the attributes of a mapper that the join condition compares."""
    columns = [
        column
        for column in iterate(relationship.primaryjoin)
        if getattr(column, "table", None) in mapper.tables
    ]
    what = f"the relationship {relationship.parent.class_.__name__}.{relationship.key}"
    return iter(dict.fromkeys(_attributes(mapper, columns, what)))


def _is_unique(relationship: Relationship) -> bool:
    """Return whether the columns that a relationship refers to are unique in its target."""
    if relationship.secondary is not None:
        return False
    for clause in iterate(relationship.primaryjoin):
        # The columns are only equated in one of several cases.
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


def _is_indexed(relationship: Relationship) -> bool:
    columns = {column for _, column in relationship.synchronize_pairs}
    tables = {column.table for column in columns}
    if len(tables) != 1:
        return False
    (table,) = tables
    if relationship.secondary is not None:
        pairs = relationship.secondary_synchronize_pairs or ()
        if set(table.primary_key) != columns | {column for _, column in pairs}:
            return False  # it may hold a pair twice
    indexes = [list(table.primary_key)]
    # A partial index, or one of an expression, does not find all rows of an owner.
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


def _check_order(relationship: Relationship) -> None:
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


def _attributes(mapper: Mapper[Any], columns: Any, what: str) -> Iterator[str]:
    for column in columns:
        if column not in mapper._columntoproperty:
            raise InvalidOption(
                "model", mapper.class_, f"a class that maps the column {column}: {what} needs it"
            )
        yield mapper.get_property_by_column(column).key


def _kinds(mapper: Mapper[Any], attributes: Mapping[str, Field]) -> dict[str, type | None]:
    return {name: _kind(mapper, name) for name in attributes}


def _kind(mapper: Mapper[Any], attribute: str) -> type | None:
    """Return the type of the values of a column, None if it is unknown."""
    column = mapper.columns.get(attribute)
    if column is None or isinstance(column.type, TypeDecorator):
        return None
    try:
        return column.type.python_type
    except NotImplementedError:
        return None
