"""`Partial`: one row with only the requested fields, and its pydantic schema.

In FastAPI, the annotation ``-> Partial[UserOut]`` documents a response in which each field of
UserOut may be missing. A returned row is sent without being validated again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Generic, TypeAlias, TypeVar, get_args, get_origin

from hasten._responses import EncodedResponse, RequestLike, make_etag
from hasten.fields._allowed import ResolvedModelField, iter_resolved_model_fields
from hasten.fields._rows import encode, get_annotations_by_attribute

T = TypeVar("T")

Row: TypeAlias = dict[str, object]
"""The fields of one row, by public name."""

_MAX_DEPTH: Final = 3
"""How many levels of nested models a schema has, because models may refer to each other."""


class Partial(dict[str, object], Generic[T]):
    """One row of the model T with only the requested fields, in the order of the model.

    The keys are public field names. A value is that of the database or of the item, unless the
    model has a validator or serializer for the field: then it is the value that the model writes to
    JSON. Encode a row with `hasten.fields.encode`.
    """

    has_etag = False
    """Whether `response` adds an ETag."""

    def response(self, request: RequestLike | None = None) -> EncodedResponse:
        """Return the JSON response.

        Its status is 200, or 304 if request is given and its If-None-Match has the current ETag.
        """
        body = encode(self)
        headers = {"content-type": "application/json"}
        if self.has_etag:
            headers["etag"] = make_etag(body)
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
            "schema": _make_partial_schema(of, handler, _MAX_DEPTH),
            "serialization": {"type": "function-plain", "function": dict},
        }


def unwrap_partial(annotation: Any) -> Any:
    """Return the model of ``Partial[model]``; return any other type unchanged."""
    return get_args(annotation)[0] if is_partial(annotation) else annotation


def is_partial(annotation: Any) -> bool:
    """Return whether a type annotation is ``Partial[…]``."""
    return get_origin(annotation) is Partial


def _make_partial_schema(model: Any, handler: Any, max_depth: int) -> dict[str, Any]:
    """Return the pydantic-core schema of a row of a model in which each field may be missing.

    max_depth is how many levels of models the schema may have, 1 for none that is nested.
    """
    kinds = get_annotations_by_attribute(model)
    name_of_model = f"{model.__module__}.{model.__qualname__}:{id(model)}"
    return {
        "type": "typed-dict",
        "fields": {
            name: {"type": "typed-dict-field", "schema": schema, "required": False}
            for field in iter_resolved_model_fields(model)
            for name, schema in _make_field_schema(
                field, kinds.get(field.attribute, Any), handler, max_depth
            )
        },
        "config": {"title": f"Partial[{model.__name__}]"},
        # Pydantic shortens a ref of this form to a readable name in the OpenAPI document.
        "ref": f"{__name__}.Partial:{max_depth}[{name_of_model}]",
    }


def _make_field_schema(
    field: ResolvedModelField, annotation: Any, handler: Any, max_depth: int
) -> Iterator[tuple[str, Any]]:
    """Yield the name and schema of a field; yield nothing for a nested model if max_depth is 1."""
    if field.nested is None:
        yield field.name, handler.generate_schema(annotation)
    elif max_depth > 1:
        inner = _make_partial_schema(field.nested, handler, max_depth - 1)
        if field.many:
            yield field.name, {"type": "list", "items_schema": inner}
        else:
            yield field.name, {"type": "nullable", "schema": inner}
