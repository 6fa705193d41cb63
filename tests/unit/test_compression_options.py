"""Every option of the middlewares is checked when they are created, and errors name it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten._durations import to_seconds
from hasten._sizes import to_byte_count
from hasten.compression import (
    DEFAULT_MEDIA_TYPES,
    BreachGuard,
    CompressionCache,
    CompressionMiddleware,
    CompressionStats,
    DecompressionMiddleware,
    Dictionaries,
    ETagPolicy,
    Precompressed,
)
from hasten.compression._negotiation import Coding
from hasten.compression._options import to_breach_guard, to_codings, to_levels
from hasten.errors import InvalidOption
from tests.http.client import Receive, Scope, Send

NO_SIZES = [-1, 1.5, True, None, "", "kb", "1tb", "-1", "1e3", "1,5kb", b"1kb", [1], "٣kb"]
NO_SECONDS = [-1, -0.001, math.nan, math.inf, True, "5", b"5", timedelta(seconds=-1), [1], 10**400]
NO_COUNTS = [-1, 1.0, 1.5, True, "2", math.inf, [1]]
NO_CODINGS = [(), [], "gzip", b"gzip", 5, None, ["brotli"], ["gzip", "lz4"], ["GZIP"], [None], [[]]]


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Raise, because it is never called."""


def bad(option: str, values: list[Any]) -> list[Any]:
    return [pytest.param(option, value, id=f"{option}-{value!r:.30}") for value in values]


def refuses(make: Callable[..., object], option: str, value: object) -> InvalidOption:
    with pytest.raises(InvalidOption) as caught:
        make(**{option: value})
    return caught.value


