"""What is made of a select, kept for other requests: without the values of this one.

The selects of one endpoint are alike but for their values: whose rows, which id. To read off a
select what is needed, and to make statements of it, costs more than to execute them, so what was
made is kept, by the structure of the select as SQLAlchemy tells it (its cache key). One rule keeps
the values of a request out of the answers to others: **no statement that is kept has a value.** In
a template each of them is a parameter with a name, which has none and requires one. What is
executed gets those of its own request by name; one that was forgotten is an error, never somebody
else's. (A template is a copy, and copies remember what they were made of: so the first select of
its kind stays in memory, as it does in the caches of SQLAlchemy. Nothing looks there for values.)

Hybrids of the mapped class may bring values, too: those are a part of what it is kept by.

What SQLAlchemy's key does not tell is not kept either: options that filter, or that listeners
read, and execution options. Each request puts its own on each statement.

A select may hold values where they cannot be replaced (in a lambda, in ``relationship.and_()``).
That is seen when a template is made: then all is made anew for each request.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, Generic, NamedTuple, TypeVar

from sqlalchemy import BindParameter, Select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import LoaderCriteriaOption, UserDefinedOption
from sqlalchemy.sql.visitors import cloned_traverse

from hasten.errors import InvalidOption
from hasten.fields._sql.running import Call, Step, Steps
from hasten.fields._sql.statements import Selection

T = TypeVar("T")
M = TypeVar("M")

MAX_TEMPLATES: Final = 256
"""So many are kept: what is asked for rarely is made again."""

_VALUE: Final = "hasten_value_"

_Values = Mapping[str, object]
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(slots=True, eq=False)
class Own:
    """What the select of one request has of its own."""

    options: tuple[Any, ...] = ()
    """Those that filter, and those that listeners read."""
    execution_options: Mapping[str, Any] = field(default_factory=dict)
    values: _Values = field(default_factory=dict, repr=False)
    """By the names in the template; none where there is no template."""
    parameters: Sequence[BindParameter[Any]] | None = field(default=None, repr=False)
    """All that hold its values, those in options too, in its order; None if nobody can tell."""

    def bind(self, steps: Steps[T]) -> Steps[T]:
        """Steps that execute what was made of the select, with the values of this request."""
        return self._given(steps, self.values) if self.values or self._marks else steps

    def mark(self, steps: Steps[T]) -> Steps[T]:
        """Steps that execute other statements for this request: with its options alone."""
        return self._given(steps, _NOTHING) if self._marks else steps

    @property
    def _marks(self) -> bool:
        return bool(self.options or self.execution_options)

    def _given(self, steps: Steps[T], values: _Values) -> Steps[T]:
        try:
            step = next(steps)
            while True:
                if isinstance(step, Call):
                    step = steps.send((yield step))
                    continue
                statement: Any = step.statement
                if self.options and isinstance(statement, Select):
                    statement = statement.options(*self.options)
                if self.execution_options:
                    statement = statement.execution_options(**self.execution_options)
                step = steps.send((yield Step(statement, {**values, **step.parameters})))
        except StopIteration as end:
            found: T = end.value
            return found
        finally:
            steps.close()


class Templates(Generic[M]):
    """What was made of selects, by their structure."""

    def __init__(
        self,
        make: Callable[..., M],
        *,
        kept: Callable[[M], None] | None = None,
        max_templates: int = MAX_TEMPLATES,
    ) -> None:
        """make gets a select, and all else that what it makes depends on: it has to look nowhere
        else. kept is told what was made, once, when it enters the cache.
        """
        self._make = make
        self._kept = kept
        self._by_structure = lru_cache(max_templates)(self._made_once)

    def of(self, statement: Selection, *more: Hashable) -> tuple[M, Own]:
        """What is made of a select, and what this select needs to execute it."""
        plain, options = _without_filters(statement)
        execution_options = statement.get_execution_options()
        key = statement._generate_cache_key()
        if key is None:
            return self._make(plain, *more), Own(options, execution_options)
        parameters = key.bindparams
        if _is_usual(key):
            found = self._by_structure(_ByStructure(key.key, plain, parameters), *more)
            if found is not None:
                values = {name: parameters[place].value for name, place in found.places}
                return found.made, Own(options, execution_options, values, parameters)
        made = self._make(plain, *more)
        return made, Own(options, execution_options, parameters=parameters)

    @property
    def count(self) -> int:
        """How many are kept."""
        return self._by_structure.cache_info().currsize

    def _made_once(self, structure: _ByStructure, *more: Hashable) -> _Made[M] | None:
        template = _template(*structure.take())
        if template is None:
            return None
        try:
            made = self._make(template.statement, *more)
        except InvalidOption:
            # Said again of the select as it is, in its own words; or it is no error there.
            return None
        if self._kept is not None:
            self._kept(made)
        return _Made(made, template.places)


class _Made(NamedTuple, Generic[M]):
    made: M
    places: tuple[tuple[str, int], ...]
    """The names of its parameters, and where in a key of SQLAlchemy's their values are."""


class _ByStructure:
    """A select, for a cache: two that differ in their values alone are equal."""

    __slots__ = ("_key", "_taken")

    def __init__(
        self, key: object, statement: Selection, parameters: Sequence[BindParameter[Any]]
    ) -> None:
        self._key = key
        self._taken: tuple[Selection, Sequence[BindParameter[Any]]] | None = statement, parameters

    def take(self) -> tuple[Selection, Sequence[BindParameter[Any]]]:
        """The select, with its parameters. The cache will hold this, and is to hold no values."""
        taken, self._taken = self._taken, None
        assert taken is not None
        return taken

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByStructure) and bool(self._key == other._key)

    def __hash__(self) -> int:
        return hash(self._key)


def _is_usual(key: Any) -> bool:
    """Whether the values of a select are all in its parameters, and known by now.

    Not so where .params() has set some (from SQLAlchemy 2.1 on they stand apart); where one has no
    value, which the database layer is to say, as it would without us; and where one is called for
    when it is executed: the id of an object that is flushed before that.
    """
    return not any(key[2:]) and not any(
        each.required or each.callable is not None for each in key.bindparams
    )


def filters(statement: Selection) -> tuple[Any, ...]:
    """The options of a select that filter its rows, or that listeners read."""
    kinds = (LoaderCriteriaOption, UserDefinedOption)
    return tuple(each for each in statement._with_options if isinstance(each, kinds))


def _without_filters(statement: Selection) -> tuple[Selection, tuple[Any, ...]]:
    options = filters(statement)
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
    """The select with names for values, None if there is a value that has not got one."""
    places = {each.key: place for place, each in enumerate(parameters)}
    if len(places) < len(parameters):
        return None  # one name for several parameters: which of them counts is not ours to say
    try:
        found = _renamed(statement, {key: f"{_VALUE}{place}" for key, place in places.items()})
        key = found._generate_cache_key()
        executed: Iterable[BindParameter[Any]] = found.compile().binds.values()
    except (SQLAlchemyError, AttributeError, NotImplementedError):
        return None  # an element that cannot be copied, or one for a single database
    if key is None:
        return None
    named = {f"{_VALUE}{place}": place for place in places.values()}
    # Both what SQLAlchemy says that is in it, and what really is in it when it is executed.
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
