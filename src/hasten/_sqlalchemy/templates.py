"""Templates of selects: what is built from a select, kept for other requests, without its values.

The selects of one endpoint differ in their values only. To analyze a select and to build statements
from it takes longer than to execute them, so what is built is kept, by the structure of the select
(its cache key in SQLAlchemy). One rule keeps the values of a request out of the responses to
others: **no statement that is kept has a value.** In a template each value is a named parameter
that has no value and requires one. Each request passes its own values by name; if one is missing,
the database layer raises an error and never uses a value of another request. (A template is a copy,
and copies keep a reference to their original, so the first select of its kind stays in memory, as
it does in the caches of SQLAlchemy. Nothing reads values from there.)

Hybrids of the mapped class may contain values, too: callers pass them as part of the key.

What SQLAlchemy's key does not contain is not kept either: options that filter, or that listeners
read, and execution options. Each request adds its own to each statement.

A select may hold values where they cannot be replaced (in a lambda, in ``relationship.and_()``).
This is noticed when a template is built: then everything is built anew for each request.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Generic, NamedTuple, TypeVar

from sqlalchemy import BindParameter, Executable, Select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.sql.visitors import cloned_traverse

from hasten._sqlalchemy.execution import Execute, Rows
from hasten._sqlalchemy.selects import Selection, filter_options
from hasten.errors import InvalidOption

M = TypeVar("M")

MAX_TEMPLATES: Final = 256
"""How many are kept. The least recently used one is removed first."""

_VALUE: Final = "hasten_value_"

_Values = Mapping[str, object]


@dataclass(slots=True, eq=False)
class Bindings:
    """The values and options of the select of one request."""

    options: tuple[Any, ...] = ()
    """Those that filter, and those that listeners read."""
    execution_options: Mapping[str, Any] = field(default_factory=dict)
    values: _Values = field(default_factory=dict, repr=False)
    """By the names in the template; none where there is no template."""
    parameters: Sequence[BindParameter[Any]] | None = field(default=None, repr=False)
    """All parameters of the select, in its order, or None if SQLAlchemy has no key for it."""

    def bound(self, execute: Execute) -> Execute:
        """Return an Execute for statements built from the select: with its values and options."""
        return self._with(execute, self.values) if self.values else self.related(execute)

    def related(self, execute: Execute) -> Execute:
        """Return an Execute for other statements of this request: with the options only."""
        if not self.options and not self.execution_options:
            return execute
        return self._with(execute, {})

    def _with(self, execute: Execute, values: _Values) -> Execute:
        async def bound(statement: Executable, parameters: Mapping[str, Any]) -> Rows:
            changed: Any = statement
            if self.options and isinstance(statement, Select):
                changed = statement.options(*self.options)
            if self.execution_options:
                changed = changed.execution_options(**self.execution_options)
            return await execute(changed, {**values, **parameters})

        return bound


class Templates(Generic[M]):
    """A cache of what `make` builds from selects, by the structure of the select."""

    def __init__(
        self,
        make: Callable[..., M],
        *,
        on_kept: Callable[[M], None] | None = None,
        max_templates: int = MAX_TEMPLATES,
    ) -> None:
        """Call make with a select and everything else that its result depends on.

        on_kept is called once with each result that enters the cache.
        """
        self._make = make
        self._on_kept = on_kept
        self._by_structure = lru_cache(max_templates)(self._make_once)

    def of(self, statement: Selection, *more: Hashable) -> tuple[M, Bindings]:
        """Return what is built from a select, and what this request passes when it executes it."""
        plain, options = _without_filters(statement)
        execution_options = statement.get_execution_options()
        key = statement._generate_cache_key()
        if key is None:
            return self._make(plain, *more), Bindings(options, execution_options)
        parameters = key.bindparams
        if _has_known_values(key):
            found = self._by_structure(_ByStructure(key.key, plain, parameters), *more)
            if found is not None:
                values = {name: parameters[place].value for name, place in found.places}
                return found.made, Bindings(options, execution_options, values, parameters)
        made = self._make(plain, *more)
        return made, Bindings(options, execution_options, parameters=parameters)

    @property
    def count(self) -> int:
        """How many results are kept."""
        return self._by_structure.cache_info().currsize

    def _make_once(self, structure: _ByStructure, *more: Hashable) -> _Made[M] | None:
        template = _template(*structure.take())
        if template is None:
            return None
        try:
            made = self._make(template.statement, *more)
        except InvalidOption:
            # Built again from the select itself, whose error has its own words, if there is one.
            return None
        if self._on_kept is not None:
            self._on_kept(made)
        return _Made(made, template.places)


class _Made(NamedTuple, Generic[M]):
    made: M
    places: tuple[tuple[str, int], ...]
    """The names of its parameters, and where in a key of SQLAlchemy their values are."""


class _ByStructure:
    """A select as a key of a cache: equal to selects that differ in their values only."""

    __slots__ = ("_key", "_taken")

    def __init__(
        self, key: object, statement: Selection, parameters: Sequence[BindParameter[Any]]
    ) -> None:
        self._key = key
        self._taken: tuple[Selection, Sequence[BindParameter[Any]]] | None = statement, parameters

    def take(self) -> tuple[Selection, Sequence[BindParameter[Any]]]:
        """Return the select and its parameters once. The cache keeps this, and no values."""
        taken, self._taken = self._taken, None
        assert taken is not None
        return taken

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByStructure) and bool(self._key == other._key)

    def __hash__(self) -> int:
        return hash(self._key)


def _has_known_values(key: Any) -> bool:
    """Return whether all values of a select are in its parameters and known by now.

    They are not where .params() has set some (from SQLAlchemy 2.1 on they are kept apart), where
    a parameter has no value, which the database layer reports, and where a function returns the
    value at execution: the id of an object that is flushed before.
    """
    if any(key[2:]):
        return False
    for each in key.bindparams:  # noqa: SIM110 - in each request: all() takes twice as long
        if each.required or each.callable is not None:
            return False
    return True


def _without_filters(statement: Selection) -> tuple[Selection, tuple[Any, ...]]:
    if not statement._with_options:
        return statement, ()
    options = filter_options(statement._with_options)
    if not options:
        return statement, ()
    plain = statement.where()
    plain._with_options = tuple(
        each for each in statement._with_options if not any(each is other for other in options)
    )
    return plain, options


# Making a template --------------------------------------------------------------------------------


class _Template(NamedTuple):
    statement: Selection
    places: tuple[tuple[str, int], ...]


def _template(statement: Selection, parameters: Sequence[BindParameter[Any]]) -> _Template | None:
    """Return the select with named parameters for its values, None if that is impossible."""
    places = {each.key: place for place, each in enumerate(parameters)}
    if len(places) < len(parameters):
        return None  # one name for several parameters: it is unclear which of them counts
    try:
        found = _renamed(statement, {key: f"{_VALUE}{place}" for key, place in places.items()})
        key = found._generate_cache_key()
        executed: Iterable[BindParameter[Any]] = found.compile().binds.values()
    except (SQLAlchemyError, AttributeError, NotImplementedError):
        return None  # an element that cannot be copied, or one for a single database
    if key is None:
        return None
    named = {f"{_VALUE}{place}": place for place in places.values()}
    # Both the parameters that SQLAlchemy lists and those that really are in it when it is executed.
    if not all(each.key in named for each in key.bindparams):
        return None
    if any(each.key in places for each in executed):
        return None
    return _Template(found, tuple((each.key, named[each.key]) for each in key.bindparams))


def _renamed(statement: Selection, names: Mapping[str, str]) -> Selection:
    def rename(parameter: BindParameter[Any]) -> None:
        if parameter.key in names:
            parameter.key = parameter._orig_key = names[parameter.key]
            parameter._identifying_key = parameter.key
            parameter._anon_map_key = None  # not an anonymous one any more
            parameter.unique = False
            parameter.value = None
            parameter.callable = None
            parameter.required = True

    if not names:
        return statement
    # As ClauseElement.params() does it, which replaces values where this replaces names.
    return cloned_traverse(
        statement, {"maintain_key": True, "detect_subquery_cols": True}, {"bindparam": rename}
    )