class TestCompressionMiddleware:
    @pytest.mark.parametrize(
        ("option", "value"),
        [
            *bad("encodings", NO_CODINGS),
            *bad("minimum_size", NO_SIZES),
            *bad("media_types", ["text/html", 5, None, [5]]),
            *bad("filter", [5, "text/html"]),
            *bad("flush", ["sometimes", "AUTO", "20", "-1ms", *NO_SECONDS[:6], None]),
            *bad("stream_encodings", NO_CODINGS),
            *bad("stream_memory", NO_SIZES),
            *bad("max_streams", [*NO_COUNTS, None]),
            *bad("threads", [0, *NO_COUNTS]),
            *bad("etag", ["weak", "", None, True, ["weaken"]]),
            *bad(
                "breach",
                [
                    "on", "", None, True, 32, (), [], (BreachGuard(),), BreachGuard,
                ],
            ),
            *bad("level", [-1, 0, 10, 5.0, None, "fast", "", ["zstd"], True]),
            *bad("cache", [5, "64mb", True]),
            *bad("dictionaries", [5, ["/api/*"], True]),
            *bad("stats", [5, CompressionStats, dict]),
            *bad("on_event", [5, "print", 1]),
            *bad("filter", ["x", 1, True]),
            *bad("strict", ["no", 0, None]),
            *bad("server_timing", ["no", 1, None]),
        ],
    )  # fmt: skip
    def test_names_the_option_and_its_value(self, option: str, value: object) -> None:
        error = refuses(lambda **given: CompressionMiddleware(app, **given), option, value)
        assert error.option == option
        assert error.value is value or error.value == value
        assert str(error).startswith(f"{option}=")

    @pytest.mark.parametrize(
        ("level", "option", "value"),
        [
            ({"zstd": 23}, "level['zstd']", 23),
            ({"zstd": -8}, "level['zstd']", -8),
            ({"br": 12}, "level['br']", 12),
            ({"br": -1}, "level['br']", -1),
            ({"gzip": 0}, "level['gzip']", 0),
            ({"gzip": 10}, "level['gzip']", 10),
            ({"deflate": "6"}, "level['deflate']", "6"),
            ({"zstd": True}, "level['zstd']", True),
            ({"zstd": 3.0}, "level['zstd']", 3.0),
            ({"zstd": None}, "level['zstd']", None),
            ({"brotli": 5}, "level", ["brotli"]),
            ({5: 5}, "level", [5]),
        ],
    )
    def test_names_the_level(self, level: dict[str, int], option: str, value: object) -> None:
        with pytest.raises(InvalidOption) as caught:
            CompressionMiddleware(app, level=level)
        assert caught.value.option == option
        assert caught.value.value == value

    @pytest.mark.parametrize("policy", ["keep", "suffix"])
    def test_recompress_needs_weak_entity_tags(self, policy: ETagPolicy) -> None:
        with pytest.raises(InvalidOption) as caught:
            CompressionMiddleware(app, etag=policy, cache=CompressionCache(recompress=True))
        assert (caught.value.option, caught.value.value) == ("etag", policy)
        CompressionMiddleware(app, etag=policy, cache=CompressionCache())
        CompressionMiddleware(app, etag="weaken", cache=CompressionCache(recompress=True))

    @pytest.mark.parametrize(
        ("level", "encodings", "message"),
        [
            (10, ("zstd", "br", "gzip"), "level=10: must be a whole number from 1 to 9 for 'gzip'"),
            (12, ("br",), "level=12: must be a whole number from 0 to 11 for 'br'"),
            (23, ("zstd",), "level=23: must be a whole number from -7 to 22 for 'zstd'"),
        ],
    )
    def test_one_level_must_be_valid_for_each_encoding(
        self, level: int, encodings: tuple[str, ...], message: str
    ) -> None:
        with pytest.raises(InvalidOption, match=f"^{message}$"):
            CompressionMiddleware(app, level=level, encodings=encodings)
        CompressionMiddleware(app, level=level - 1, encodings=encodings)

    @pytest.mark.parametrize(
        "option", ["offload_after", "max_queue", "default_encoding", "strip_accept_encoding"]
    )
    def test_removed_options_are_rejected(self, option: str) -> None:
        with pytest.raises(TypeError, match=option):
            CompressionMiddleware(app, **{option: None})  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"encodings": ["deflate", "gzip"], "stream_encodings": {"br"}},
            {"encodings": ("gzip", "gzip")},
            {"minimum_size": 0, "stream_memory": "1.5 MB"},
            {"level": "auto"},
            {"level": {}},
            {"level": 1},
            {"level": 9, "encodings": ["zstd", "br", "gzip", "deflate"]},
            {"level": -7, "encodings": ["zstd"]},
            {"level": {"zstd": -7, "br": 0, "gzip": 1, "deflate": 9}},
            {"media_types": DEFAULT_MEDIA_TYPES - {"text/csv"}},
            {"media_types": ["text/html", "Text/CSS; x"]},
            {"media_types": lambda name: name == "text/html"},
            {"filter": lambda scope, status, headers: None},
            {"flush": "message"},
            {"flush": "never"},
            {"flush": 0},
            {"flush": 0.01},
            {"flush": "20ms"},
            {"flush": timedelta(milliseconds=3)},
            {"threads": 1, "max_streams": 0},
            {"etag": "suffix", "breach": "off"},
            {"breach": BreachGuard(same_site=True)},
            {"cache": CompressionCache(0), "dictionaries": Dictionaries([])},
            {"stats": CompressionStats(), "on_event": print},
        ],
    )
    def test_documented_values_are_accepted(self, options: dict[str, Any]) -> None:
        CompressionMiddleware(app, **options)


class TestDecompressionMiddleware:
    @pytest.mark.parametrize(
        ("option", "value"),
        [
            *bad("encodings", NO_CODINGS),
            *bad("max_size", [0, *NO_SIZES]),
            *bad("max_ratio", [0, *NO_COUNTS, None]),
            *bad("max_encodings", [0, *NO_COUNTS, None]),
            *bad("max_time", [*NO_SECONDS, None]),
            *bad("threads", [0, *NO_COUNTS]),
            *bad("buffered", ["no", 1, None]),
        ],
    )
    def test_names_the_option_and_its_value(self, option: str, value: object) -> None:
        error = refuses(lambda **given: DecompressionMiddleware(app, **given), option, value)
        assert error.option == option
        assert error.value is value or error.value == value


