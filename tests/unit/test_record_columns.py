"""The engines read a `JobRecord` by position: they name its fields in the order of the class."""

from __future__ import annotations

import re
from importlib import resources

from hasten.jobs._engines.sqlite.event_rows import EventGroup
from hasten.jobs._engines.sqlite.job_rows import encode_json
from hasten.jobs._record import JobRecord

FIELDS = list(JobRecord.__struct_fields__)


def test_a_claim_on_redis_lists_the_first_fields_of_a_record_in_order() -> None:
    text = (resources.files("hasten.jobs._engines.redis") / "lua/lib/claiming.lua").read_text(
        "utf-8"
    )
    block = re.search(r"\n  return \{\n(.*?)\n  \}", text, re.DOTALL)
    assert block is not None
    named = re.findall(r", -- (\w+)$", block[1], re.MULTILINE)
    assert len(named) == len(block[1].splitlines())
    assert named == FIELDS[: len(named)]
    assert JobRecord.__struct_defaults__[0] is None  # the fields after them may be missing
    assert FIELDS.index("deferred_failure") < len(named)


def test_stored_events_keep_their_short_names() -> None:
    group = EventGroup(
        "failed", ["a"], values=["1"], omitted=[0], errors=["no"], previous="active", dues=[5],
        count=1,
    )  # fmt: skip
    assert encode_json(group) == (
        '{"k":"failed","i":["a"],"v":["1"],"o":[0],"r":["no"],"p":"active","d":[5],"c":1}'
    )
