"""Names of keys and connections, and what is read from hashes, as BullMQ has them."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.errors import InvalidOption
from hasten.jobs._engines.redis.decoding import (
    decode_settle_reply,
    parse_and_clamp_count,
    to_event,
    to_job_record,
)
from hasten.jobs._engines.redis.queue_keys import QueueKeys
from hasten.jobs._states import State


class TestKeys:
    def test_begin_with_prefix_and_name(self) -> None:
        assert QueueKeys("bull", tagged=False).queue_prefix("mail") == "bull:mail:"

    def test_on_a_cluster_share_a_slot(self) -> None:
        """The hash tag is the name of the queue, or the tag in the prefix."""
        assert QueueKeys("bull", tagged=True).queue_prefix("mail") == "bull:{mail}:"
        assert QueueKeys("{shop}", tagged=True).queue_prefix("mail") == "{shop}:mail:"
        assert QueueKeys("{}shop", tagged=True).queue_prefix("mail") == "{}shop:{mail}:"

    @pytest.mark.parametrize("tagged", [False, True])
    def test_tell_their_queue(self, tagged: bool) -> None:
        keys = QueueKeys("bull", tagged=tagged)
        assert keys.queue_of_meta_key(keys.queue_prefix("mail") + "meta") == "mail"
        assert keys.queue_of_meta_key("bull::relay:meta") is None
        assert keys.queue_of_meta_key("other:mail:meta") is None

    @pytest.mark.parametrize("name", ["", "a:b"])
    def test_of_a_name_that_separates_keys_are_refused(self, name: str) -> None:
        with pytest.raises(InvalidOption, match="queue="):
            QueueKeys("bull", tagged=False).queue_prefix(name)

    @pytest.mark.parametrize("prefix", ["", "with space", "line\n"])
    def test_of_a_prefix_that_no_connection_can_have_are_refused(self, prefix: str) -> None:
        with pytest.raises(InvalidOption, match="prefix="):
            QueueKeys(prefix, tagged=False)

    def test_of_connections_are_those_that_bullmq_looks_for(self) -> None:
        keys = QueueKeys("bull", tagged=False)
        assert keys.worker_connection_name("w", "wrk-1") == "bull:dw==:w:wrk-1"
        assert keys.worker_connection_name("w", "a b\n") == "bull:dw==:w:a-b-"
        assert keys.event_reader_connection_name("w") == "bull:dw==:qe"


class TestFields:
    def test_that_are_missing_or_odd_are_read_as_bullmq_reads_them(self) -> None:
        """The smallest hash of BullMQ has a name and data. Other programs may write anything."""
        fields = {"name": "x", "data": "1", "stacktrace": "no json", "ats": "many", "atm": "2.0"}
        record = to_job_record("mail", "7", State.WAITING, None, fields)
        assert (record.opts, record.created_ms, record.priority) == ("{}", 0, 0)
        assert (record.tracebacks, record.attempts_started, record.attempts_made) == ([], 0, 2)

    @given(st.text())
    def test_numbers_never_raise(self, text: str) -> None:
        assert parse_and_clamp_count(text) is None or isinstance(parse_and_clamp_count(text), int)

    @pytest.mark.parametrize("odd", [b"\xff", b"a\xc3", b"\xed\xa0\x80" * 20, b"x" * 300 + b"\xfe"])
    def test_that_are_no_utf_8_do_not_spoil_the_batch(self, odd: bytes) -> None:
        """A producer in another language may write it. Only its job fails."""
        ours = ["mail", "1", "ok", "{}", "{}", "active", 0, 0, 5, 0, 1, 0, None, 5, "w"]
        theirs = ["mail", "2", "odd", "MARK", "{}", "active", 0, 0, 5, 0, 1, 0, None, 5, "w"]
        packed = msgspec.msgpack.encode([[ours, theirs], False, [], [], [], []])
        head = bytes([0xD9, len(odd)]) if len(odd) < 256 else b"\xda" + len(odd).to_bytes(2)
        answer = decode_settle_reply(packed.replace(b"\xa4MARK", head + odd))
        assert [job.name for job in answer.jobs] == ["ok", "odd"]
        assert answer.jobs[0].data == "{}"
        assert answer.jobs[1].data == odd.decode(errors="replace")


class TestEvents:
    def test_keep_what_has_no_field_of_its_own(self) -> None:
        told = to_event("1-0", {"event": "deduplicated", "jobId": "1", "deduplicationId": "d"})
        assert (told.kind, told.job_id, told.details) == (
            "deduplicated", "1", {"deduplicationId": "d"},
        )  # fmt: skip

    def test_name_states_as_we_do(self) -> None:
        assert (
            to_event("1-0", {"event": "removed", "jobId": "1", "prev": "wait"}).previous
            == "waiting"
        )


def test_names_that_others_invent_are_not_remembered_for_ever() -> None:
    keys = QueueKeys("bull", tagged=False)
    for number in range(3_000):
        keys.queue_prefix(f"mail-{number}")
    keys.queue_prefix("x" * 10_000)
    assert len(keys._cached_prefixes) <= 1_000
    assert max(map(len, keys._cached_prefixes)) < 100
