"""Answer with the fields that were asked for, and with no other."""

from hasten._answers import Answer
from hasten.fields.allowed import Allowed, Field, FieldSet
from hasten.fields.fields import Fields, Row
from hasten.fields.mask import Mask
from hasten.fields.partial import Partial
from hasten.fields.rows import encode

__all__ = ["Allowed", "Answer", "Field", "FieldSet", "Fields", "Mask", "Partial", "Row", "encode"]
