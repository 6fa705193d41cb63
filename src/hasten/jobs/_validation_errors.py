"""Explain why data does not fit a task without showing its values.

Such a text is stored with the job, and appears in the events of its queue, in logs and in error
trackers. More people read these than may read the data of jobs.
"""

from __future__ import annotations

import re
from typing import Any, Final

# The only messages of msgspec that show a value: of enums, literals and the tags of unions.
_INVALID_VALUE: Final = re.compile(r"(Invalid (?:enum )?value) .*?( - at `[^`']*`)?", re.DOTALL)

# The message of pydantic that shows a value, and a shorter one that replaces it.
_TAGS: Final = {"union_tag_invalid": "Input tag does not match any of the expected tags"}


def without_values(message: str) -> str:
    """Return a message of msgspec without the value in it."""
    found = _INVALID_VALUE.fullmatch(message)
    return message if found is None else found[1] + (found[2] or "")


def validate(model: Any, value: Any, *, show_values: bool) -> Any:
    """Create a pydantic model. Raises `ValueError`, without values unless show_values."""
    if show_values:
        return model.model_validate(value)
    try:
        return model.model_validate(value)
    except ValueError as exc:
        if not hasattr(exc, "errors"):  # raised by the code of the model
            raise
        message = _message(exc)
    # Outside of the except clause, so that the error with the values is not its context.
    raise ValueError(message)


def _message(error: Any) -> str:
    """Return the message of pydantic, as with its setting hide_input_in_errors."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    parts = [
        f"{'.'.join(map(str, each['loc'])) or 'the value'}: {_TAGS.get(each['type'], each['msg'])}"
        for each in found
    ]
    return f"{error.title}: {'; '.join(parts)}"
