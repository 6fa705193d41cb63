"""Describe why data does not fit a task, without showing values of the data.

The description is stored with the job, and appears in the events of the queue, in logs and in error
trackers. More people may read these than the data of jobs.
"""

from __future__ import annotations

import re
from typing import Any, Final

# The only messages of msgspec that contain a value: those about enums, literals and union tags.
_VALUE_IN_MESSAGE: Final = re.compile(r"(Invalid (?:enum )?value) .*?( - at `[^`']*`)?", re.DOTALL)

# The type of pydantic's only message that contains a value, and the message that replaces it.
_MESSAGES: Final = {"union_tag_invalid": "Input tag does not match any of the expected tags"}


def remove_input_values(message: str) -> str:
    """Return a message of msgspec without the value that it may contain."""
    found = _VALUE_IN_MESSAGE.fullmatch(message)
    return message if found is None else found[1] + (found[2] or "")


def validate_pydantic_model(model: Any, value: Any, *, show_values: bool) -> Any:
    """Create a pydantic model from decoded JSON. Raises `ValueError`.

    The message of the error contains values of the data only if show_values.
    """
    if show_values:
        return model.model_validate(value)
    try:
        return model.model_validate(value)
    except ValueError as exc:
        if not hasattr(exc, "errors"):  # raised by the model's own code, not by pydantic
            raise
        message = _describe_without_values(exc)
    # Outside of the except clause, so that the original error is not shown as its context.
    raise ValueError(message)


def _describe_without_values(error: Any) -> str:
    """Return pydantic's description of an error without values."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    parts = []
    for each in found:
        path = ".".join(map(str, each["loc"])) or "the value"
        parts.append(f"{path}: {_MESSAGES.get(each['type'], each['msg'])}")
    return f"{error.title}: {'; '.join(parts)}"