class TestParts:
    @pytest.mark.parametrize("value", NO_SIZES)
    def test_the_size_of_a_cache_is_checked(self, value: Any) -> None:
        assert refuses(CompressionCache, "max_size", value).option == "max_size"

    @pytest.mark.parametrize("value", ["yes", 1, None])
    def test_recompress_is_a_flag(self, value: Any) -> None:
        error = refuses(lambda **given: CompressionCache(1, **given), "recompress", value)
        assert (error.option, error.value) == ("recompress", value)

    @pytest.mark.parametrize("value", ["/api/*", ["api"], ["/a", ""], 5, [5], None])
    def test_paths_of_dictionaries_are_checked(self, value: Any) -> None:
        error = refuses(Dictionaries, "paths", value)
        assert (error.option, error.value) == ("paths", value)

    @pytest.mark.parametrize("value", ["x-api-key", ["x api key"], [""], ["é"], 5, [5], None])
    def test_credential_headers_are_checked(self, value: Any) -> None:
        error = refuses(lambda **given: Dictionaries([], **given), "credential_headers", value)
        assert (error.option, error.value) == ("credential_headers", value)

    @pytest.mark.parametrize("value", NO_SIZES)
    def test_the_size_of_dictionaries_is_checked(self, value: Any) -> None:
        error = refuses(lambda **given: Dictionaries([], **given), "max_size", value)
        assert error.option == "max_size"


class TestReprs:
    def test_a_repr_shows_the_options(self) -> None:
        shown = {
            repr(CompressionMiddleware(app, encodings=["gzip"])): "<CompressionMiddleware gzip>",
            repr(DecompressionMiddleware(app, encodings=["gzip"], max_size="1kb")): (
                "<DecompressionMiddleware gzip: at most 1,024 bytes>"
            ),
            repr(CompressionCache("1kb")): "<CompressionCache 0 bodies, 0 of 1,024 bytes>",
            repr(Dictionaries(["/a", "/b*"])): "<Dictionaries /a, /b*: 0 responses, 0 bytes>",
            repr(CompressionStats()): "<CompressionStats compressed={} skipped={}>",
            repr(Precompressed(app, "/srv/x", encodings=["br"])): "<Precompressed /srv/x: br>",
        }
        assert list(shown) == list(shown.values())


class TestToBytes:
    @pytest.mark.parametrize(
        ("value", "size"),
        [
            (0, 0),
            (1000, 1000),
            ("0", 0),
            ("7", 7),
            ("7b", 7),
            ("1kb", 1024),
            ("1 KB", 1024),
            (" 64Kb ", 65536),
            ("1.5kb", 1536),
            ("10mb", 10 << 20),
            ("2GB", 2 << 30),
        ],
    )
    def test_a_size_has_a_unit(self, value: object, size: int) -> None:
        assert to_byte_count("size", value) == size

    @given(st.integers(0, 1 << 62))
    def test_a_number_is_bytes(self, size: int) -> None:
        assert to_byte_count("size", size) == size

    def test_a_size_has_a_minimum(self) -> None:
        assert to_byte_count("size", 1, at_least=1) == 1
        with pytest.raises(InvalidOption, match=r"^size='0kb': .*at least 1 byte$"):
            to_byte_count("size", "0kb", at_least=1)

    @given(st.text(max_size=20) | st.text("0123456789. kmgb", max_size=500))
    def test_any_text_is_a_size_or_invalid(self, value: str) -> None:
        with contextlib.suppress(InvalidOption):
            assert to_byte_count("size", value) >= 0

    def test_a_huge_number_is_invalid(self) -> None:
        with pytest.raises(InvalidOption):
            to_byte_count("size", "9" * 400)


class TestTheOthers:
    @pytest.mark.parametrize(
        ("value", "seconds"), [(0, 0.0), (2, 2.0), (0.25, 0.25), (timedelta(milliseconds=5), 0.005)]
    )
    def test_seconds(self, value: object, seconds: float) -> None:
        assert to_seconds("seconds", value) == seconds

    def test_codings_keep_their_order(self) -> None:
        assert to_codings("encodings", ("gzip", "zstd")) == ["gzip", "zstd"]
        with pytest.raises(InvalidOption, match="'zstd', 'br', 'gzip', 'deflate'"):
            to_codings("encodings", ["lz4"])

    def test_levels(self) -> None:
        codings = [Coding.ZSTD, Coding.GZIP]
        assert to_levels("auto", codings) == {}
        assert to_levels({"zstd": -7, "br": 11}, codings) == {"zstd": -7, "br": 11}
        assert to_levels(9, codings) == {"zstd": 9, "gzip": 9}

    def test_breach(self) -> None:
        guard = BreachGuard(same_site=True)
        assert to_breach_guard("guard") == BreachGuard()
        assert to_breach_guard("off") is None
        assert to_breach_guard(guard) is guard
