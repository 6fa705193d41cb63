"""What one set of fields selects, and how its rows become what was asked for.

A set is a tree. The fields of a node are columns; what leads to one row is joined to them, in the
same statement; what leads to many is read by one further statement for all rows together, so the
number of statements depends on what is asked for, never on how many rows there are:

    fields=id,team(name),posts(title,tags(name))

    SELECT user.id, team.id, team.name FROM user LEFT JOIN team …
    SELECT user.id, post.id, post.title FROM user JOIN post … WHERE user.id IN (…), 20 for each
    SELECT post.id, tag.name FROM post JOIN tag … WHERE post.id IN (…), 20 for each

What is selected for the work (keys to join and to match by, attributes that a computed field is
made of) stays out of the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from itertools import islice, repeat
from typing import Any, Final, NamedTuple, TypeAlias

from sqlalchemy import ColumnElement, FromClause, bindparam, func, select, true, tuple_
from sqlalchemy.orm import Mapper, aliased

from hasten.fields._allowed import AllowedFields, Field, FieldSet
from hasten.fields._rows import Compute
from hasten.fields._sql.entities import Entity, Link, resolve
from hasten.fields._sql.running import Found, Rows, Step, Steps
from hasten.fields._sql.statements import (
    Selection,
    each_once,
    entity_of,
    is_cut,
    narrowed,
    sorted_by,
)
from hasten.fields._sql.templates import Templates

Cap: TypeAlias = Callable[[Field], int]
"""How many rows a field that leads to many shows at most, of each owner."""

MAX_KEYS: Final = 10_000
"""So many owners are named in one statement. Beyond, a driver refuses the parameters."""

_KEYS: Final = "hasten_keys"
_NUMBER: Final = "hasten_number"


class Shape:
    """What one set of fields selects of an entity."""

    def __init__(
        self,
        entity: Entity,
        chosen: FieldSet,
        *,
        cap: Cap,
        more: str,
        keyed: bool = False,
        apart: bool = False,
    ) -> None:
        """Keyed is with the primary key, asked for or not. more ends the name of the marker.

        apart is without any join: what it leads to is read by further statements alone.
        """
        self._root = _Node(entity, chosen, cap, more, keyed=keyed, apart=apart)
        self._columns = list(self._root.columns(entity.mapper.class_))
        # Without a join its own columns keep it in FROM, and finding that out has a cost.
        self._keep = bool(self._root.joined) or not any(
            name in entity.mapper.columns for name in self._root.attributes
        )

    def statement(self, statement: Selection) -> Selection:
        """A select of the entity becomes one of the columns of these fields.

        Its rows stay the same, and their order. What is limited is limited before it is joined to
        what its fields lead to.
        """
        entity = entity_of(statement, self._root.entity.mapper)
        plain = narrowed(statement, entity)
        if self._root.joined and is_cut(statement):
            return self._around(plain, entity)
        columns = self._columns
        if entity is not self._root.entity.mapper.class_:
            columns = list(self._root.columns(entity))
        narrow = plain.with_only_columns(*columns, maintain_column_froms=self._keep)
        return self._root.join(narrow, self._root.columns_of(entity)) if self._keep else narrow

    def read(self, rows: Rows, dialect: str) -> Steps[list[dict[str, object]]]:
        """The rows of that statement as what was asked for, with what they lead to."""
        return self._root.read(rows, dialect)

    def _around(self, statement: Selection, entity: Any) -> Selection:
        """What is limited first, as a table that others are joined to."""
        own = list(self._root.own_columns(entity))
        orders = sorted_by(statement, entity)
        keys = [order.bare.label(f"hasten_order_{place}") for place, order in enumerate(orders)]
        page = statement.with_only_columns(*own, *keys, maintain_column_froms=True).subquery(
            "hasten_page"
        )
        columns = list(page.c)
        around = self._root.around(page, columns[: len(own)])
        ends = columns[len(own) :]
        again = [order.restore(end) for order, end in zip(orders, ends, strict=True)]
        return around.order_by(*again)


MAX_SHAPES: Final = 256
"""So many sets keep their shapes: what is asked for rarely is made again."""


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
        """Raises `InvalidOption` for a field that leads nowhere, or cannot be made."""
        self.entity: Final = resolve(allowed, model, compute)
        self.mapper: Final = self.entity.mapper
        made = partial(Shape, self.entity, cap=cap, more=more)
        self._of = lru_cache(max_shapes)(lambda chosen, context, **how: made(chosen, **how))
        self._hybrids = lru_cache(max_shapes)(partial(_hybrids, self.entity))
        self._selects: Templates[_Select] = Templates(self._select)

    def of(self, statement: Selection, chosen: FieldSet, *, apart: bool = False) -> Shape:
        """The shape of a set, for this statement. apart is without any join.

        Rows that are DISTINCT are told apart by what is selected, so the primary key has to be
        among it: fewer fields never are fewer rows.
        """
        entity_of(statement, self.mapper)
        keyed = bool(statement._distinct)
        return self._of(chosen, self.context(chosen), keyed=keyed, apart=apart)

    def context(self, chosen: FieldSet) -> Hashable:
        """What the hybrids among the fields are at this moment: they may look at who is asking.

        What was made in one context is not for another one.
        """
        return tuple([_at_this_moment(each) for each in self._hybrids(chosen)])

    def fetch(
        self, statement: Selection, chosen: FieldSet, dialect: str, *, most: int | None = None
    ) -> Steps[list[dict[str, object]]]:
        """All rows of a select of the entity, as what was asked for.

        With most, so many at most, in no order: a join to many does not repeat them.
        """
        entity_of(statement, self.mapper)
        select, own = self._selects.of(statement, chosen, most, self.context(chosen))
        result = yield from own.bind(_executed(select.statement))
        return (yield from own.mark(select.shape.read(result.all(), dialect)))

    def _select(
        self, statement: Selection, chosen: FieldSet, most: int | None, _: Hashable
    ) -> _Select:
        shape = self.of(statement, chosen)
        if most is not None:
            statement = each_once(statement, self.mapper)
        narrow = shape.statement(statement)
        if most is not None and not is_cut(narrow):
            narrow = narrow.limit(most)
        return _Select(narrow, shape)

    @property
    def count(self) -> int:
        """How many shapes are kept."""
        return self._of.cache_info().currsize


class _Select(NamedTuple):
    """A select of what was asked for, and what its rows become."""

    statement: Selection
    shape: Shape


_Attribute: TypeAlias = tuple[Mapper[Any], str]


def _hybrids(entity: Entity, chosen: FieldSet) -> list[_Attribute]:
    """All in a tree whose SQL is made by a function."""
    own = [(entity.mapper, name) for name in chosen.needs if is_hybrid(entity.mapper, name)]
    for each, inner in chosen.relations.items():
        own += _hybrids(entity.links[each].target, inner)
    return own


def is_hybrid(mapper: Mapper[Any], attribute: str) -> bool:
    return attribute not in mapper.column_attrs and attribute not in mapper.synonyms


def _at_this_moment(attribute: _Attribute) -> Hashable:
    mapper, name = attribute
    return state_of(getattr(mapper.class_, name))


def state_of(expression: Any) -> Hashable:
    """The structure of an expression and its values; equal to nothing else where nobody knows."""
    key = expression.__clause_element__()._generate_cache_key()
    state = key and (key.key, tuple([each.value for each in key.bindparams]))
    try:
        hash(state)
    except TypeError:
        return object()
    return state or object()


def _executed(statement: Selection) -> Steps[Found]:
    found: Found = yield Step(statement)
    return found


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
        apart: bool = False,
        remote: Sequence[str] = (),
    ) -> None:
        self.entity = entity
        self.joined: list[_Joined] = []
        self.further: list[_Further] = []
        self._chosen = chosen
        self._more = more
        links = [(each, inner, entity.links[each]) for each, inner in chosen.relations.items()]
        joined = [] if apart else [link for link in links if link[2].is_joined]
        keyed = keyed or len(joined) < len(links)
        local = [name for _, _, link in joined for name in link.local]
        key = entity.primary_key if keyed or not chosen.needs else ()
        # What was asked for stands first, in its order: then a row is the answer, up to its end.
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
                self.further.append(_Further(entity, each, link, inner, cap, more))
        self.key = _picker([self.places[name] for name in entity.primary_key]) if keyed else None
        self._relations: dict[Field, _Joined | _Further] = {}
        self._relations.update({each.field: each for each in self.joined})
        self._relations.update({each.field: each for each in self.further})
        self._parts = [(each, self._relations.get(each)) for each in dict(chosen.members)]
        self._make = self._maker()

    # Selecting

    def own_columns(self, entity: Any) -> Iterator[Any]:
        """Its own columns, by names that a table may have: those of a class may be equal."""
        for name in self.attributes:
            yield getattr(entity, name).label(f"hasten_{self.places[name]}")

    def columns(self, entity: Any) -> Iterator[Any]:
        """All of the tree that one statement reads."""
        yield from (getattr(entity, name) for name in self.attributes)
        yield from self.columns_beside()

    def columns_beside(self) -> Iterator[Any]:
        for each in self.joined:
            yield from each.table.c
            yield from each.node.columns_beside()

    def columns_of(self, entity: Any) -> dict[str, Any]:
        """What stands for its attributes in a class, or in an alias of it."""
        return {name: getattr(entity, name).__clause_element__() for name in self.attributes}

    def join(self, statement: Selection, columns: Mapping[str, Any]) -> Selection:
        """LEFT JOIN all that leads to one row."""
        # Without the ORM's ways: it would put criteria for all aliases of a class, or the mark of
        # a class that shares its table, on tables that lack the columns for them.
        for each in self.joined:
            on = each.link.condition(columns, each.columns)
            statement = each.node.join(statement.outerjoin(each.table, on), each.columns)
        return statement

    def around(
        self, table: FromClause, own: Sequence[Any], before: Sequence[Any] = (), owner: Any = None
    ) -> Selection:
        """A select from a table that has the node's own columns, joined to all that they lead to.

        before is selected, too, in front of them. owner is what a lateral table belongs to.
        """
        statement: Selection = select(*before, *own, *self.columns_beside())
        if owner is None:
            statement = statement.select_from(table)
        else:
            statement = statement.select_from(owner).join(table, true())
        return self.join(statement, dict(zip(self.attributes, own, strict=True)))

    # Reading

    def read(self, rows: Rows, dialect: str) -> Steps[list[dict[str, object]]]:
        related: _Related = {}
        yield from self._read_related(rows, related, dialect)
        if not self._relations:
            return list(map(self._make, rows))
        return [self.build(row, related) for row in rows]

    def _read_related(self, rows: Rows, related: _Related, dialect: str) -> Steps[None]:
        for each in self.further:
            assert self.key is not None
            keys = {key for row in rows if None not in (key := self.key(row))}
            related[each] = yield from each.read(list(keys), dialect)
        for joined in self.joined:
            yield from joined.node._read_related(rows, related, dialect)

    def build(self, row: Any, related: _Related) -> dict[str, object]:
        made = self._make(row)
        if not self._relations:
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

    def _maker(self) -> Callable[[Any], dict[str, object]]:
        """What makes the plain fields of a row."""
        fields = [each for each, inner in self._chosen.members if inner is None]
        made = self.entity.making.maker(fields)
        if made is None:
            names = [each.name for each in fields]
            places = [self.places[each.attribute] for each in fields]
            if places == list(range(len(places))):
                return lambda row: dict(zip(names, row, strict=False))
            pairs = list(zip(names, places, strict=True))
            return lambda row: {name: row[place] for name, place in pairs}
        is_plain = self.entity.making.is_plain
        plain = {each.name: self.places[each.attribute] for each in fields if is_plain(each)}
        order = [each.name for each in fields]
        needs = [(name, self.places[name]) for name in self._chosen.needs]
        make = made

        def make_row(row: Any) -> dict[str, object]:
            special = make({name: row[place] for name, place in needs})
            return {
                name: row[plain[name]] if name in plain else special[name]
                for name in order
                if name in plain or name in special
            }

        return make_row


class _Joined:
    """What leads to one row, in the same statement.

    It is joined as a select of its own, which databases see through: with_loader_criteria (of a
    tenant, of what is deleted softly) filters a class there, but would not filter an alias.
    """

    def __init__(self, field: Field, link: Link, node: _Node) -> None:
        target = link.target.mapper.class_
        self.field = field
        self.link = link
        self.node = node
        self.table = select(*node.own_columns(target)).subquery()
        self.columns = dict(zip(node.attributes, self.table.c, strict=True))

    def build(self, row: Any, related: _Related) -> dict[str, object] | None:
        assert self.node.key is not None
        if None in self.node.key(row):
            return None
        return self.node.build(row, related)


@dataclass(slots=True)
class _Found:
    """What one owner leads to."""

    rows: list[dict[str, object]] = field(default_factory=list)
    has_more: bool = False


_NONE: Final = _Found()

_Key: TypeAlias = tuple[object, ...]


class _Further:
    """What leads to many rows: one further statement for all owners."""

    def __init__(
        self, owner: Entity, field: Field, link: Link, chosen: FieldSet, cap: Cap, more: str
    ) -> None:
        self.field = field
        self._owner = owner
        self._link = link
        self._cap = cap(field) if field.many else 1
        # One more tells that there are more. Of one, nobody asks.
        self._most = self._cap + 1 if field.many else 1
        self._width = len(owner.primary_key)
        self._node = _Node(link.target, chosen, cap, more, keyed=False, start=self._width)

    def read(self, keys: Sequence[_Key], dialect: str) -> Steps[Mapping[_Key, _Found]]:
        statement = self._statement(dialect)
        values = list(keys) if self._width > 1 else [key[0] for key in keys]
        found: dict[_Key, list[Any]] = {}
        for start in range(0, len(values), MAX_KEYS):
            some = _padded(values[start : start + MAX_KEYS])
            result = yield Step(statement, {_KEYS: some})
            for row in result.all():
                found.setdefault(tuple(row[: self._width]), []).append(row)
        shown = [row for rows in found.values() for row in rows[: self._cap]]
        built = iter((yield from self._node.read(shown, dialect)))
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
        """The rows of all owners, numbered for each."""

        def all_of_them(statement: Selection, owner: Any, _: Sequence[Any]) -> Selection:
            return statement.join(getattr(owner, self._link.attribute))

        return self._numbered(all_of_them)

    @cached_property
    def _picked(self) -> Selection:
        """The same without LATERAL: only the rows that are shown are numbered, found by their keys.

        SQLite asks for the keys once for each owner, and stops at the cap where an index has them
        in order. Without an index of the owner it would scan the table for each.
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
        around = self._node.around(related, own_of, before)
        return around.where(number_of <= self._most).order_by(number_of)

    @cached_property
    def _lateral(self) -> Selection:
        """The same where the database can stop at the cap, rather than number all that there is."""
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
        around = self._node.around(related, columns, keys, owner=owner)
        return around.where(one_of).order_by(number_of)

    def _of_one(self, statement: Selection, owner: Any, keys: Sequence[Any]) -> Selection:
        """What one owner leads to."""
        if self._link.relationship.secondary is None:
            return statement.where(getattr(owner, self._link.attribute).expression)
        again: Any = aliased(self._owner.mapper.class_)
        statement = statement.select_from(again).join(getattr(again, self._link.attribute))
        same = [getattr(again, name) for name in self._owner.primary_key]
        return statement.where(*[one == key for one, key in zip(same, keys, strict=True)])

    def _owners(self) -> tuple[Any, list[Any], ColumnElement[bool]]:
        """The owners, their keys, and that they are those that are asked for."""
        owner: Any = aliased(self._owner.mapper.class_, name="hasten_owner")
        keys = [getattr(owner, name) for name in self._owner.primary_key]
        key = tuple_(*keys) if len(keys) > 1 else keys[0]
        return owner, keys, key.in_(bindparam(_KEYS, expanding=True))

    @property
    def _order(self) -> list[Any]:
        """As the relationship says; the primary key makes it total."""
        target = self._link.target
        written = list(self._link.relationship.order_by or ())
        return [*written, *[getattr(target.mapper.class_, name) for name in target.primary_key]]


_Related: TypeAlias = dict[_Further, Mapping[_Key, _Found]]


def _padded(keys: Sequence[Any]) -> Sequence[Any]:
    """As many as a power of two, the last one repeated.

    The text of a statement holds a mark for each: without this, pages of every length would fill
    the cache of prepared statements.
    """
    length = 1 << (len(keys) - 1).bit_length()
    return [*keys, *repeat(keys[-1], length - len(keys))]


def _picker(places: Sequence[int]) -> Callable[[Any], _Key]:
    if len(places) == 1:
        (place,) = places
        return lambda row: (row[place],)
    return lambda row: tuple([row[place] for place in places])
