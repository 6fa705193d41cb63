"""Select the columns of the requested fields, and build nested dicts from the result rows.

The requested fields are a tree whose nodes are mapped classes. Objects that a row refers to are
read with a LEFT JOIN in the same statement. Lists of related rows are read with one more statement
for all rows together. So the number of statements depends on the requested fields, not on the
number of rows:

    fields=id,team(name),posts(title,tags(name))

    SELECT user.id, team.id, team.name FROM user LEFT JOIN team …
    SELECT user.id, post.id, post.title FROM user JOIN post … WHERE user.id IN (…), 20 for each
    SELECT post.id, tag.name FROM post JOIN tag … WHERE post.id IN (…), 20 for each

Columns that are only needed for joins, for matching rows, or for computing a field are selected but
not shown.
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
    get_selected_entity,
    has_limit_distinct_or_group_by,
    make_safe_for_with_only_columns,
    order_by_clauses,
    without_rows_repeated_by_joins,
)
from hasten._sqlalchemy.templates import SelectCache
from hasten.fields._allowed import AllowedFields, Field, FieldSet
from hasten.fields._rows import Compute
from hasten.fields._sql.entities import MappedEntity, RelationshipLink, resolve_entity

Cap: TypeAlias = Callable[[Field], int]
"""A function that returns how many related rows a list field shows for each owner.

The owner is the row that contains the list.
"""

Rows: TypeAlias = Sequence[Any]


MAX_KEYS: Final = 10_000
"""The maximum number of owners whose related rows one statement reads.

