"""Whether a media type is worth compressing follows from the structure of its name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.compression._media_types import (
    DEFAULT_MEDIA_TYPES,
    is_live_media_type,
    parse_media_type,
)

WORTH_IT = """
    text/html text/plain text/css text/csv text/javascript text/event-stream text/x-anything
    application/json application/problem+json application/vnd.api+json application/ld+json
    application/xml application/atom+xml application/xhtml+xml image/svg+xml
    application/openapi+yaml application/yaml application/javascript application/wasm
    application/x-ndjson application/jsonl application/json-seq application/geo+json-seq
    application/x-www-form-urlencoded application/protobuf application/foo+protobuf
    application/grpc-web-text application/graphql application/sql application/toml
    font/ttf font/otf image/bmp image/x-icon message/rfc822 model/obj
""".split()
NOT_WORTH_IT = """
    image/png image/jpeg image/webp image/avif image/gif video/mp4 audio/mpeg font/woff font/woff2
    application/zip application/gzip application/zstd application/pdf application/octet-stream
    application/epub+zip application/vnd.openxmlformats-officedocument.wordprocessingml.document
    application/grpc application/grpc+json application/grpc+proto multipart/form-data
    application/x-tiles application/jsonx application/xjson json text
""".split()
LIVE = """
    text/event-stream application/x-ndjson application/ndjson application/jsonl
    application/jsonlines application/x-jsonlines application/json-seq application/geo+json-seq
    application/stream+json application/grpc-web-text
""".split()

names = st.sampled_from([*WORTH_IT, *NOT_WORTH_IT])


class TestDefaultTypes:
    @pytest.mark.parametrize("name", WORTH_IT)
    def test_compressible_types(self, name: str) -> None:
        assert DEFAULT_MEDIA_TYPES(name)

    @pytest.mark.parametrize("name", [*NOT_WORTH_IT, "", "/", ";", "*/*"])
    def test_packed_and_unknown_types_are_not_compressed(self, name: str) -> None:
        assert not DEFAULT_MEDIA_TYPES(name)

    @given(st.text())
    def test_any_text_is_accepted(self, name: str) -> None:
        assert DEFAULT_MEDIA_TYPES(parse_media_type(name)) in {True, False}


class TestChangedTypes:
    @given(st.sets(names), names)
    def test_an_added_type_is_compressed(self, added: set[str], asked: str) -> None:
        types = DEFAULT_MEDIA_TYPES | added
        assert types(asked) == (asked in added or asked in WORTH_IT)

    @given(st.sets(names), names)
    def test_a_removed_type_is_not_compressed(self, taken: set[str], asked: str) -> None:
        types = DEFAULT_MEDIA_TYPES - taken
        assert types(asked) == (asked in WORTH_IT and asked not in taken)

    @given(st.lists(st.tuples(st.booleans(), st.sets(names, min_size=1))), names)
    def test_the_last_change_counts(self, steps: list[tuple[bool, set[str]]], asked: str) -> None:
        types, expected = DEFAULT_MEDIA_TYPES, asked in WORTH_IT
        for adds, some in steps:
            types = types | some if adds else types - some
            expected = adds if asked in some else expected
        assert types(asked) == expected

    def test_the_default_set_is_not_changed(self) -> None:
        assert (DEFAULT_MEDIA_TYPES | {"application/x-tiles"}) != DEFAULT_MEDIA_TYPES
        assert not DEFAULT_MEDIA_TYPES("application/x-tiles")

    def test_names_may_have_parameters(self) -> None:
        assert (DEFAULT_MEDIA_TYPES | {"Application/X-Tiles; v=1"})("application/x-tiles")
        assert not (DEFAULT_MEDIA_TYPES - {" TEXT/CSV "})("text/csv")

    def test_a_single_name_may_be_added(self) -> None:
        """It is not taken for a sequence of letters."""
        assert (DEFAULT_MEDIA_TYPES | "application/x-tiles")("application/x-tiles")
        assert not (DEFAULT_MEDIA_TYPES - "text/csv")("text/csv")


class TestMediaType:
    @pytest.mark.parametrize(
        "content_type",
        ["text/html", "Text/HTML", "text/html;charset=utf-8", " text/html\t; a=b; c", "text/html;"],
    )
    def test_a_media_type_has_no_parameters(self, content_type: str) -> None:
        assert parse_media_type(content_type) == "text/html"

    @given(st.text())
    def test_a_bare_media_type_is_unchanged(self, content_type: str) -> None:
        assert parse_media_type(parse_media_type(content_type)) == parse_media_type(content_type)


@pytest.mark.parametrize("name", LIVE)
def test_live_types_are_compressible(name: str) -> None:
    assert is_live_media_type(name)
    assert DEFAULT_MEDIA_TYPES(name)


@pytest.mark.parametrize("name", ["text/html", "application/json", "application/grpc", ""])
def test_other_types_are_not_live(name: str) -> None:
    assert not is_live_media_type(name)
