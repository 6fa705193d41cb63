"""The headers of a response match its compressed body."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten._asgi import Headers
from hasten.compression._head import (
    ETagPolicy,
    ResponseHead,
    SkipReason,
    forbids_transform,
    make_compressed_etag,
    strip_etag_suffixes,
)
from hasten.compression._negotiation import Coding

POLICIES: list[ETagPolicy] = ["weaken", "suffix", "drop", "keep"]

# etagc, RFC 9110, section 8.8.3; now and then with what looks like one of our suffixes.
opaque = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters='"'), max_size=12
)
endings = st.sampled_from(["", "", *(f"-{coding}" for coding in Coding)])
tags = st.builds(lambda text, end: f'"{text}{end}"'.encode(), opaque, endings)


def head(*headers: tuple[str, str], status: int = 200) -> ResponseHead:
    return ResponseHead(status, [(name.encode(), value.encode()) for name, value in headers])


def value(headers: Headers, name: bytes) -> bytes | None:
    values = [value for key, value in headers if key.lower() == name]
    assert len(values) <= 1
    return values[0] if values else None


class TestVary:
    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ([], "Accept-Encoding"),
            (["Origin"], "Origin, Accept-Encoding"),
            (["Origin", "Cookie"], "Origin, Cookie, Accept-Encoding"),
            ([""], "Accept-Encoding"),
            (["accept-encoding"], "accept-encoding"),
            (["Origin,ACCEPT-ENCODING"], "Origin,ACCEPT-ENCODING"),
            (["*"], "*"),
            (["Origin, *"], "Origin, *"),
            (["X-Accept-Encoding"], "X-Accept-Encoding, Accept-Encoding"),
        ],
    )
    def test_vary_names_accept_encoding(self, before: list[str], after: str) -> None:
        assert (
            value(head(*(("Vary", line) for line in before)).make_headers_with_vary(), b"vary")
            == after.encode()
        )

    def test_vary_gets_only_missing_names(self) -> None:
        by = b"Accept-Encoding, Available-Dictionary"
        assert value(head(("vary", "accept-encoding")).make_headers_with_vary(by), b"vary") == (
            b"accept-encoding, Available-Dictionary"
        )

    @given(st.lists(st.binary(max_size=20), max_size=4))
    def test_completing_vary_twice_changes_nothing(self, lines: list[bytes]) -> None:
        once = ResponseHead(200, [(b"vary", line) for line in lines]).make_headers_with_vary()
        assert ResponseHead(200, once).make_headers_with_vary() == once
        names = {
            name.strip().lower() for name in ResponseHead(200, once).found[b"vary"].split(b",")
        }
        assert names & {b"*", b"accept-encoding"}

    def test_the_given_headers_are_not_changed(self) -> None:
        given_headers = [(b"vary", b"Origin"), (b"etag", b'"a"'), (b"content-length", b"5")]
        copy = list(given_headers)
        ResponseHead(200, given_headers).make_headers_with_vary()
        ResponseHead(200, given_headers).make_compressed_headers("gzip", "weaken", 3)
        ResponseHead(200, given_headers).make_not_modified_headers(b'W/"a"', "weaken")
        assert given_headers == copy


class TestCoded:
    def test_headers_of_the_plain_body_are_removed(self) -> None:
        """RFC 9110, 14.3; RFC 9530, sections 2 and 3."""
        names = ["Accept-Ranges", "Content-Digest", "Content-MD5", "Digest", "Repr-Digest"]
        old = head(("X", "y"), ("Content-Length", "99"), *((name, "z") for name in names))
        assert old.make_compressed_headers("br", "weaken", 7) == [
            (b"X", b"y"),
            (b"vary", b"Accept-Encoding"),
            (b"content-encoding", b"br"),
            (b"content-length", b"7"),
        ]
        assert value(old.make_compressed_headers("br", "weaken"), b"content-length") is None

    def test_order_and_repetitions_are_kept(self) -> None:
        cookies = [("Set-Cookie", "a=1"), ("X", "y"), ("Set-Cookie", "b=2")]
        assert head(*cookies).make_compressed_headers("gzip", "keep")[:3] == head(*cookies).headers

    @pytest.mark.parametrize(
        ("policy", "strong"),
        [("weaken", b'W/"a"'), ("suffix", b'"a--gzip"'), ("drop", None), ("keep", b'"a"')],
    )
    def test_the_policy_decides_the_etag(self, policy: ETagPolicy, strong: bytes | None) -> None:
        assert (
            value(head(("ETag", '"a"')).make_compressed_headers("gzip", policy), b"etag") == strong
        )

    @pytest.mark.parametrize("policy", ["weaken", "suffix", "keep"])
    def test_a_weak_etag_is_kept(self, policy: ETagPolicy) -> None:
        """It does not name exact bytes: RFC 9110, section 8.8.1."""
        assert (
            value(head(("ETag", 'W/"a"')).make_compressed_headers("gzip", policy), b"etag")
            == b'W/"a"'
        )

    @given(tags, st.sampled_from(Coding), st.sampled_from(["weaken", "suffix", "keep"]))
    def test_the_etag_is_well_formed(self, tag: bytes, coding: Coding, policy: ETagPolicy) -> None:
        changed = make_compressed_etag(tag, policy, coding).removeprefix(b"W/")
        assert len(changed) >= 2
        assert (changed[:1], changed[-1:], changed.count(b'"')) == (b'"', b'"', 2)


class TestSuffix:
    @given(st.builds(lambda text: f'"{text}"'.encode(), opaque.filter(bool)))
    def test_the_suffix_is_removed_for_the_application(self, tag: bytes) -> None:
        for coding in Coding:
            assert strip_etag_suffixes(make_compressed_etag(tag, "suffix", coding)) == tag

    @pytest.mark.parametrize("own", Coding)
    @pytest.mark.parametrize("coding", Coding)
    def test_one_suffix_is_removed(self, own: Coding, coding: Coding) -> None:
        """An application may have suffixes of its own, like Apache."""
        tag = f'"a-{own}"'.encode()
        assert strip_etag_suffixes(make_compressed_etag(tag, "suffix", coding)) == tag

    @pytest.mark.parametrize("coding", Coding)
    def test_an_empty_etag_gets_a_suffix(self, coding: Coding) -> None:
        coded = make_compressed_etag(b'""', "suffix", coding)
        assert coded == b'"--%s"' % coding.encode()
        assert strip_etag_suffixes(coded) == b'""'

    def test_suffixes_are_removed_in_a_list(self) -> None:
        assert strip_etag_suffixes(b'"a--gzip", W/"b", "c--br" ,"d"') == b'"a", W/"b", "c" ,"d"'

    @pytest.mark.parametrize("tags", [b"*", b"", b'"gzip"', b'"a-gzipped"', b'W/"a"'])
    def test_nothing_but_the_suffix_is_removed(self, tags: bytes) -> None:
        assert strip_etag_suffixes(tags) == tags


class TestRevalidated:
    @pytest.mark.parametrize(
        ("policy", "tag", "asked", "answered"),
        [
            ("weaken", '"a"', 'W/"a"', 'W/"a"'),
            ("weaken", '"a"', '"x", W/"a" ,"y"', 'W/"a"'),
            ("weaken", '"a"', '"a"', '"a"'),
            ("weaken", '"a"', '"a", W/"a"', '"a"'),
            ("weaken", '"a"', "*", '"a"'),
            ("weaken", '"a"', None, '"a"'),
            ("weaken", '"a"', 'W/"ab"', '"a"'),
            ("weaken", 'W/"a"', 'W/"a"', 'W/"a"'),
            ("suffix", '"a"', '"a--gzip"', '"a--gzip"'),
            ("suffix", '"a"', '"x", "a--zstd"', '"a--zstd"'),
            ("suffix", '"a"', '"a"', '"a"'),
            ("suffix", '"a"', '"a-lzma"', '"a"'),
            ("keep", '"a"', 'W/"a"', '"a"'),
            ("drop", '"a"', 'W/"a"', '"a"'),
        ],
    )
    def test_a_304_has_the_etag_of_the_client(
        self, policy: ETagPolicy, tag: str, asked: str | None, answered: str
    ) -> None:
        """The one that the 200 would have had: RFC 9110, section 15.4.5."""
        old = head(("ETag", tag), ("X", "y"), status=304)
        headers = old.make_not_modified_headers(None if asked is None else asked.encode(), policy)
        assert value(headers, b"etag") == answered.encode()
        assert value(headers, b"x") == b"y"

    @pytest.mark.parametrize("policy", ["weaken", "suffix"])
    def test_an_etag_may_contain_a_comma(self, policy: ETagPolicy) -> None:
        """RFC 9110, section 8.8.3: etagc has all that is visible, but for quotes."""
        held = make_compressed_etag(b'"a,b"', policy, "gzip")
        headers = head(("ETag", '"a,b"'), status=304).make_not_modified_headers(
            b'"x", ' + held, policy
        )
        assert value(headers, b"etag") == held

    def test_a_304_without_an_etag_is_not_changed(self) -> None:
        old = head(("X", "y"), status=304)
        assert old.make_not_modified_headers(b'W/"a"', "weaken") == old.headers


class TestUntouchable:
    @pytest.mark.parametrize("status", [100, 101, 103, 204, 205, 206, 416])
    def test_a_status_without_a_whole_body_is_not_compressed(self, status: int) -> None:
        assert head(status=status).find_skip_reason("GET") == "status"

    @pytest.mark.parametrize("status", [200, 201, 301, 304, 404, 500, 599])
    def test_other_statuses_are_compressed(self, status: int) -> None:
        assert head(status=status).find_skip_reason("GET") is None

    @pytest.mark.parametrize(
        ("name", "text", "reason"),
        [
            ("Content-Range", "bytes 0-1/9", "status"),
            ("Content-Encoding", "gzip", "already_encoded"),
            ("content-encoding", "my-own", "already_encoded"),
            ("Content-Encoding", "identity", "opted_out"),
            ("Content-Encoding", " Identity ", "opted_out"),
            ("Content-Encoding", "", "opted_out"),
            ("Cache-Control", "public, No-Transform", "no_transform"),
            ("Cache-Control", "public", None),
            ("Cache-Control", 'x="no-transform"', None),
            ("Signature-Input", 'sig=("content-digest");created=1', "signed"),
            ("Signature-Input", 'sig=("@status" "ETag")', "signed"),
            ("Signature-Input", 'sig=("@status" "date")', None),
        ],
    )
    def test_no_transform_is_obeyed(self, name: str, text: str, reason: SkipReason | None) -> None:
        assert head((name, text)).find_skip_reason("GET") == reason

    def test_a_tunnel_is_not_compressed(self) -> None:
        assert head().find_skip_reason("CONNECT") == "status"
        assert head(status=403).find_skip_reason("CONNECT") is None

    def test_identity_is_removed_from_the_headers(self) -> None:
        old = head(("Content-Encoding", "identity"), ("X", "y"))
        assert old.make_headers_without_encoding() == [(b"X", b"y")]


class TestContentLength:
    @pytest.mark.parametrize(
        ("text", "length"),
        [
            ("0", 0),
            ("12", 12),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("x", None),
            ("5, 5", None),
        ],
    )
    def test_content_length_is_a_number_or_unknown(self, text: str, length: int | None) -> None:
        assert head(("Content-Length", text)).content_length == length
        assert head().content_length is None

    def test_an_absurd_content_length_is_unknown(self) -> None:
        """Python reads no more than 4,300 digits, and raises."""
        length = head(("Content-Length", "9" * 5000)).content_length
        assert length is None or length > 10**4000


@given(st.binary(max_size=60))
def test_any_cache_control_is_accepted(text: bytes) -> None:
    assert forbids_transform(text) in {True, False}
    assert forbids_transform(text + b" , No-Transform\t")
