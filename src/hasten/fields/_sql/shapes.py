"""The columns that a set of fields selects, and how responses are built from its rows.

A set is a tree. The fields of a node are columns. Relations to one row are joined to them, in the
same statement. Relations to many rows are read by one more statement for all rows together, so the
number of statements depends on the requested fields, never on the number of rows:

    fields=id,team(name),posts(title,tags(name))

    SELECT user.id, team.id, team.name FROM user LEFT JOIN team …
    SELECT user.id, post.id, post.title FROM user JOIN post … WHERE user.id IN (…), 20 for each
    SELECT post.id, tag.name FROM post JOIN tag … WHERE post.id IN (…), 20 for each

Columns that are only selected to join and to match rows, or to compute a field, are not in the
response.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from itertools import islice, repeat
from typing import Any, Final, NamedTuple, TypeAlias

from sqlalchemy import ColumnElement, FromClause, bindparam, func, select, true, tuple_
from sqlalchemy.orm import Mapper, aliased

from hasten._sqlalchemy.execution import Database, Execute
from hasten._sqlalchemy.selects import (
    Selection,
    has_limit_or_grouping,
    order_by_clauses,
    prepare_for_other_columns,
    selected_entity,
    without_repeated_rows,
)
from hasten._sqlalchemy.templates import Templates
from hasten.fields._allowed import AllowedFields, Field, FieldSet
from hasten.fields._rows import Compute
from hasten.fields._sql.entities import Entity, Link, resolve

Cap: TypeAlias = Callable[[Field], int]
"""The maximum number of related rows that a field shows for each owner."""

Rows: TypeAlias = Sequence[Any]


MAX_KEYS: Final = 10_000
"""How many owners are in one statement. Drivers reject more parameters."""

_KEYS: Final = "hasten_keys"
_NUMBER: Final = "hasten_number"


class Shape:
    """Selects one set of fields of an entity, and builds dicts from the rows."""

    def __init__(
        self,
        entity: Entity,
        chosen: FieldSet,
        *,
        cap: Cap,
        more: str,
        keyed: bool = False,
        without_joins: bool = False,
    ) -> None:
        """With keyed, the primary key is selected, too. more is the suffix of the marker's name.

        without_joins reads all relations by statements of their own.
        """
        self._root = _Node(entity, chosen, cap, more, keyed=keyed, without_joins=without_joins)
        self.has_related: Final = self._root.has_related
        self._columns = list(self._root.columns(entity.mapper.class_))
        # Without a join its own columns keep the table in FROM, and checking that takes time.
        self._keep = bool(self._root.joined) or not any(
            name in entity.mapper.columns for name in self._root.attributes
        )

    def statement(self, statement: Selection) -> Selection:
        """Return a select of the columns of these fields, of the same rows in the same order.

        A LIMIT applies before relations are joined.
        """
        entity = selected_entity(statement, self._root.entity.mapper)
        plain = prepare_for_other_columns(statement, entity)
        if self._root.joined and has_limit_or_grouping(statement):
            return self._join_to_limited(plain, entity)
        columns = self._columns
        if entity is not self._root.entity.mapper.class_:
            columns = list(self._root.columns(entity))
        narrow = plain.with_only_columns(*columns, maintain_column_froms=self._keep)
        return self._root.join(narrow, self._root.columns_of(entity)) if self._keep else narrow

    def build_all(self, rows: Rows) -> list[dict[str, object]]:
        """Return the fields of rows of that statement, if no relations are to be read."""
        return list(map(self._root.build_own, rows))

    async def read(self, rows: Rows, execute: Execute, dialect: str) -> list[dict[str, object]]:
        """Return the fields of rows of that statement, and read their relations."""
        return await self._root.read(rows, execute, dialect)

    def _join_to_limited(self, statement: Selection, entity: Any) -> Selection:
        """Return a select that joins relations to the limited rows, which are a sub-query."""
        own = list(self._root.own_columns(entity))
        orders = order_by_clauses(statement, entity)
        keys = [
            order.expression.label(f"hasten_order_{place}") for place, order in enumerate(orders)
        ]
        page = statement.with_only_columns(*own, *keys, maintain_column_froms=True).subquery(
            "hasten_page"
        )
        columns = list(page.c)
        joined = self._root.select_from(page, columns[: len(own)])
        ends = columns[len(own) :]
        again = [order.apply_to(end) for order, end in zip(orders, ends, strict=True)]
        return joined.order_by(*again)


MAX_SHAPES: Final = 256
"""How many sets keep their shapes. The least recently used one is removed first."""


class Shapes:
    """The shapes of all sets of one allow-list on one mapped class."""

    def __init__(
        self,
        allowed: AllowedFields,
        model: type,
        *,
        cap: Cap,
        more: str,
        compute: Compute,
        max_shapes: int = MAX_SHAPES,
    ) -> None:
        """Raises `InvalidOption` for a field that is not mapped or cannot be built."""
        self.entity: Final = resolve(allowed, model, compute)
        self.mapper: Final = self.entity.mapper
        made = partial(Shape, self.entity, cap=cap, more=more)
        self._of = lru_cache(max_shapes)(lambda chosen, context, **how: made(chosen, **how))
        self._hybrids = lru_cache(max_shapes)(partial(_hybrids, self.entity))
        self._selects: Templates[_ShapedSelect] = Templates(self._shaped_select)

    def of(self, statement: Selection, chosen: FieldSet, *, without_joins: bool = False) -> Shape:
        """Return the shape of a set for a statement.

        A DISTINCT select always selects the primary key, so that fewer fields are never fewer rows.
        """
        selected_entity(statement, self.mapper)
        keyed = bool(statement._distinct)
        state = self.state_of_hybrids(chosen)
        return self._of(chosen, state, keyed=keyed, without_joins=without_joins)

    def state_of_hybrids(self, chosen: FieldSet) -> Hashable:
        """Return the current SQL of the hybrids among the fields, which may depend on the request.

        What is built while it has one value is not used when it has another.
        """
        hybrids = self._hybrids(chosen)
        return tuple([_current_state(each) for each in hybrids]) if hybrids else ()

    async def fetch(
        self, database: Database, statement: Selection, chosen: FieldSet, *, most: int | None = None
    ) -> list[dict[str, object]]:
        """Read the fields of all rows of a select of the entity.

        With most, read that many rows at most, in no order; a join to many does not repeat them.
        """
        selected_entity(statement, self.mapper)
        state = self.state_of_hybrids(chosen)
        select, bindings = self._selects.get(statement, chosen, most, state)
        rows = (await bindings.bind(database.execute)(select.statement, {})).all()
        if not select.shape.has_related:
            return select.shape.build_all(rows)
        dialect = database.dialect(self.mapper)
        return await select.shape.read(rows, bindings.bind_options(database.execute), dialect)

    def _shaped_select(
        self, statement: Selection, chosen: FieldSet, most: int | None, _: Hashable
    ) -> _ShapedSelect:
        shape = self.of(statement, chosen)
        if most is not None:
            statement = without_repeated_rows(statement, self.mapper)
        narrow = shape.statement(statement)
        if most is not None and not has_limit_or_grouping(narrow):
            narrow = narrow.limit(most)
        return _ShapedSelect(narrow, shape)

    @property
    def count(self) -> int:
        """How many shapes are kept."""
        return self._of.cache_info().currsize


class _ShapedSelect(NamedTuple):
    """A select of the requested columns, and how its rows become responses."""

    statement: Selection
    shape: Shape


_Attribute: TypeAlias = tuple[Mapper[Any], str]


def _hybrids(entity: Entity, chosen: FieldSet) -> list[_Attribute]:
    """Return all attributes in a tree whose SQL a function returns."""
    own = [(entity.mapper, name) for name in chosen.needs if is_hybrid(entity.mapper, name)]
    for each, inner in chosen.relations.items():
        own += _hybrids(entity.links[each].target, inner)
    return own


def is_hybrid(mapper: Mapper[Any], attribute: str) -> bool:
    """Return whether an attribute is neither a column nor a synonym."""
    return attribute not in mapper.column_attrs and attribute not in mapper.synonyms


def _current_state(attribute: _Attribute) -> Hashable:
    mapper, name = attribute
    return state_of(getattr(mapper.class_, name))


def state_of(expression: Any) -> Hashable:
    """Return the structure and values of an expression; an object equal to nothing if unknown."""
    key = expression.__clause_element__()._generate_cache_key()
    state = key and (key.key, tuple([each.value for each in key.bindparams]))
    try:
        hash(state)
    except TypeError:
        return object()
    return state or object()


# Trees --------------------------------------------------------------------------------------------


class _Node:
    """The fields of one entity within a tree."""

    def __init__(
        self,
        entity: Entity,
        chosen: FieldSet,
        cap: Cap,
        more: str,
        *,
        keyed: bool,
        start: int = 0,
        without_joins: bool = False,
        remote: Sequence[str] = (),
    ) -> None:
        self.entity = entity
        self.joined: list[_Joined] = []
        self.related: list[_RelatedQuery] = []
        self._chosen = chosen
        self._more = more
        links = [(each, inner, entity.links[each]) for each, inner in chosen.relations.items()]
        joined = [] if without_joins else [link for link in links if link[2].is_joined]
        keyed = keyed or len(joined) < len(links)
        local = [name for _, _, link in joined for name in link.local]
        key = entity.primary_key if keyed or not chosen.needs else ()
        # The requested fields come first, in their order: then a row needs no reordering.
        self.attributes = list(dict.fromkeys([*chosen.needs, *key, *local, *remote]))
        self.places = {name: start + place for place, name in enumerate(self.attributes)}
        self.end = start + len(self.attributes)
        for each, inner, link in links:
            if (each, inner, link) in joined:
                node = _Node(
                    link.target, inner, cap, more, keyed=True, start=self.end, remote=link.remote
                )
                self.joined.append(_Joined(each, link, node))
                self.end = node.end
            else:
                self.related.append(_RelatedQuery(entity, each, link, inner, cap, more))
        self.key = _picker([self.places[name] for name in entity.primary_key]) if keyed else None
        relations: dict[Field, _Joined | _RelatedQuery] = {
            **{each.field: each for each in self.joined},
            **{each.field: each for each in self.related},
        }
        self.has_related = bool(relations)
        self._parts = [(each, relations.get(each)) for each in dict(chosen.members)]
        self.build_own = self._own_builder()

    # Selecting

    def own_columns(self, entity: Any) -> Iterator[Any]:
        """Return its own columns with unique names: two columns of a class may have one name."""
        for name in self.attributes:
            yield getattr(entity, name).label(f"hasten_{self.places[name]}")

    def columns(self, entity: Any) -> Iterator[Any]:
        """Return all columns of the tree that one statement reads."""
        yield from (getattr(entity, name) for name in self.attributes)
        yield from self.columns_beside()

    def columns_beside(self) -> Iterator[Any]:
        """Return the columns of the joined nodes."""
        for each in self.joined:
            yield from each.table.c
            yield from each.node.columns_beside()

    def columns_of(self, entity: Any) -> dict[str, Any]:
        """Return the columns of its attributes in a class, or in an alias of it."""
        return {name: getattr(entity, name).__clause_element__() for name in self.attributes}

    def join(self, statement: Selection, columns: Mapping[str, Any]) -> Selection:
        """Return the select with a LEFT JOIN for each relation to one row."""
        # Not by the ORM's join(): it would add criteria for all aliases of a class, or the
        # discriminator of single-table inheritance, to tables that lack these columns.
        for each in self.joined:
            on = each.link.condition(columns, each.columns)
            statement = each.node.join(statement.outerjoin(each.table, on), each.columns)
        return statement

    def select_from(
        self, table: FromClause, own: Sequence[Any], before: Sequence[Any] = (), owner: Any = None
    ) -> Selection:
        """Return a select of all columns of the tree, with its joins.

        own are the node's own columns, which table has. before is selected in front of them. owner
        is the table that a lateral table refers to.
        """
        statement: Selection = select(*before, *own, *self.columns_beside())
        if owner is None:
            statement = statement.select_from(table)
        else:
            statement = statement.select_from(owner).join(table, true())
        return self.join(statement, dict(zip(self.attributes, own, strict=True)))

    # Rows

    async def read(self, rows: Rows, execute: Execute, dialect: str) -> list[dict[str, object]]:
        """Return the fields of rows, and read their relations."""
        if not self.has_related:
            return list(map(self.build_own, rows))
        found: _Related = {}
        await self._read_related(rows, found, execute, dialect)
        return [self.build(row, found) for row in rows]

    async def _read_related(
        self, rows: Rows, found: _Related, execute: Execute, dialect: str
    ) -> None:
        for each in self.related:
            assert self.key is not None
            keys = {key for row in rows if None not in (key := self.key(row))}
            found[each] = await each.read(list(keys), execute, dialect)
        for joined in self.joined:
            await joined.node._read_related(rows, found, execute, dialect)

    def build(self, row: Any, related: _Related) -> dict[str, object]:
        """Return the fields of a row with its relations."""
        made = self.build_own(row)
        if not self.has_related:
            return made
        built: dict[str, object] = {}
        for each, to in self._parts:
            if to is None:
                if each.name in made:
                    built[each.name] = made[each.name]
            elif isinstance(to, _Joined):
                built[each.name] = to.build(row, related)
            else:
                assert self.key is not None
                found = related[to].get(self.key(row), _NONE)
                if each.many:
                    built[each.name] = found.rows
                    if found.has_more:
                        built[each.name + self._more] = True
                else:
                    built[each.name] = found.rows[0] if found.rows else None
        return built

    def _own_builder(self) -> Callable[[Any], dict[str, object]]:
        """Return the function that builds the plain fields of a row."""
        fields = [each for each, inner in self._chosen.members if inner is None]
        build = self.entity.builder.of(fields)
        if build is None:
            names = [each.name for each in fields]
            places = [self.places[each.attribute] for each in fields]
            if places == list(range(len(places))):
                return lambda row: dict(zip(names, row, strict=False))
            pairs = list(zip(names, places, strict=True))
            return lambda row: {name: row[place] for name, place in pairs}
        is_plain = self.entity.builder.is_plain
        plain = {each.name: self.places[each.attribute] for each in fields if is_plain(each)}
        order = [each.name for each in fields]
        needs = [(name, self.places[name]) for name in self._chosen.needs]

        def build_row(row: Any) -> dict[str, object]:
            special = build({name: row[place] for name, place in needs})
            return {
                name: row[plain[name]] if name in plain else special[name]
                for name in order
                if name in plain or name in special
            }

        return build_row


class _Joined:
    """A relation to one row, joined in the same statement.

    It is joined as a sub-query, which databases optimize away: with_loader_criteria (of a tenant,
    of soft-deleted rows) filters a class in it, but would not filter an alias.
    """

    def __init__(self, field: Field, link: Link, node: _Node) -> None:
        target = link.target.mapper.class_
        self.field = field
        self.link = link
        self.node = node
        self.table = select(*node.own_columns(target)).subquery()
        self.columns = dict(zip(node.attributes, self.table.c, strict=True))

    def build(self, row: Any, related: _Related) -> dict[str, object] | None:
        """Return the fields of the joined row, None if there is none."""
        assert self.node.key is not None
        if None in self.node.key(row):
            return None
        return self.node.build(row, related)


@dataclass(slots=True)
class _Found:
    """Return a select of the related rows of one owner."""

    rows: list[dict[str, object]] = field(default_factory=list)
    has_more: bool = False


_NONE: Final = _Found()

_Key: TypeAlias = tuple[object, ...]


class _RelatedQuery:
    """A relation that is read by one statement for all owners."""

    def __init__(
        self, owner: Entity, field: Field, link: Link, chosen: FieldSet, cap: Cap, more: str
    ) -> None:
        self.field = field
        self._owner = owner
        self._link = link
        self._cap = cap(field) if field.many else 1
        # One more row shows that there are more. A relation to one row needs no marker.
        self._most = self._cap + 1 if field.many else 1
        self._width = len(owner.primary_key)
        self._node = _Node(link.target, chosen, cap, more, keyed=False, start=self._width)

    async def read(
        self, keys: Sequence[_Key], execute: Execute, dialect: str
    ) -> Mapping[_Key, _Found]:
        """Return the related rows by the keys of their owners."""
        statement = self._statement(dialect)
        values = list(keys) if self._width > 1 else [key[0] for key in keys]
        found: dict[_Key, list[Any]] = {}
        for start in range(0, len(values), MAX_KEYS):
            some = _padded(values[start : start + MAX_KEYS])
            for row in (await execute(statement, {_KEYS: some})).all():
                found.setdefault(tuple(row[: self._width]), []).append(row)
        shown = [row for rows in found.values() for row in rows[: self._cap]]
        built = iter(await self._node.read(shown, execute, dialect))
        return {
            key: _Found(list(islice(built, min(len(rows), self._cap))), len(rows) > self._cap)
            for key, rows in found.items()
        }

    def _statement(self, dialect: str) -> Selection:
        if dialect == "postgresql":
            return self._lateral
        return self._picked if dialect == "sqlite" and self._link.is_indexed else self._window

    @cached_property
    def _window(self) -> Selection:
        """For any database: number all rows of each owner, and select those up to the cap."""

        def all_of_them(statement: Selection, owner: Any, _: Sequence[Any]) -> Selection:
            return statement.join(getattr(owner, self._link.attribute))

        return self._numbered(all_of_them)

    @cached_property
    def _picked(self) -> Selection:
        """For SQLite, which has no LATERAL: find the rows up to the cap, then number them.

        SQLite finds their keys once for each owner, and stops at the cap where an index has them in
        order. Without an index on the owner it would scan the table for each owner.
        """
        target: Any = self._link.target.mapper.class_
        key = [getattr(target, name) for name in self._link.target.primary_key]

        def shown(statement: Selection, owner: Any, keys: Sequence[Any]) -> Selection:
            few = (
                self._of_one(select(*key), owner, keys)
                .order_by(*self._order)
                .limit(self._most)
                .correlate(owner)
            )
            return statement.join(target, (tuple_(*key) if len(key) > 1 else key[0]).in_(few))

        return self._numbered(shown)

    def _numbered(self, joined: Callable[[Selection, Any, Sequence[Any]], Selection]) -> Selection:
        owner, keys, one_of = self._owners()
        number = func.row_number().over(partition_by=keys, order_by=self._order).label(_NUMBER)
        labels = [key.label(f"hasten_key_{place}") for place, key in enumerate(keys)]
        own = self._node.own_columns(self._link.target.mapper.class_)
        related = (
            joined(select(*labels, *own, number).select_from(owner), owner, keys)
            .where(one_of)
            .subquery("hasten_related")
        )
        *columns, number_of = related.c
        before, own_of = columns[: self._width], columns[self._width :]
        selected = self._node.select_from(related, own_of, before)
        return selected.where(number_of <= self._most).order_by(number_of)

    @cached_property
    def _lateral(self) -> Selection:
        """For PostgreSQL: a LATERAL join, which reads and numbers only the rows up to the cap."""
        owner, keys, one_of = self._owners()
        number = func.row_number().over(order_by=self._order).label(_NUMBER)
        own = self._node.own_columns(self._link.target.mapper.class_)
        related = (
            self._of_one(select(*own, number), owner, keys)
            .order_by(*self._order)
            .limit(self._most)
            .correlate(owner)
            .lateral("hasten_related")
        )
        *columns, number_of = related.c
        selected = self._node.select_from(related, columns, keys, owner=owner)
        return selected.where(one_of).order_by(number_of)

    def _of_one(self, statement: Selection, owner: Any, keys: Sequence[Any]) -> Selection:
        """Return a select of the related rows of one owner."""
        if self._link.relationship.secondary is None:
            return statement.where(getattr(owner, self._link.attribute).expression)
        again: Any = aliased(self._owner.mapper.class_)
        statement = statement.select_from(again).join(getattr(again, self._link.attribute))
        same = [getattr(again, name) for name in self._owner.primary_key]
        return statement.where(*[one == key for one, key in zip(same, keys, strict=True)])

    def _owners(self) -> tuple[Any, list[Any], ColumnElement[bool]]:
        """Return the table of owners, its key columns, and a condition for the requested keys."""
        owner: Any = aliased(self._owner.mapper.class_, name="hasten_owner")
        keys = [getattr(owner, name) for name in self._owner.primary_key]
        key = tuple_(*keys) if len(keys) > 1 else keys[0]
        return owner, keys, key.in_(bindparam(_KEYS, expanding=True))

    @property
    def _order(self) -> list[Any]:
        """The order of the relationship, made total by the primary key."""
        target = self._link.target
        written = list(self._link.relationship.order_by or ())
        return [*written, *[getattr(target.mapper.class_, name) for name in target.primary_key]]


_Related: TypeAlias = dict[_RelatedQuery, Mapping[_Key, _Found]]


def _padded(keys: Sequence[Any]) -> Sequence[Any]:
    """Return the keys, the last one repeated until their number is a power of two.

    The text of a statement has a placeholder for each key: without this, pages of every length
    would fill the cache of prepared statements.
    """
    length = 1 << (len(keys) - 1).bit_length()
    return [*keys, *repeat(keys[-1], length - len(keys))]


def _picker(places: Sequence[int]) -> Callable[[Any], _Key]:
    if len(places) == 1:
        (place,) = places
        return lambda row: (row[place],)
    return lambda row: tuple([row[place] for place in places])
