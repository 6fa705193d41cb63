"""Why data does not fit a task, without the values that it has.

Such a reason is stored with the job, is in the events of its queue, in logs and in error trackers:
more people read these than may read the data of jobs.
"""

from __future__ import annotations

import re
from typing import Any, Final

# The only texts of msgspec with a value: of enums and literals, and of the tags of unions.
_INVALID_VALUE: Final = re.compile(r"(Invalid (?:enum )?value) .*?( - at `[^`']*`)?", re.DOTALL)

# The text of pydantic that has one, and a shorter one in its place.
_TAGS: Final = {"union_tag_invalid": "Input tag does not match any of the expected tags"}


def without_values(reason: str) -> str:
    """A reason of msgspec's without the value that it is about."""
    found = _INVALID_VALUE.fullmatch(reason)
    return reason if found is None else found[1] + (found[2] or "")


def validate(model: Any, value: Any, *, show_values: bool) -> Any:
    """Make a model of pydantic's. Raises `ValueError`."""
    if show_values:
        return model.model_validate(value)
    try:
        return model.model_validate(value)
    except ValueError as exc:
        if not hasattr(exc, "errors"):  # raised by the model's own code
            raise
        reason = _reason(exc)
    raise ValueError(reason)  # here: the other one, which has the values, is not its context


def _reason(error: Any) -> str:
    """What pydantic says, as with its setting hide_input_in_errors."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    parts = [
        f"{'.'.join(map(str, each['loc'])) or 'the value'}: {_TAGS.get(each['type'], each['msg'])}"
        for each in found
    ]
    return f"{error.title}: {'; '.join(parts)}"
