"""A cache of objects that are built from selects and can be shared by requests.

The selects of one endpoint usually differ only in their values, such as the 7 in
``Post.author_id == 7``. Analyzing a select and building statements from it takes longer than
executing them, so the results are cached by the structure of the select: its cache key in
SQLAlchemy, which does not contain the values.

One rule keeps the values of one request out of the responses to others: **no cached statement
contains a value.** Results are built from a template: a copy of the select in which each value is
replaced by a named parameter without a value. Each request passes its own values by name. If one is
missing, SQLAlchemy raises an error; a value of another request is never used. (SQLAlchemy's copies
refer to their original, so the first select with a structure stays in memory, as it does in
SQLAlchemy's own caches. Nothing reads values from it.)

Hybrid properties of the mapped class may contain values, too: callers add them to the cache key.

SQLAlchemy's cache key does not contain filter options, options that event listeners read, and
execution options. So these are not cached either: each request adds its own to each statement.

Some values cannot be replaced: those in a lambda or in ``relationship.and_()``. This is detected
when a template is made. Then nothing is cached, and each request builds its own result.
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
from hasten._sqlalchemy.selects import Selection, pick_filter_options
from hasten.errors import InvalidOption

M = TypeVar("M")

MAX_TEMPLATES: Final = 256
"""The number of results to cache. The least recently used one is removed first."""

_VALUE: Final = "hasten_value_"
"""The prefix of the names of parameters in a template."""

_Values = Mapping[str, object]


@dataclass(slots=True, eq=False)
class RequestBindings:
    """The parts of one request's select that are not cached: its values and options."""

    options: tuple[Any, ...] = ()
    """The statement options that filter rows, and those that event listeners read."""
    execution_options: Mapping[str, Any] = field(default_factory=dict)
    values: _Values = field(default_factory=dict, repr=False)
    """The values by parameter name in the template; empty if the result is not cached."""
    parameters: Sequence[BindParameter[Any]] | None = field(default=None, repr=False)
    """All parameters of the select, in order; None if SQLAlchemy has no cache key for it."""

    def wrap_execute_with_values_and_options(self, execute: Execute) -> Execute:
        """Wrap execute for statements built from the select: it adds the values and options."""
        return (
            self._wrap(execute, self.values)
            if self.values
            else self.wrap_execute_with_options(execute)
        )

    def wrap_execute_with_options(self, execute: Execute) -> Execute:
        """Wrap execute for statements not built from the select: it adds only the options."""
        if not self.options and not self.execution_options:
            return execute
        return self._wrap(execute, {})

    def _wrap(self, execute: Execute, values: _Values) -> Execute:
        async def execute_bound(statement: Executable, parameters: Mapping[str, Any]) -> Rows:
            changed: Any = statement
            if self.options and isinstance(statement, Select):
                changed = statement.options(*self.options)
            if self.execution_options:
                changed = changed.execution_options(**self.execution_options)
            return await execute(changed, {**values, **parameters})

        return execute_bound


class SelectCache(Generic[M]):
    """A cache for the results of a function whose argument is a select.

    Selects that differ only in their values share one result.
    """

    def __init__(
        self,
        build: Callable[..., M],
        *,
        on_cached: Callable[[M], None] | None = None,
        max_templates: int = MAX_TEMPLATES,
    ) -> None:
        """Create an empty cache.

        build is called with a select, or a template of it, and with the other arguments of `get`.
        on_cached is called once with each result that enters the cache.
        """
        self._build = build
        self._on_cached = on_cached
        self._find_or_build = lru_cache(max_templates)(self._build_entry)

    def get(self, statement: Selection, *build_arguments: Hashable) -> tuple[M, RequestBindings]:
        """Return the result for a select, cached if possible, and this request's `RequestBindings`.

        build_arguments are the other arguments of build; they are part of the cache key.
        """
        plain, options = _split_filter_options(statement)
        execution_options = statement.get_execution_options()
        key = statement._generate_cache_key()
        if key is None:
            return self._build(plain, *build_arguments), RequestBindings(options, execution_options)
        parameters = key.bindparams
        if _has_values_of_all_parameters(key):
            found = self._find_or_build(
                _SelectStructureKey(key.key, plain, parameters), *build_arguments
            )
            if found is not None:
                values = {name: parameters[place].value for name, place in found.places}
                return found.result, RequestBindings(options, execution_options, values, parameters)
        result = self._build(plain, *build_arguments)
        return result, RequestBindings(options, execution_options, parameters=parameters)

    @property
    def cached_result_count(self) -> int:
        """The number of cached results."""
        return self._find_or_build.cache_info().currsize

    def _build_entry(
        self, structure: _SelectStructureKey, *build_arguments: Hashable
    ) -> _CacheEntry[M] | None:
        """Build the result for a template of the select; None if it cannot be cached."""
        template = _make_template(*structure.pop_select_and_parameters())
        if template is None:
            return None
        try:
            result = self._build(template.statement, *build_arguments)
        except InvalidOption:
            # The caller builds from the original select, whose error shows the original values.
            return None
        if self._on_cached is not None:
            self._on_cached(result)
        return _CacheEntry(result, template.places)