Drivers limit the number of parameters.
"""

_KEYS: Final = "hasten_keys"
_NUMBER: Final = "hasten_number"


class FieldLoader:
    """Selects the columns of one set of requested fields, and builds dicts from the result rows."""

    def __init__(
        self,
        entity: MappedEntity,
        chosen: FieldSet,
        *,
        cap: Cap,
        more_suffix: str,
        with_primary_key: bool = False,
        without_joins: bool = False,
    ) -> None:
        """Find the columns and joins for the chosen fields.

        If with_primary_key, the primary key is selected even if it is not requested. If
        without_joins, all related rows are read with separate statements. If a list has more rows
        than cap, the dict gets a marker: a key with the name of the list and more_suffix.
        """
        self._root = _FieldTreeNode(
            entity,
            chosen,
            cap,
            more_suffix,
            with_primary_key=with_primary_key,
            without_joins=without_joins,
        )
        self.has_related: Final = self._root.has_related
        self._columns = list(self._root.own_and_joined_columns(entity.mapper.class_))
        # If a column of the table is selected, the table stays in FROM anyway. Then
        # with_only_columns() need not keep it, which takes time.
        self._keep = bool(self._root.joined) or not any(
            name in entity.mapper.columns for name in self._root.attributes
        )

    def make_select(self, statement: Selection) -> Selection:
        """Return a select of the columns of these fields, with the same rows in the same order.

        A LIMIT of the select is applied before related rows are joined.
        """
        entity = get_selected_entity(statement, self._root.entity.mapper)
        plain = make_safe_for_with_only_columns(statement, entity)
        if self._root.joined and has_limit_distinct_or_group_by(statement):
            return self._join_to_limited_subquery(plain, entity)
        columns = self._columns
        if entity is not self._root.entity.mapper.class_:
            columns = list(self._root.own_and_joined_columns(entity))
        narrow = plain.with_only_columns(*columns, maintain_column_froms=self._keep)
        if not self._keep:
            return narrow
        return self._root.add_left_joins(narrow, self._root.attribute_columns(entity))

    def build_dicts(self, rows: Rows) -> list[dict[str, object]]:
        """Build dicts from the result rows of `make_select`, without related rows.

        If has_related is set, use `read_nested_dicts` instead.
        """
        return list(map(self._root.build_own, rows))

    async def read_nested_dicts(
        self, rows: Rows, execute: Execute, dialect: str
    ) -> list[dict[str, object]]:
        """Read the related rows for the result rows of `make_select`, and build nested dicts."""
        return await self._root.read_nested_dicts(rows, execute, dialect)

    def _join_to_limited_subquery(self, statement: Selection, entity: Any) -> Selection:
        """Apply the LIMIT of a select in a sub-query, and join the related rows to its result."""
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
        again = [order.apply_direction_to(end) for order, end in zip(orders, ends, strict=True)]
        return joined.order_by(*again)


MAX_LOADERS: Final = 256
"""The number of field loaders to cache. The least recently used one is removed first."""


class FieldLoaderCache:
    """A cache of the field loaders for one mapped class: one for each set of requested fields."""

    def __init__(
        self,
        allowed: AllowedFields,
        model: type,
        *,
        cap: Cap,
        more_suffix: str,
        compute: Compute,
        max_loaders: int = MAX_LOADERS,
    ) -> None:
        """Find the columns of all allowed fields. Raises `InvalidOption` if one is not mapped.

        For cap and more_suffix, see `FieldLoader`. compute has the functions of computed fields.
        """
        self.entity: Final = resolve_entity(allowed, model, compute)
        self.mapper: Final = self.entity.mapper
        make = partial(FieldLoader, self.entity, cap=cap, more_suffix=more_suffix)
        # The state of hybrid properties is only part of the cache key.
        self._cached = lru_cache(max_loaders)(lambda chosen, state, **how: make(chosen, **how))
        self._hybrids = lru_cache(max_loaders)(partial(_find_hybrids, self.entity))
        self._selects: SelectCache[_FieldsSelect] = SelectCache(self._get_fields_select)

    def get(
        self, statement: Selection, chosen: FieldSet, *, without_joins: bool = False
    ) -> FieldLoader:
        """Return the field loader that reads the chosen fields of a select.

        For a select with DISTINCT, it also selects the primary key: otherwise, rows that are equal
        in the chosen fields would be merged.
        """
        get_selected_entity(statement, self.mapper)
        with_primary_key = bool(statement._distinct)
        state = self.make_cache_key_of_hybrid_sql(chosen)
        return self._cached(
            chosen, state, with_primary_key=with_primary_key, without_joins=without_joins
        )

    def make_cache_key_of_hybrid_sql(self, chosen: FieldSet) -> Hashable:
        """Return a value that represents the current SQL of the hybrid properties among the fields.

        A hybrid property may return other SQL in each request. So this value is part of cache keys.
        """
        hybrids = self._hybrids(chosen)
        return tuple([_make_attribute_cache_key(each) for each in hybrids]) if hybrids else ()

    async def fetch(
        self,
        database: Database,
        statement: Selection,
        chosen: FieldSet,
        *,
        row_limit: int | None = None,
    ) -> list[dict[str, object]]:
        """Read the chosen fields of all rows of a select.

        row_limit is the LIMIT to add to a select without LIMIT and grouping. If it is given, the
        order of the select is ignored, and rows that a one-to-many join repeats are returned once.
        """
        get_selected_entity(statement, self.mapper)
        state = self.make_cache_key_of_hybrid_sql(chosen)
        select, bindings = self._selects.get(statement, chosen, row_limit, state)
        rows = (
            await bindings.wrap_execute_with_values_and_options(database.execute)(
                select.statement, {}
            )
        ).all()
        if not select.loader.has_related:
            return select.loader.build_dicts(rows)
        dialect = database.find_dialect(self.mapper)
        return await select.loader.read_nested_dicts(
            rows, bindings.wrap_execute_with_options(database.execute), dialect
        )

    def _get_fields_select(
        self,
        statement: Selection,
        chosen: FieldSet,
        row_limit: int | None,
        _hybrid_cache_key: Hashable,
    ) -> _FieldsSelect:
        """Return the select that `fetch` executes, and the field loader for its rows."""
        loader = self.get(statement, chosen)
        if row_limit is not None:
            statement = without_rows_repeated_by_joins(statement, self.mapper)
        narrow = loader.make_select(statement)
        if row_limit is not None and not has_limit_distinct_or_group_by(narrow):
            narrow = narrow.limit(row_limit)
        return _FieldsSelect(narrow, loader)

    @property
    def cached_loader_count(self) -> int:
        """The number of cached field loaders."""
        return self._cached.cache_info().currsize


class _FieldsSelect(NamedTuple):
    """A select of the requested fields, and the field loader that builds dicts from its rows."""

    statement: Selection
    loader: FieldLoader


_Attribute: TypeAlias = tuple[Mapper[Any], str]


def _find_hybrids(entity: MappedEntity, chosen: FieldSet) -> list[_Attribute]:
    """Return the hybrid properties that the chosen fields need, including nested fields."""
    own = [(entity.mapper, name) for name in chosen.needs if is_hybrid(entity.mapper, name)]
    for each, inner in chosen.relations.items():
        own += _find_hybrids(entity.links[each].target, inner)
    return own


def is_hybrid(mapper: Mapper[Any], attribute: str) -> bool:
    """Return whether an attribute is a hybrid property: neither a column nor a synonym."""
    return attribute not in mapper.column_attrs and attribute not in mapper.synonyms


def _make_attribute_cache_key(attribute: _Attribute) -> Hashable:
    mapper, name = attribute
    return make_expression_cache_key(getattr(mapper.class_, name))


def make_expression_cache_key(expression: Any) -> Hashable:
    """Return a value that is equal for SQL expressions with equal structure and equal values.

    If SQLAlchemy has no cache key for the expression, return a new object, which equals no other.
    """
    key = expression.__clause_element__()._generate_cache_key()
    state = key and (key.key, tuple([each.value for each in key.bindparams]))
    try:
        hash(state)
    except TypeError:
        return object()
    return state or object()


# Trees --------------------------------------------------------------------------------------------


class _FieldTreeNode:
    """A node in the tree of requested fields: a mapped class and the fields to read from it.

    Its child nodes are those of the related classes.
    """

    def __init__(
        self,
        entity: MappedEntity,
        chosen: FieldSet,
        cap: Cap,
        more_suffix: str,
        *,
        with_primary_key: bool,
        start: int = 0,
        without_joins: bool = False,
        remote: Sequence[str] = (),
    ) -> None:
        """Decide which columns to select.

        start is the index of the node's first column in a result row. remote are the attributes
        that the join to the owner compares. For the other parameters, see `FieldLoader`.
        """
        self.entity = entity
        self.joined: list[_LeftJoinedClass] = []
        self.related: list[_RelatedRowsQuery] = []
        self._chosen = chosen
        self._more = more_suffix
        links = [(each, inner, entity.links[each]) for each, inner in chosen.relations.items()]
        joined = [] if without_joins else [link for link in links if link[2].is_joined]
        with_primary_key = with_primary_key or len(joined) < len(links)
        local = [name for _, _, link in joined for name in link.local]
        key = entity.primary_key if with_primary_key or not chosen.needs else ()
        # The requested fields come first, in their order, so that no row must be reordered.
        self.attributes = list(dict.fromkeys([*chosen.needs, *key, *local, *remote]))
        self.places = {name: start + place for place, name in enumerate(self.attributes)}
        self.end = start + len(self.attributes)
        for each, inner, link in links:
            if (each, inner, link) in joined:
                node = _FieldTreeNode(
                    link.target,
                    inner,
                    cap,
                    more_suffix,
                    with_primary_key=True,
                    start=self.end,
                    remote=link.remote,
                )
                self.joined.append(_LeftJoinedClass(each, link, node))
                self.end = node.end
            else:
                self.related.append(_RelatedRowsQuery(entity, each, link, inner, cap, more_suffix))
        key_places = (
            [self.places[name] for name in entity.primary_key] if with_primary_key else None
        )
        self.key = _make_key_getter(key_places) if key_places is not None else None
        relations: dict[Field, _LeftJoinedClass | _RelatedRowsQuery] = {
            **{each.field: each for each in self.joined},
            **{each.field: each for each in self.related},
        }
        self.has_related = bool(relations)
        self._parts = [(each, relations.get(each)) for each in dict(chosen.members)]
        self.build_own = self._make_flat_row_builder()

    # Selecting

    def own_columns(self, entity: Any) -> Iterator[Any]:
        """Return the node's own columns with unique labels.

        Without labels, two columns of a class could have the same name.
        """
        for name in self.attributes:
            yield getattr(entity, name).label(f"hasten_{self.places[name]}")

    def own_and_joined_columns(self, entity: Any) -> Iterator[Any]:
        """Return the columns of this node and of the nodes that are joined to it.

        entity is the mapped class, or an alias of it that the select uses.
        """
        yield from (getattr(entity, name) for name in self.attributes)
        yield from self.joined_columns()

    def joined_columns(self) -> Iterator[Any]:
        """Return the columns of the nodes that are joined to this one, at all levels."""
        for each in self.joined:
            yield from each.table.c
            yield from each.node.joined_columns()

    def attribute_columns(self, entity: Any) -> dict[str, Any]:
        """Return the node's own columns in a mapped class or an alias, by attribute name."""
        return {name: getattr(entity, name).__clause_element__() for name in self.attributes}

    def add_left_joins(self, statement: Selection, columns: Mapping[str, Any]) -> Selection:
        """Add a LEFT JOIN for each node that is joined to this one, at all levels.

        columns are the node's own columns in the select, by attribute name.
        """
        # The ORM's join() is not used. It would add criteria for all aliases of a class, or the
        # discriminator of single-table inheritance, to sub-queries that lack these columns.
        for each in self.joined:
            on = each.link.make_join_condition(columns, each.columns)
            statement = each.node.add_left_joins(statement.outerjoin(each.table, on), each.columns)
        return statement

    def select_from(
        self,
        table: FromClause,
        own_columns: Sequence[Any],
        leading_columns: Sequence[Any] = (),
        lateral_owner: Any = None,
    ) -> Selection:
        """Return a select of the columns of this node and of the joined nodes, with the joins.

        table contains own_columns, the columns of this node. leading_columns are selected before
        them. If table is a LATERAL sub-query, lateral_owner is the table that it refers to.
        """
        statement: Selection = select(*leading_columns, *own_columns, *self.joined_columns())
        if lateral_owner is None:
            statement = statement.select_from(table)
        else:
            statement = statement.select_from(lateral_owner).join(table, true())
        return self.add_left_joins(statement, dict(zip(self.attributes, own_columns, strict=True)))

    # Rows

    async def read_nested_dicts(
        self, rows: Rows, execute: Execute, dialect: str
    ) -> list[dict[str, object]]:
        """Read the related rows for these result rows, and build nested dicts."""
        if not self.has_related:
            return list(map(self.build_own, rows))
        found: _AllRelated = {}
        await self._read_related_into(found, rows, execute, dialect)
        return [self.build_dict(row, found) for row in rows]

    async def _read_related_into(
        self, results: _AllRelated, rows: Rows, execute: Execute, dialect: str
    ) -> None:
        """Read the related rows of this node and of the joined nodes, and add them to results."""
        for each in self.related:
            assert self.key is not None
            keys = {key for row in rows if None not in (key := self.key(row))}
            results[each] = await each.read_by_owner(list(keys), execute, dialect)
        for joined in self.joined:
            await joined.node._read_related_into(results, rows, execute, dialect)

    def build_dict(self, row: Any, related: _AllRelated) -> dict[str, object]:
        """Build the dict of a row, with its nested dicts and lists."""
        made = self.build_own(row)
        if not self.has_related:
            return made
        built: dict[str, object] = {}
        for each, to in self._parts:
            if to is None:
                if each.name in made:
                    built[each.name] = made[each.name]
            elif isinstance(to, _LeftJoinedClass):
                built[each.name] = to.build_dict(row, related)
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

    def _make_flat_row_builder(self) -> Callable[[Any], dict[str, object]]:
        """Return a function that builds a dict from the columns of this node in a result row.

        Nested dicts and lists are not included.
        """
        fields = [each for each, inner in self._chosen.members if inner is None]
        build = self.entity.builder.make_build_function(fields)
        if build is None:
            names = [each.name for each in fields]
            places = [self.places[each.attribute] for each in fields]
            if places == list(range(len(places))):
                return lambda row: dict(zip(names, row, strict=False))
            pairs = list(zip(names, places, strict=True))
            return lambda row: {name: row[place] for name, place in pairs}
        is_used_unchanged = self.entity.builder.is_used_unchanged
        plain = {
            each.name: self.places[each.attribute] for each in fields if is_used_unchanged(each)
        }
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


