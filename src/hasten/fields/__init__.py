"""Responses with only the fields that a client requests, such as ``?fields=id,author(name)``.

`FieldSelector` works with every web framework; `hasten.fastapi.Fields` integrates it with FastAPI.
"""

from hasten._queries import QueryLike
from hasten._responses import EncodedResponse, HeadersLike, RequestLike
from hasten.fields._allowed import AllowedFields, Field, FieldSet
from hasten.fields._names import Unknown
from hasten.fields._partial import Partial, Row
from hasten.fields._rows import encode
from hasten.fields._selector import FieldSelector, FieldSelectorOptions, SyncFieldSelector

__all__ = [
    "AllowedFields",
    "EncodedResponse",
    "Field",
    "FieldSelector",
    "FieldSelectorOptions",
    "FieldSet",
    "HeadersLike",
    "Partial",
    "QueryLike",
    "RequestLike",
    "Row",
    "SyncFieldSelector",
    "Unknown",
    "encode",
]