class _CacheEntry(NamedTuple, Generic[M]):
    """A cached result, and the names of its parameters with the positions of their values.

    A position is an index in the list of parameters of a request's select.
    """

    result: M
    places: tuple[tuple[str, int], ...]
    """The name of each parameter, and the index of its value in ``CacheKey.bindparams``."""


class _SelectStructureKey:
    """The cache key of a select: equal for selects that differ only in their values."""

    __slots__ = ("_key", "_taken")

    def __init__(
        self, key: object, statement: Selection, parameters: Sequence[BindParameter[Any]]
    ) -> None:
        self._key = key
        self._taken: tuple[Selection, Sequence[BindParameter[Any]]] | None = statement, parameters

    def pop_select_and_parameters(self) -> tuple[Selection, Sequence[BindParameter[Any]]]:
        """Return the select and its parameters, and drop them.

        Can be called once. After that, this cache key contains no values and can be cached.
        """
        taken, self._taken = self._taken, None
        assert taken is not None
        return taken

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _SelectStructureKey) and bool(self._key == other._key)

    def __hash__(self) -> int:
        return hash(self._key)


def _has_values_of_all_parameters(cache_key: Any) -> bool:
    """Return whether the parameters of a select hold all its values now.

    They do not if ``.params()`` has set values (SQLAlchemy 2.1 stores them elsewhere), if a
    parameter has no value (SQLAlchemy raises an error when the select is executed), or if a
    function returns the value at execution, such as the id of an object that is not flushed yet.
    """
    if any(cache_key[2:]):
        return False
    for each in cache_key.bindparams:  # noqa: SIM110 - in each request: all() takes twice as long
        if each.required or each.callable is not None:
            return False
    return True


def _split_filter_options(statement: Selection) -> tuple[Selection, tuple[Any, ...]]:
    """Split a select into one without filter options, and those options (`pick_filter_options`)."""
    if not statement._with_options:
        return statement, ()
    options = pick_filter_options(statement._with_options)
    if not options:
        return statement, ()
    plain = statement.where()
    plain._with_options = tuple(
        each for each in statement._with_options if not any(each is other for other in options)
    )
    return plain, options


# Making a template --------------------------------------------------------------------------------


class _SelectTemplate(NamedTuple):
    """A select whose values are replaced by named parameters."""

    statement: Selection
    places: tuple[tuple[str, int], ...]
    """The name of each parameter, and the index of its value in ``CacheKey.bindparams``."""


def _make_template(
    statement: Selection, parameters: Sequence[BindParameter[Any]]
) -> _SelectTemplate | None:
    """Return the select with named parameters instead of values; None if that is impossible."""
    places = {each.key: place for place, each in enumerate(parameters)}
    if len(places) < len(parameters):
        return None  # several parameters have one name: their values cannot be told apart
    try:
        names = {key: f"{_VALUE}{place}" for key, place in places.items()}
        found = _rename_parameters(statement, names)
        key = found._generate_cache_key()
        executed: Iterable[BindParameter[Any]] = found.compile().binds.values()
    except (SQLAlchemyError, AttributeError, NotImplementedError):
        return None  # an element cannot be copied, or exists only on one database
    if key is None:
        return None
    named = {f"{_VALUE}{place}": place for place in places.values()}
    # Check the parameters in the cache key, and those of the compiled statement: a value that was
    # not renamed shows up in one of them.
    if not all(each.key in named for each in key.bindparams):
        return None
    if any(each.key in places for each in executed):
        return None
    return _SelectTemplate(found, tuple((each.key, named[each.key]) for each in key.bindparams))


def _rename_parameters(statement: Selection, names: Mapping[str, str]) -> Selection:
    """Return a copy of the select with new parameter names and without parameter values."""

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
    # Written like ClauseElement.params(), which replaces the values instead of the names.
    return cloned_traverse(
        statement, {"maintain_key": True, "detect_subquery_cols": True}, {"bindparam": rename}
    )
