"""One row with the requested fields, and its schema for pydantic.

In FastAPI, ``-> Partial[UserOut]`` declares that any field of UserOut may be missing, and a
returned row is sent without validation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Generic, TypeAlias, TypeVar, get_args, get_origin

from hasten._responses import EncodedResponse, RequestLike, etag_of
from hasten.fields._allowed import Member, members_of
from hasten.fields._rows import annotations_of, encode

T = TypeVar("T")

Row: TypeAlias = dict[str, object]
"""The fields of one row by public name, as in `Partial`."""

_MAX_DEPTH: Final = 3
"""The depth of the schema of models that refer to each other."""


class Partial(dict[str, object], Generic[T]):
    """The fields of one row of T: a dict by public name, in the order of the model.

    Values are those of the database, ready for `hasten.fields.encode`. Where the model has a
    validator or a serializer for a field, the value is what the model writes as JSON.
    """

    has_etag = False
    """Whether the response has an ETag."""

    def response(self, request: RequestLike | None = None) -> EncodedResponse:
        """Return the response: JSON and 200. With the request, 304 if it is unchanged."""
        body = encode(self)
        headers = {"content-type": "application/json"}
        if self.has_etag:
            headers["etag"] = etag_of(body)
        response = EncodedResponse(body, 200, headers)
        return response if request is None else response.to(request)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> dict[str, Any]:
        (of,) = get_args(source) or (None,)
        if of is None:
            return {"type": "dict", "keys_schema": {"type": "str"}}
        return {
            "type": "function-wrap",
            "function": {"type": "no-info", "function": lambda row, _: row},
            "schema": _described(of, handler, _MAX_DEPTH),
            "serialization": {"type": "function-plain", "function": dict},
        }


def whole_of(kind: Any) -> Any:
    """Return the model of ``Partial[model]``; any other type as it is."""
    return get_args(kind)[0] if is_partial(kind) else kind


def is_partial(kind: Any) -> bool:
    """Return whether a type is ``Partial[…]``."""
    return get_origin(kind) is Partial


def _described(model: Any, handler: Any, depth: int) -> dict[str, Any]:
    kinds = annotations_of(model)
    return {
        "type": "typed-dict",
        "fields": {
            name: {"type": "typed-dict-field", "schema": schema, "required": False}
            for member in members_of(model)
            for name, schema in _of_member(member, kinds.get(member.attribute, Any), handler, depth)
        },
        "config": {"title": f"Partial[{model.__name__}]"},
        # From this form pydantic makes a short name for the components of OpenAPI.
        "ref": f"{__name__}.Partial:{depth}[{model.__module__}.{model.__qualname__}:{id(model)}]",
    }


def _of_member(member: Member, kind: Any, handler: Any, depth: int) -> Iterator[tuple[str, Any]]:
    if member.nested is None:
        yield member.name, handler.generate_schema(kind)
    elif depth > 1:
        inner = _described(member.nested, handler, depth - 1)
        if member.many:
            yield member.name, {"type": "list", "items_schema": inner}
        else:
            yield member.name, {"type": "nullable", "schema": inner}
