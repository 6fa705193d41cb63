"""Answer with the fields that were asked for, and with no other."""

from hasten.fields.allowed import Allowed, Field, FieldSet
from hasten.fields.mask import Mask

__all__ = ["Allowed", "Field", "FieldSet", "Mask"]
