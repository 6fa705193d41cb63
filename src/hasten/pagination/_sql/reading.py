"""What a select says that paging has to know: what tells its rows apart, and what may be NULL.

A page is right only if rows stand in a total order, and a total right only if it counts what a
full read returns. Both hang on one question: which columns identify a row? For one table it is
the primary key. A join to at most one row (its unique key is equated with columns that are fixed
already) changes nothing. A join to many repeats rows: if nothing of the joined table is selected,
the repetition cannot have been meant, and the join becomes a semi-join, `WHERE id IN (SELECT id
…)`. If something is selected, the pairs are the rows, and both primary keys identify them. What
grouping and DISTINCT make has no key that we could know, unless it holds the primary key: then
the caller names one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from sqlalchemy import (
    Alias,
    ClauseElement,
    Column,
    ColumnElement,
    FromClause,
    Index,
    Join,
    Select,
    Subquery,
    Table,
    UniqueConstraint,
    func,
    inspect,
    select,
    tuple_,
)
from sqlalchemy.orm import LoaderCriteriaOption, Mapper, UserDefinedOption
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import (
    BinaryExpression,
    BindParameter,
    BooleanClauseList,
    Grouping,
    UnaryExpression,
)
from sqlalchemy.sql.selectable import CTE

from hasten.errors import InvalidOption
from hasten.pagination._order import Nulls, Order

if TYPE_CHECKING:
    Selection: TypeAlias = Select[*tuple[Any, ...]]
    """A select of anything."""
else:
    Selection = Select  # SQLAlchemy 2.0 knows one parameter, 2.1 any number

Expression: TypeAlias = ColumnElement[Any]


@dataclass(frozen=True, slots=True, eq=False)
class SortColumn:
    """One key of an order, resolved to what the database sorts by."""

    column: Expression
    descending: bool = False
    nullable: bool = False
    nulls: Nulls | None = None
    """None is where the database puts them by itself. Of no meaning if not nullable."""

    def reversed(self, dialect: str) -> SortColumn:
        """The key of the same order read from its end."""
        nulls: Nulls = "last" if self.nulls_first(dialect) else "first"
        return replace(self, descending=not self.descending, nulls=nulls)

    def nulls_first(self, dialect: str) -> bool:
        if self.nulls is None:
            return self.native_nulls_first(dialect)
        return self.nulls == "first"

    def native_nulls_first(self, dialect: str) -> bool:
        """Whether a plain index that is read in this direction meets NULLs first."""
        return self.descending == (dialect in NULLS_ARE_LARGEST)

    def is_native(self, dialect: str) -> bool:
        """Whether a plain index has the NULLs where they are asked for."""
        return not self.nullable or self.nulls_first(dialect) == self.native_nulls_first(dialect)


SortColumns: TypeAlias = tuple[SortColumn, ...]

NULLS_ARE_LARGEST: Final = frozenset({"postgresql", "oracle", "cockroachdb"})


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """A select, ready to be cut into pages: without ORDER BY, and each of its rows once."""

    statement: Selection
    identity: SortColumns
    """The columns that tell its rows apart."""
    order: SortColumns
    """The ORDER BY that the select came with."""
    width: int
    """How many elements a row has."""
    holds_entities: bool
    """Whether a row holds objects of the ORM, not columns alone."""
    is_grouped: bool
    is_distinct: bool
    is_keyed: bool
    """Whether the caller named the identity, so that it is not of one table."""
    table: Table | None
    """The one table that it reads whole, without a condition."""
    mapper: Mapper[Any] | None
    leaves: Leaves
    repeated_by: tuple[FromClause, ...] = ()
    """What was joined to many, and became a semi-join."""

    def find(self, column: Expression) -> int | None:
        """The place of a column in a row, None if it is not selected as such."""
        if self.holds_entities:
            return None
        for index, expression in enumerate(_expressions(self.statement)):
            if is_same(_clause(expression), column):
                return index
        return None


@dataclass(frozen=True, slots=True, eq=False)
class Leaves:
    """The tables, aliases and sub-queries that a select reads from."""

    all: list[FromClause] = field(default_factory=list)
    outer: set[FromClause] = field(default_factory=set)
    """Those on the side of an outer join that may be missing."""
    equal: list[tuple[Expression, FromClause | None]] = field(default_factory=list)
    """A column, and where the value comes from that fixes it (None: from outside)."""

    def __contains__(self, leaf: object) -> bool:
        return any(leaf == each for each in self.all)


def read(statement: Selection, *, key: Sequence[Any] = ()) -> Reading:
    """Read a select of entities or of columns.

    key names the columns that tell its rows apart, where the select does not say so: for GROUP BY
    and DISTINCT without a primary key, and for what comes out of a sub-query. They may be NULL.
    Raises `InvalidOption` where rows could not be told apart, with the remedy.
    """
    _check_kind(statement)
    bare = statement.order_by(None)
    leaves = _find_leaves(bare)
    root = _find_root(bare, leaves)
    reading = Reading(
        statement=bare,
        identity=tuple(
            SortColumn(_clause(each), nullable=_may_be_null(each, leaves)) for each in key
        ),
        order=_written_order(statement, leaves),
        width=len(statement.column_descriptions),
        holds_entities=any(_is_entity(each) for each in statement.column_descriptions),
        is_grouped=bool(bare._group_by_clauses or bare._having_criteria),
        is_distinct=bare._distinct,
        is_keyed=bool(key),
        table=_whole_table(bare, leaves, root),
        mapper=root.mapper if root else None,
        leaves=leaves,
    )
    if key:
        return reading
    if root is None or not root.primary_key:
        raise InvalidOption("statement", "a select without a primary key", NAME_THE_KEY)
    if reading.is_grouped:
        return replace(reading, identity=_group_identity(bare, root, leaves))
    return _identify(reading, root)


def resolve(reading: Reading, order: Order, columns: Mapping[str, Any]) -> SortColumns:
    """The keys to sort by: those asked for, then what makes the order total.

    columns says which column or expression a name stands for. Without an order, that of the select
    counts. The identity is appended in the direction of the last key, so that one index serves,
    unless the keys tell rows apart already.
    """
    keys = tuple(
        SortColumn(
            column := _column_of(key.name, columns),
            descending=key.descending,
            nullable=key.nullable or _may_be_null(column, reading.leaves),
            nulls=key.nulls,
        )
        for key in order
    )
    keys = keys or reading.order
    for key in keys:
        _check_reachable(key.column, reading)
    if _is_total(keys, reading):
        return keys
    descending = keys[-1].descending if keys else False
    missing = [
        replace(each, descending=descending)
        for each in reading.identity
        if not any(is_same(each.column, key.column) for key in keys)
    ]
    return (*keys, *missing)


def without_loading(statement: Selection) -> Selection:
    """The select without options that say how to load entities. Those that filter stay."""
    plain = statement.order_by(None)
    plain._with_options = tuple(
        option
        for option in statement._with_options
        if isinstance(option, (LoaderCriteriaOption, UserDefinedOption))
    )
    return plain


def only(statement: Selection, *columns: Any) -> Selection:
    """The same rows, but of each row these columns alone."""
    return without_loading(statement).with_only_columns(*columns, maintain_column_froms=True)


def around(outer: Selection, inner: Selection) -> Selection:
    """A select from an inner one, to which the ORM adds the filters that it would add to that.

    It takes with_loader_criteria(), and what listeners on a session add, from the statement that is
    executed, if that is one of its own: inside of another one they would be passed over.
    """
    # With other columns a select keeps its options apart, with the entities that it had.
    earlier: Any = inner._memoized_select_entities
    options = [option for each in (*earlier, inner) for option in each._with_options]
    kinds = (LoaderCriteriaOption, UserDefinedOption)
    found = outer.options(*(option for option in options if isinstance(option, kinds)))
    found._propagate_attrs = inner._propagate_attrs
    return found


NAME_THE_KEY: Final = (
    "the primary key in what it selects or groups by; for other rows, a class that is mapped to "
    "them, as to a view"
)


def _check_kind(statement: Selection) -> None:
    if not isinstance(statement, Select):
        raise InvalidOption(
            "statement", type(statement).__name__, "a select: for a UNION, select(union.subquery())"
        )
    if statement._limit_clause is not None or statement._offset_clause is not None:
        raise InvalidOption(
            "statement", "a select with LIMIT", "one without, or a select from its subquery()"
        )
    if statement._fetch_clause is not None:
        raise InvalidOption(
            "statement", "a select with FETCH", "one without, or a select from its subquery()"
        )
    # SQLAlchemy 2.1 has made it an extension of syntax.
    extension = getattr(statement, "_pre_columns_clause", None)
    if statement._distinct_on or extension is not None:
        raise InvalidOption(
            "statement",
            "a select with DISTINCT ON",
            "a select of aliased(…, statement.subquery()), which has its rows",
        )


# What the rows are of -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Root:
    """What a select is of, in the first place."""

    leaf: FromClause
    primary_key: tuple[Expression, ...]
    entity: object | None
    mapper: Mapper[Any] | None


def _find_root(statement: Selection, leaves: Leaves) -> _Root | None:
    for description in statement.column_descriptions:
        entity = description.get("entity")
        if entity is not None:
            return _entity_root(entity)
        column = _clause(description["expr"])
        table = getattr(column, "table", None)
        if table is not None and table in leaves:
            return _Root(table, tuple(_primary_key(table)), None, None)
    return None


def _entity_root(entity: Any) -> _Root:
    mapper = inspect(entity).mapper
    primary_key = tuple(
        _clause(getattr(entity, mapper.get_property_by_column(column).key))
        for column in mapper.primary_key
    )
    leaf = primary_key[0].table
    return _Root(leaf, primary_key, entity, mapper)


def _group_identity(statement: Selection, root: _Root, leaves: Leaves) -> SortColumns:
    grouped = [_clause(each) for each in statement._group_by_clauses]
    for column in root.primary_key:
        if not any(is_same(column, each) for each in grouped):
            raise InvalidOption("statement", "GROUP BY without the primary key", NAME_THE_KEY)
    rest = [each for each in grouped if getattr(each, "table", None) != root.leaf]
    return _as_keys([*root.primary_key, *rest], leaves)


def _identify(reading: Reading, root: _Root) -> Reading:
    leaves = reading.leaves
    if _determine_all([root.leaf], leaves) and root.leaf not in leaves.outer:
        return _identified(reading, _as_keys(root.primary_key, leaves))
    if _is_of_root_alone(reading.statement, root):
        return _semi_joined(reading, root)
    return _identified(reading, _as_keys(_identity_of_pairs(reading, root), leaves))


def _identity_of_pairs(reading: Reading, root: _Root) -> list[Expression]:
    """The primary keys that together determine all that a row is made of."""
    columns = list(root.primary_key)
    chosen = [root.leaf]
    # What the ORM puts between two entities has a new name each time: it can determine nothing.
    lasting = _find_leaves(reading.statement)
    candidates = sorted(
        (leaf for leaf in reading.leaves.all if leaf in lasting),
        key=lambda leaf: not _is_selected_from(leaf, reading.statement),
    )
    for leaf in candidates:
        if not any(leaf == each for each in _determined(chosen, reading.leaves)):
            chosen.append(leaf)
            found = _selected_key(leaf, reading.statement) or _primary_key(leaf)
            columns += found
            if not found:
                raise InvalidOption("statement", f"a join to many of {leaf}", NAME_THE_KEY)
    if not _determine_all(chosen, reading.leaves):
        raise InvalidOption("statement", "a join to many that has no name", NAME_THE_KEY)
    return columns


def _is_selected_from(leaf: FromClause, statement: Selection) -> bool:
    return any(getattr(column, "table", None) == leaf for column in statement.selected_columns)


def _selected_key(leaf: FromClause, statement: Selection) -> list[Expression]:
    """The primary key of an entity that is selected from a leaf, whatever kind of leaf it is."""
    for description in statement.column_descriptions:
        if description.get("entity") is not None:
            root = _entity_root(description["entity"])
            if root.leaf == leaf:
                return list(root.primary_key)
    return []


def _primary_key(leaf: FromClause) -> list[Expression]:
    """That of a table. What a sub-query makes of it need not be one any more."""
    element: Any = leaf
    while isinstance(element, Alias):
        element = element.element
    return list(leaf.primary_key) if isinstance(element, (Table, Join)) else []


def _identified(reading: Reading, identity: SortColumns) -> Reading:
    """Where the key is selected, DISTINCT has nothing to do, so it need not be done."""
    if reading.is_distinct:
        for key in identity:
            if not _is_selected(key.column, reading.statement):
                raise InvalidOption("statement", "DISTINCT without the primary key", NAME_THE_KEY)
        reading = replace(reading, statement=_undistinct(reading.statement), is_distinct=False)
    return replace(reading, identity=identity)


def _undistinct(statement: Selection) -> Selection:
    plain = statement.order_by(None)
    plain._distinct = False
    return plain


def _semi_joined(reading: Reading, root: _Root) -> Reading:
    statement = reading.statement
    if any(_is_contains_eager(option) for option in statement._with_options):
        raise InvalidOption(
            "statement", "contains_eager() over a join to many", "selectinload() beside the join"
        )
    if reading.is_distinct and not all(
        _is_selected(column, statement) for column in root.primary_key
    ):
        raise InvalidOption("statement", "DISTINCT without the primary key", NAME_THE_KEY)
    primary_key = tuple(root.primary_key)
    inside = _undistinct(only(statement, *primary_key)).correlate(None)
    whole = primary_key[0] if len(primary_key) == 1 else tuple_(*primary_key)
    outside: Selection = (
        select(*_expressions(statement))
        .options(*statement._with_options)
        .execution_options(**statement.get_execution_options())
        .where(whole.in_(inside))
    )
    leaves = _find_leaves(outside)
    once = _determined([root.leaf], reading.leaves)
    return replace(
        reading,
        statement=outside,
        repeated_by=tuple(
            leaf for leaf in reading.leaves.all if not any(leaf == each for each in once)
        ),
        identity=_as_keys(primary_key, leaves),
        is_distinct=False,
        leaves=leaves,
    )


def _is_contains_eager(option: object) -> bool:
    return any(
        "eager_from_alias" in getattr(step, "local_opts", ())
        for step in getattr(option, "context", ())
    )


def _is_of_root_alone(statement: Selection, root: _Root) -> bool:
    for description in statement.column_descriptions:
        if root.entity is not None:
            if description.get("entity") is not root.entity:
                return False
        elif getattr(_clause(description["expr"]), "table", None) != root.leaf:
            return False
    return True


def _is_selected(column: Expression, statement: Selection) -> bool:
    for description in statement.column_descriptions:
        if _is_entity(description):
            if any(
                is_same(column, each)
                for each in _entity_root(description.get("entity")).primary_key
            ):
                return True
        elif is_same(column, _clause(description["expr"])):
            return True
    return False


def _whole_table(statement: Selection, leaves: Leaves, root: _Root | None) -> Table | None:
    """The table, if the rows of the select are all of its rows, and nothing else."""
    single = root is not None and root.mapper is not None and root.mapper.single
    is_plain = not (
        statement._where_criteria
        or statement._group_by_clauses
        or statement._having_criteria
        or statement._distinct
        or any(isinstance(each, LoaderCriteriaOption) for each in statement._with_options)
        or single
    )
    if is_plain and len(leaves.all) == 1:
        leaf: Any = leaves.all[0]
        leaf = getattr(leaf, "element", leaf) if isinstance(leaf, Alias) else leaf
        return leaf if isinstance(leaf, Table) else None
    return None


# From where it reads ------------------------------------------------------------------------------


def _find_leaves(statement: Selection) -> Leaves:
    leaves = Leaves()
    for criterion in statement._where_criteria:
        _note_equalities(criterion, leaves)
    table = _only_table(statement)
    # The other way compiles the select, which costs more than all else that is read off it.
    froms = [table] if table is not None else only(statement, func.count()).get_final_froms()
    for clause in froms:
        _walk(clause, leaves)
    return leaves


def _only_table(statement: Selection) -> Table | None:
    """The table of a select of one class that has one, without joins; None if it may be another."""
    columns = statement._raw_columns
    if statement._setup_joins or statement._from_obj or len(columns) != 1:
        return None
    if not isinstance(columns[0], FromClause):
        return None
    mapper = columns[0]._annotations.get("parententity")
    if not isinstance(mapper, Mapper) or mapper.with_polymorphic or mapper.inherits:
        return None
    table = mapper.persist_selectable
    if not isinstance(table, Table) or any(
        source != table for each in statement._where_criteria for source in each._from_objects
    ):
        return None
    return table


def _walk(clause: FromClause, leaves: Leaves) -> list[FromClause]:
    """Note the leaves of a tree of joins. Returns those that it noted."""
    if not isinstance(clause, Join):
        leaves.all.append(clause)
        return [clause]
    left, right = _walk(clause.left, leaves), _walk(clause.right, leaves)
    if clause.isouter or clause.full:
        leaves.outer.update(right)
    if clause.full:
        leaves.outer.update(left)
    elif clause.onclause is not None:
        _note_equalities(clause.onclause, leaves, right if clause.isouter else None)
    return [*left, *right]


def _note_equalities(
    criterion: ClauseElement, leaves: Leaves, targets: Collection[FromClause] | None = None
) -> None:
    """What must be equal for a row to come out. An outer join fixes its missing side alone."""
    for condition in _conjuncts(criterion):
        if not isinstance(condition, BinaryExpression) or condition.operator is not operators.eq:
            continue
        sides = (condition.left, condition.right)
        for column, other in (sides, sides[::-1]):
            table = getattr(column, "table", None)
            source = getattr(other, "table", None)
            if table is None or (source is None and not isinstance(other, BindParameter)):
                continue
            if targets is None or any(table == each for each in targets):
                leaves.equal.append((column, source))


def _conjuncts(criterion: ClauseElement) -> Iterator[ClauseElement]:
    match criterion:
        case Grouping():
            inner: Any = criterion.element
            yield from _conjuncts(inner)
        case BooleanClauseList() if criterion.operator is operators.and_:
            for clause in criterion.get_children():
                yield from _conjuncts(clause)
        case _:
            yield criterion


def _determine_all(roots: Sequence[FromClause], leaves: Leaves) -> bool:
    known = _determined(roots, leaves)
    return all(any(leaf == each for each in known) for leaf in leaves.all)


def _determined(roots: Sequence[FromClause], leaves: Leaves) -> list[FromClause]:
    """The leaves of which rows of roots, taken together, meet one row at the most."""
    known = list(roots)
    unknown = [leaf for leaf in leaves.all if not any(leaf == root for root in roots)]
    found = True
    while found:
        found = False
        for leaf in list(unknown):
            fixed = {
                column.name
                for column, source in leaves.equal
                if column.table == leaf
                if source is None or any(source == each for each in known)
            }
            if any(key <= fixed for key in _unique_keys(leaf)):
                known.append(leaf)
                unknown.remove(leaf)
                found = True
    return known


def _unique_keys(leaf: FromClause, *, strict: bool = False) -> list[set[str]]:
    """The sets of columns, by name, that are equal in no two rows; strict: nor NULL in any."""
    element: Any = leaf
    while isinstance(element, Alias):
        element = element.element
    if isinstance(element, (Subquery, CTE)):
        return [] if strict else _group_keys(element)
    if not isinstance(element, Table):
        return []
    keys = [list(element.primary_key)]
    keys += [
        list(each.columns) for each in element.constraints if isinstance(each, UniqueConstraint)
    ]
    keys += [list(each.columns) for each in element.indexes if _is_unique_for_all(each)]
    return [
        {column.name for column in key}
        for key in keys
        if key and not (strict and any(column.nullable for column in key))
    ]


def _is_unique_for_all(index: Index) -> bool:
    is_partial = any(
        index.dialect_options[name].get("where") is not None for name in ("postgresql", "sqlite")
    )
    is_plain = all(isinstance(each, Column) for each in index.expressions)
    return bool(index.unique) and is_plain and not is_partial


def _group_keys(subquery: Subquery | CTE) -> list[set[str]]:
    """What a sub-query groups by is unique in it."""
    element = subquery.element
    if not isinstance(element, Select) or not element._group_by_clauses:
        return []
    names = set()
    for clause in element._group_by_clauses:
        inner: Any = _clause(clause)
        column = subquery.corresponding_column(inner)
        if column is None:
            return []
        names.add(column.name)
    return [names]


# Columns ------------------------------------------------------------------------------------------


def _column_of(name: str, columns: Mapping[str, Any]) -> Expression:
    if name not in columns:
        raise InvalidOption("sort", name, "one of " + ", ".join(map(repr, columns)))
    return _clause(columns[name])


def _clause(expression: Any) -> Expression:
    """The expression of SQL behind an attribute of a mapped class."""
    if hasattr(expression, "__clause_element__"):
        expression = expression.__clause_element__()
    found: Expression = expression
    return found


def _expressions(statement: Selection) -> list[Any]:
    return [description["expr"] for description in statement.column_descriptions]


def _is_entity(description: Any) -> bool:
    return not isinstance(_clause(description["expr"]), ColumnElement)


def _as_keys(columns: Sequence[Expression], leaves: Leaves) -> SortColumns:
    return tuple(
        SortColumn(column, nullable=getattr(column, "table", None) in leaves.outer)
        for column in columns
    )


def is_same(one: Expression, other: Expression) -> bool:
    if isinstance(one, Column) and isinstance(other, Column):
        return bool(one.table == other.table) and one.name == other.name
    return one is other or bool(one.compare(other))


def _may_be_null(expression: Any, leaves: Leaves) -> bool:
    """Of an expression we do not know, so it may."""
    column = _clause(expression)
    if not isinstance(column, Column):
        return True
    is_of_table = isinstance(getattr(column.table, "element", column.table), Table)
    return bool(column.nullable) or not is_of_table or column.table in leaves.outer


def _is_total(keys: SortColumns, reading: Reading) -> bool:
    if all(any(is_same(each.column, key.column) for key in keys) for each in reading.identity):
        return True
    tables = {getattr(each.column, "table", None) for each in reading.identity}
    if len(tables) != 1 or reading.is_keyed or reading.is_grouped:
        return False
    (table,) = tables
    if table is None or table in reading.leaves.outer:
        return False
    names = {
        key.column.name
        for key in keys
        if isinstance(key.column, Column) and key.column.table == table
    }
    return any(key <= names for key in _unique_keys(table, strict=True))


def _check_reachable(column: Expression, reading: Reading) -> None:
    """After a semi-join, what was joined is no longer there to sort by."""
    table = getattr(column, "table", None)
    if table is None or table in reading.leaves:
        return
    raise InvalidOption(
        "sort",
        str(column),
        "a column of what the select reads from: of a join to many, it would have many values",
    )


def _written_order(statement: Selection, leaves: Leaves) -> SortColumns:
    return tuple(_written_key(clause, leaves) for clause in statement._order_by_clauses)


def _written_key(clause: Any, leaves: Leaves) -> SortColumn:
    descending, nulls = False, None
    expression = _clause(clause)
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
    return SortColumn(
        expression,
        descending,
        nullable=_may_be_null(expression, leaves),
        nulls=nulls,  # type: ignore[arg-type]
    )
