"""Answers with the fields that a client asked for, out of a database."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias
from urllib.parse import parse_qsl

from hasten.errors import InvalidOption, RowNotFound
from hasten.fields.allowed import Allowed, Field, FieldSet
from hasten.fields.mask import MAX_NAMES

if TYPE_CHECKING:
    from hasten.fields.sql import AsyncExecutor, Executor, Selection, Shape, Steps

Row: TypeAlias = dict[str, object]
"""What was asked for of one row, by public name, in the order of the model.

Values are as the database gave them, ready for `hasten.fields.rows.encode`; where the model has a
validator or a serializer of its own, they are what it would put into JSON.
"""

MAX_DEPTH: Final = 2
MAX_MANY: Final = 20


class MultiItems(Protocol):
    """The query of a request, as Starlette and Litestar have it."""

    def multi_items(self) -> Iterable[tuple[str, str]]: ...


class Fields:
    """Which fields a client may ask for, and how they are read.

    ``Fields(UserOut, model=User, default=("id", "name", "email"))``

    - source: the model of the answer, names, or an `Allowed` that has its options already.
    - model: the mapped class.
    - default, needs, opaque, wildcard: as for `Allowed`. expand takes models, too.
    - compute: functions that make a field of what it needs (its ``needs``, in their order), by
      path: ``{"initials": make, "author.initials": make}``. What a pydantic model computes needs
      none.
    - max_depth, max_names: how much may be asked for at once.
    - many: how many rows a relation to many shows at most, or that by path; 20 where nothing is
      said. A row that has more says so: ``{"posts": [...], "posts_has_more": true}``.
    - more: the end of the name of that marker.
    - parameter: the name of the parameter.

    Raises `InvalidOption` when it is made, for a field that is not mapped and for all else that
    could not be kept when a request comes.
    """

    def __init__(
        self,
        source: object,
        *,
        model: type,
        default: Iterable[str] | None = None,
        needs: Mapping[str, Sequence[str]] | None = None,
        expand: Mapping[str, object] | None = None,
        opaque: Collection[str] = (),
        wildcard: bool = False,
        compute: Mapping[str, Callable[..., object]] | None = None,
        max_depth: int = MAX_DEPTH,
        max_names: int = MAX_NAMES,
        many: int | Mapping[str, int] = MAX_MANY,
        more: str = "_has_more",
        parameter: str = "fields",
    ) -> None:
        _check_from_one("max_depth", max_depth)
        _check_from_one("max_names", max_names)
        if not isinstance(source, Allowed):
            source = Allowed(
                source,
                default=default,
                needs=needs,
                expand={name: _as_allowed(to) for name, to in (expand or {}).items()},
                opaque=opaque,
                wildcard=wildcard,
            )
        elif default is not None or needs or expand or opaque or wildcard:
            raise InvalidOption("source", source, "the other options of an Allowed in itself")
        self.model: Final = model
        self.max_depth: Final = max_depth
        self.max_names: Final = max_names
        self.parameter: Final = parameter
        self._more = more
        self._compute = dict(compute or {})
        self._many = many if isinstance(many, int) else dict(many)
        self._fill(source)

    def _fill(self, allowed: Allowed, *, strict: bool = True) -> None:
        # Here and no earlier: who asks for nothing but a mask needs no SQLAlchemy.
        from hasten.fields import sql  # noqa: PLC0415

        self._sql = sql
        self.allowed = allowed
        caps = self._caps(strict)
        _check_markers(allowed, self._more)
        self._shapes = sql.Shapes(
            allowed,
            self.model,
            cap=caps,
            more=self._more,
            compute=dict(_by_path("compute", allowed, self._compute, strict=strict)),
        )

    def _caps(self, strict: bool) -> Callable[[Field], int]:
        if isinstance(self._many, int):
            usual, caps = self._many, {}
        else:
            usual, caps = MAX_MANY, dict(_by_path("many", self.allowed, self._many, strict=strict))
        for value in (usual, *caps.values()):
            _check_from_one("many", value)
        return lambda field: caps.get(field, usual)

    def without(self, *paths: str) -> Fields:
        """The same without these fields, as if there were none: for a role that sees less.

        To be made when the application starts, once for each role. Raises `InvalidOption` for one
        that is not there.
        """
        less = Fields.__new__(type(self))
        less.__dict__.update(self.__dict__)
        less._fill(self.allowed.without(*paths), strict=False)
        return less

    def parse(self, query: str | Iterable[tuple[str, str]] | MultiItems) -> FieldSet:
        """What a request asks for; the default if it does not choose. Raises `InvalidParameter`.

        query is the query of the URL: its text, its pairs, or what a framework made of it.
        """
        texts = [value for name, value in _pairs(query) if name == self.parameter]
        return self.allowed.parse(
            texts, parameter=self.parameter, max_depth=self.max_depth, max_names=self.max_names
        )

    async def one(self, db: AsyncExecutor, statement: Selection, fields: FieldSet) -> Row:
        """The one row that the select finds. Raises `RowNotFound` if there is none.

        statement selects the mapped class: ``select(User).where(User.id == id)``. An error rather
        than None, so that a handler that forgets about it answers 404, not 200 and null.
        """
        return self._only(await self._sql.run_async(db, self._fetch(db, statement, fields, 2)))

    def one_sync(self, db: Executor, statement: Selection, fields: FieldSet) -> Row:
        """The same on a session or connection that does not wait."""
        return self._only(self._sql.run(db, self._fetch(db, statement, fields, 2)))

    async def many(self, db: AsyncExecutor, statement: Selection, fields: FieldSet) -> list[Row]:
        """All rows that the select finds, in its order. Its LIMIT is kept."""
        return await self._sql.run_async(db, self._fetch(db, statement, fields))

    def many_sync(self, db: Executor, statement: Selection, fields: FieldSet) -> list[Row]:
        """The same on a session or connection that does not wait."""
        return self._sql.run(db, self._fetch(db, statement, fields))

    def shape(self, statement: Selection, fields: FieldSet, *, apart: bool = False) -> Shape:
        """What is selected for a set, and how its rows are read: for who runs it on their own.

        apart is without any join, so that the select can be cut into pages: what it leads to is
        read by further statements.
        """
        return self._shapes.of(statement, fields, apart=apart)

    def context(self, fields: FieldSet) -> Hashable:
        """What a shape depends on besides its set: it is for as long as this stays equal."""
        return self._shapes.context(fields)

    def _fetch(
        self,
        db: Executor | AsyncExecutor,
        statement: Selection,
        fields: FieldSet,
        most: int | None = None,
    ) -> Steps[list[Row]]:
        dialect = self._sql.dialect_of(db, self._shapes.mapper)
        return self._shapes.fetch(statement, fields, dialect, most=most)

    def _only(self, rows: list[Row]) -> Row:
        if not rows:
            raise RowNotFound(self.model.__name__.lower())
        if len(rows) > 1:
            raise InvalidOption(
                "statement", "a select of several rows", "a WHERE that finds one; for more, many()"
            )
        return rows[0]


# Options ------------------------------------------------------------------------------------------


def _as_allowed(to: object) -> Allowed:
    return to if isinstance(to, Allowed) else Allowed(to)


def _check_from_one(option: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidOption(option, value, "a whole number from 1")


def _by_path(
    option: str, allowed: Allowed, said: Mapping[str, Any], *, strict: bool
) -> Iterator[tuple[Field, Any]]:
    """What is said of paths, by field. Without strict, one that is not there is passed over."""
    for path, value in said.items():
        *through, name = path.split(".")
        where: Allowed | None = allowed
        for step in through:
            field = where.fields.get(step) if where else None
            where = field.relation if field else None
        if where is not None and name in where.fields:
            yield where.fields[name], value
        elif strict:
            raise InvalidOption(option, path, "a field that exists")


def _check_markers(allowed: Allowed, more: str) -> None:
    """No marker has the name of a field."""
    seen: set[Allowed] = set()
    rest = [allowed]
    while rest:
        one = rest.pop()
        if one in seen:
            continue
        seen.add(one)
        for field in one.fields.values():
            if field.relation is not None:
                rest.append(field.relation)
                if field.many and field.name + more in one.fields:
                    raise InvalidOption("more", more, f"another end than {field.name + more!r} has")


def _pairs(query: str | Iterable[tuple[str, str]] | MultiItems) -> Iterable[tuple[str, str]]:
    if isinstance(query, str):
        return parse_qsl(query.removeprefix("?"), keep_blank_values=True)
    if hasattr(query, "multi_items"):
        items: Iterable[tuple[str, str]] = query.multi_items()
        return items
    return query
