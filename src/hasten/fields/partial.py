"""One row with the fields that were asked for, and how pydantic describes it.

``-> Partial[UserOut]`` says in FastAPI that any field of UserOut may be missing, and that what a
handler returns is sent as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Generic, TypeVar, get_args, get_origin

from hasten._answers import Answer, Asked, etag_of
from hasten.fields.allowed import Allowed, Field
from hasten.fields.rows import annotations_of, encode

T = TypeVar("T")

_MAX_DEPTH: Final = 3
"""Models that lead to each other are described so deep."""


class Partial(dict[str, object], Generic[T]):
    """What was asked for of one row of T: a dict by public name, in the order of the model.

    Values are as the database gave them, ready for `hasten.fields.encode`; where the model has a
    validator or a serializer of its own, they are what it would put into JSON.
    """

    has_etag = False

    def response(self, request: Asked | None = None) -> Answer:
        """The answer as JSON, 200; with the request, 304 if the client has it already."""
        body = encode(self)
        headers = {"content-type": "application/json"}
        if self.has_etag:
            headers["etag"] = etag_of(body)
        answer = Answer(body, 200, headers)
        return answer if request is None else answer.to(request)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> dict[str, Any]:
        (of,) = get_args(source) or (None,)
        if of is None:
            return {"type": "dict", "keys_schema": {"type": "str"}}
        return {
            "type": "function-wrap",
            "function": {"type": "no-info", "function": lambda row, _: row},
            "schema": _described(Allowed(of), handler, _MAX_DEPTH),
            "serialization": {"type": "function-plain", "function": dict},
        }


def whole_of(kind: Any) -> Any:
    """The model of ``Partial[model]``, and any other kind itself."""
    return get_args(kind)[0] if is_partial(kind) else kind


def is_partial(kind: Any) -> bool:
    return get_origin(kind) is Partial


def _described(allowed: Allowed, handler: Any, depth: int) -> dict[str, Any]:
    model: Any = allowed.model
    kinds = annotations_of(model)
    return {
        "type": "typed-dict",
        "fields": {
            name: {"type": "typed-dict-field", "schema": schema, "required": False}
            for field in allowed.fields.values()
            for name, schema in _of_field(field, kinds.get(field.attribute, Any), handler, depth)
        },
        "config": {"title": f"Partial[{model.__name__}]"},
        # In the form that pydantic makes a short name of, for the components of OpenAPI.
        "ref": f"{__name__}.Partial:{depth}[{model.__module__}.{model.__qualname__}:{id(model)}]",
    }


def _of_field(field: Field, kind: Any, handler: Any, depth: int) -> Iterator[tuple[str, Any]]:
    if field.relation is None or field.relation.model is None:
        yield field.name, handler.generate_schema(kind)
    elif depth > 1:
        inner = _described(field.relation, handler, depth - 1)
        if field.many:
            yield field.name, {"type": "list", "items_schema": inner}
        else:
            yield field.name, {"type": "nullable", "schema": inner}