class _LeftJoinedClass:
    """A related class with at most one row for each owner, which is read with a LEFT JOIN.

    The join is to a sub-query of the class, which databases optimize away. SQLAlchemy applies
    ``with_loader_criteria()``, for example a filter by tenant, to a sub-query but not to an alias.
    """

    def __init__(self, field: Field, link: RelationshipLink, node: _FieldTreeNode) -> None:
        target = link.target.mapper.class_
        self.field = field
        self.link = link
        self.node = node
        self.table = select(*node.own_columns(target)).subquery()
        self.columns = dict(zip(node.attributes, self.table.c, strict=True))

    def build_dict(self, row: Any, related: _AllRelated) -> dict[str, object] | None:
        """Build the dict of the joined row; return None if no row was joined."""
        assert self.node.key is not None
        if None in self.node.key(row):
            return None
        return self.node.build_dict(row, related)


@dataclass(slots=True)
class _RelatedRows:
    """The related rows of one owner, up to the cap."""

    rows: list[dict[str, object]] = field(default_factory=list)
    has_more: bool = False
    """Whether the owner has more related rows than the cap."""


_NONE: Final = _RelatedRows()

_Key: TypeAlias = tuple[object, ...]
"""The primary key of an owner."""


class _RelatedRowsQuery:
    """Reads the related rows of all owners with one statement, up to a cap for each owner."""

    def __init__(
        self,
        owner: MappedEntity,
        field: Field,
        link: RelationshipLink,
        chosen: FieldSet,
        cap: Cap,
        more_suffix: str,
    ) -> None:
        self.field = field
        self._owner = owner
        self._link = link
        self._cap = cap(field) if field.many else 1
        # For a list, one row more than the cap is read, to find out whether there are more.
        self._most = self._cap + 1 if field.many else 1
        self._width = len(owner.primary_key)
        self._node = _FieldTreeNode(
            link.target, chosen, cap, more_suffix, with_primary_key=False, start=self._width
        )

    async def read_by_owner(
        self, owner_keys: Sequence[_Key], execute: Execute, dialect: str
    ) -> Mapping[_Key, _RelatedRows]:
        """Return the related rows of these owners, by primary key of the owner."""
        statement = self._make_related_rows_statement(dialect)
        values = list(owner_keys) if self._width > 1 else [key[0] for key in owner_keys]
        found: dict[_Key, list[Any]] = {}
        for start in range(0, len(values), MAX_KEYS):
            some = _pad_keys_to_power_of_two(values[start : start + MAX_KEYS])
            for row in (await execute(statement, {_KEYS: some})).all():
                found.setdefault(tuple(row[: self._width]), []).append(row)
        shown = [row for rows in found.values() for row in rows[: self._cap]]
        built = iter(await self._node.read_nested_dicts(shown, execute, dialect))
        return {
            key: _RelatedRows(list(islice(built, min(len(rows), self._cap))), len(rows) > self._cap)
            for key, rows in found.items()
        }

    def _make_related_rows_statement(self, dialect: str) -> Selection:
        """Return the statement that reads the related rows.

        It has a parameter for the primary keys of the owners.
        """
        if dialect == "postgresql":
            return self._make_lateral_select
        use_keys = dialect == "sqlite" and self._link.is_indexed
        return self._make_key_lookup_select if use_keys else self._make_window_select

    @cached_property
    def _make_window_select(self) -> Selection:
        """Return the select for any database.

        It numbers all related rows of each owner, and returns those whose number is not above the
        cap.
        """

        def join_all(statement: Selection, owner: Any, _: Sequence[Any]) -> Selection:
            return statement.join(getattr(owner, self._link.attribute))

        return self._make_numbered_select(join_all)

    @cached_property
    def _make_key_lookup_select(self) -> Selection:
        """Return the select for SQLite: it numbers only the rows up to the cap, without LATERAL.

        A sub-query finds the primary keys of these rows for each owner. It stops at the cap if an
        index has the order of the rows. It needs an index that finds the rows of an owner: without
        one, SQLite would scan the table once per owner.
        """
        target: Any = self._link.target.mapper.class_
        key = [getattr(target, name) for name in self._link.target.primary_key]

        def join_capped(statement: Selection, owner: Any, keys: Sequence[Any]) -> Selection:
            few = (
                self._restrict_to_owner(select(*key), owner, keys)
                .order_by(*self._order_by)
                .limit(self._most)
                .correlate(owner)
            )
            return statement.join(target, (tuple_(*key) if len(key) > 1 else key[0]).in_(few))

        return self._make_numbered_select(join_capped)

    def _make_numbered_select(
        self, join: Callable[[Selection, Any, Sequence[Any]], Selection]
    ) -> Selection:
        """Return a select that numbers the related rows of each owner, and stops at the cap.

        join adds the related rows to a select from the owners.
        """
        owner, keys, one_of = self._make_owners_table_and_condition()
        number = func.row_number().over(partition_by=keys, order_by=self._order_by).label(_NUMBER)
        labels = [key.label(f"hasten_key_{place}") for place, key in enumerate(keys)]
        own = self._node.own_columns(self._link.target.mapper.class_)
        related = (
            join(select(*labels, *own, number).select_from(owner), owner, keys)
            .where(one_of)
            .subquery("hasten_related")
        )
        *columns, number_of = related.c
        before, own_of = columns[: self._width], columns[self._width :]
        selected = self._node.select_from(related, own_of, before)
        return selected.where(number_of <= self._most).order_by(number_of)

    @cached_property
    def _make_lateral_select(self) -> Selection:
        """Return the select for PostgreSQL: a LATERAL join that stops at the cap."""
        owner, keys, one_of = self._make_owners_table_and_condition()
        number = func.row_number().over(order_by=self._order_by).label(_NUMBER)
        own = self._node.own_columns(self._link.target.mapper.class_)
        related = (
            self._restrict_to_owner(select(*own, number), owner, keys)
            .order_by(*self._order_by)
            .limit(self._most)
            .correlate(owner)
            .lateral("hasten_related")
        )
        *columns, number_of = related.c
        selected = self._node.select_from(related, columns, keys, lateral_owner=owner)
        return selected.where(one_of).order_by(number_of)

    def _restrict_to_owner(
        self, statement: Selection, owner: Any, keys: Sequence[Any]
    ) -> Selection:
        """Restrict a select of the target class to the related rows of one owner.

        owner is the table of owners in the surrounding select, and keys are its key columns.
        """
        if self._link.relationship.secondary is None:
            return statement.where(getattr(owner, self._link.attribute).expression)
        again: Any = aliased(self._owner.mapper.class_)
        statement = statement.select_from(again).join(getattr(again, self._link.attribute))
        same = [getattr(again, name) for name in self._owner.primary_key]
        return statement.where(*[one == key for one, key in zip(same, keys, strict=True)])

    def _make_owners_table_and_condition(self) -> tuple[Any, list[Any], ColumnElement[bool]]:
        """Return the table of owners, its key columns, and the condition that selects the owners.

        The condition has a parameter for the list of keys.
        """
        owner: Any = aliased(self._owner.mapper.class_, name="hasten_owner")
        keys = [getattr(owner, name) for name in self._owner.primary_key]
        key = tuple_(*keys) if len(keys) > 1 else keys[0]
        return owner, keys, key.in_(bindparam(_KEYS, expanding=True))

    @property
    def _order_by(self) -> list[Any]:
        """The ``order_by`` of the relationship, followed by the primary key."""
        target = self._link.target
        written = list(self._link.relationship.order_by or ())
        return [*written, *[getattr(target.mapper.class_, name) for name in target.primary_key]]


_AllRelated: TypeAlias = dict[_RelatedRowsQuery, Mapping[_Key, _RelatedRows]]
"""The related rows that were read for a result, by their query and by the key of their owner."""


def _pad_keys_to_power_of_two(keys: Sequence[Any]) -> Sequence[Any]:
    """Repeat the last key until the number of keys is a power of two.

    A statement has a placeholder for each key. Without padding, each number of keys would need its
    own prepared statement.
    """
    length = 1 << (len(keys) - 1).bit_length()
    return [*keys, *repeat(keys[-1], length - len(keys))]


def _make_key_getter(column_indexes: Sequence[int]) -> Callable[[Any], _Key]:
    """Return a function that returns the values of a row at these indexes as a tuple."""
    if len(column_indexes) == 1:
        (place,) = column_indexes
        return lambda row: (row[place],)
    return lambda row: tuple([row[place] for place in column_indexes])
