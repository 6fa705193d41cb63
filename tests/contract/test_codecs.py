"""All codecs fulfil the same contract, whatever library they use."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten import _extras
from hasten.compression import _codecs as codecs
from hasten.compression import _decoders as decoders
from hasten.compression import _libraries as libraries
from hasten.compression._codecs import Codec, Encoder
from hasten.compression._decoders import Decoder, MalformedBody
from hasten.compression._negotiation import Coding
from tests.effort import effort
from tests.http.bodies import ORDERS, noise, tokens
from tests.http.codings import decode, decode_beginning, encode, zstd_window_bytes, zstd_with_window

CODECS: dict[str, tuple[Coding, dict[Coding, int]]] = {
    "zstd": (Coding.ZSTD, {}),
    "br": (Coding.BROTLI, {}),
    "gzip-isal": (Coding.GZIP, {}),
    "gzip-zlib": (Coding.GZIP, {Coding.GZIP: 6}),
    "deflate": (Coding.DEFLATE, {}),
}
MAX_WINDOW_BYTES = 8 << 20
KIB = 1024

# A codec outlives the examples of one test, as it outlives the responses of an application.
lasting = effort(20)

pieces = st.lists(
    st.one_of(
        st.binary(max_size=200),
        st.integers(0, len(ORDERS)).map(lambda size: ORDERS[:size]),
        st.binary(min_size=1, max_size=3).map(lambda unit: unit * 3000),
    ),
    max_size=6,
)


def make(name: str) -> Codec:
    coding, levels = CODECS[name]
    return codecs.make_codecs([coding], levels)[coding]


# Without isal, whose output may depend on earlier contents of its memory.
repeatable = pytest.mark.parametrize("codec", sorted(CODECS.keys() - {"gzip-isal"}), indirect=True)


@pytest.fixture(params=CODECS)
def codec(request: pytest.FixtureRequest) -> Codec:
    return make(request.param)


@pytest.fixture(params=Coding)
def coding(request: pytest.FixtureRequest) -> Coding:
    return Coding(request.param)


def streamed(encoder: Encoder, parts: Sequence[bytes], *, flushes: bool = False) -> bytes:
    coded = b""
    for part in parts:
        coded += encoder.write(part)
        if flushes:
            coded += encoder.flush()
    return coded + encoder.finish()


def decoded_beginning(coding: Coding, data: bytes) -> bytes:
    if coding is Coding.DEFLATE:
        return zlib.decompressobj().decompress(data)
    return decode_beginning(coding, data)


class TestWhole:
    @lasting
    @given(parts=pieces, data=st.data())
    def test_others_decode_it(self, codec: Codec, parts: list[bytes], data: st.DataObject) -> None:
        body = b"".join(parts)
        level = data.draw(
            st.sampled_from([level for level in codec.level_policy.levels if level < 19])
        )
        for given_body in (body, memoryview(body)):
            assert decode(codec.coding, codec.compress(given_body, level)) == body

    def test_every_level_works(self, codec: Codec) -> None:
        for level in codec.level_policy.levels:
            for body in (b"", ORDERS, noise(3000)):
                assert decode(codec.coding, codec.compress(body, level)) == body

    def test_is_smaller(self, codec: Codec) -> None:
        for level in codec.level_policy.levels:
            assert len(codec.compress(ORDERS, level)) < len(ORDERS) / 2

    @repeatable
    @lasting
    @given(parts=pieces)
    def test_is_the_same_for_the_same(self, codec: Codec, parts: list[bytes]) -> None:
        """A compressor that is used again does not depend on earlier bodies."""
        body = b"".join(parts)
        level = codec.level_policy.choose_level(len(body))
        first = codec.compress(body, level)
        codec.compress(ORDERS, level)
        assert codec.compress(body, level) == first
        assert codec.compress(memoryview(body), level) == first

    def test_large_bodies_are_decoded(self, codec: Codec) -> None:
        body = ORDERS * 100
        level = codec.level_policy.choose_level(len(body))
        assert decode(codec.coding, codec.compress(body, level)) == body


class TestStreamed:
    @lasting
    @given(parts=pieces, flushes=st.booleans(), data=st.data())
    def test_is_decoded_by_others(
        self, codec: Codec, parts: list[bytes], data: st.DataObject, *, flushes: bool
    ) -> None:
        level = data.draw(
            st.sampled_from([level for level in codec.level_policy.levels if level < 19])
        )
        memory = data.draw(st.sampled_from([0, 10_000, 32 * KIB, 64 * KIB, 100_000, 1 << 20]))
        for encoder in (codec.make_encoder(level), codec.make_live_stream_encoder(level, memory)):
            assert decode(codec.coding, streamed(encoder, parts, flushes=flushes)) == b"".join(
                parts
            )

    @lasting
    @given(parts=pieces, data=st.data())
    def test_a_flush_makes_everything_readable(
        self, codec: Codec, parts: list[bytes], data: st.DataObject
    ) -> None:
        memory = data.draw(st.sampled_from([0, 32 * KIB, 1 << 20]))
        for encoder in (
            codec.make_encoder(codec.level_policy.streaming),
            codec.make_live_stream_encoder(codec.level_policy.live, memory),
        ):
            coded = so_far = b""
            for part in parts:
                so_far += part
                coded += encoder.write(part) + encoder.flush()
                if so_far:
                    assert decoded_beginning(codec.coding, coded) == so_far
            coded += encoder.flush() + encoder.finish()
            assert decode(codec.coding, coded) == so_far

    def test_every_level_works(self, codec: Codec) -> None:
        for level in codec.level_policy.levels:
            if level < 20:
                coded = streamed(codec.make_encoder(level), [ORDERS, memoryview(ORDERS)])  # type: ignore[list-item]
                assert decode(codec.coding, coded) == ORDERS * 2
            live = streamed(
                codec.make_live_stream_encoder(level, 32 * KIB), [ORDERS, b"x"], flushes=True
            )
            assert decode(codec.coding, live) == ORDERS + b"x"

    @repeatable
    def test_is_the_same_for_the_same(self, codec: Codec) -> None:
        for level in (codec.level_policy.streaming, codec.level_policy.fastest):
            first, second = (
                streamed(codec.make_encoder(level), [ORDERS, b"end"]) for _ in range(2)
            )
            assert first == second

    def test_events_refer_to_earlier_ones(self, codec: Codec) -> None:
        events = tokens(300)
        for memory in (0, 32 * KIB, 1 << 20):
            encoder = codec.make_live_stream_encoder(codec.level_policy.live, memory)
            assert len(streamed(encoder, events, flushes=True)) < sum(map(len, events)) / 2


class TestWindow:
    """RFC 9659, section 3."""

    def test_of_a_whole_body(self) -> None:
        codec = make("zstd")
        for level in codec.level_policy.levels:
            for size in (0, 1, 100_000):
                coded = codec.compress(bytes(size), level)
                assert zstd_window_bytes(coded) <= MAX_WINDOW_BYTES

    @pytest.mark.parametrize("level", [-7, -1, 1, 3, 19, 20, 21, 22])
    def test_of_one_that_is_larger_than_it(self, level: int) -> None:
        body = bytes(MAX_WINDOW_BYTES + 1)
        coded = make("zstd").compress(body, level)
        assert zstd_window_bytes(coded) <= MAX_WINDOW_BYTES
        assert decode("zstd", coded) == body

    def test_of_a_stream(self) -> None:
        codec = make("zstd")
        for level in codec.level_policy.levels:
            coded = codec.make_encoder(level).finish()
            assert zstd_window_bytes(coded) <= MAX_WINDOW_BYTES
            for memory in (0, 32 * KIB, 1 << 20, 1 << 30):
                encoder = codec.make_live_stream_encoder(level, memory)
                coded = encoder.write(b"event") + encoder.flush()
                assert zstd_window_bytes(coded) <= MAX_WINDOW_BYTES

    def test_a_larger_one_is_refused(self) -> None:
        decoder = decoders.find_decoder_factories([Coding.ZSTD])[Coding.ZSTD]()
        with pytest.raises(MalformedBody):
            drain(decoder, [zstd_with_window(ORDERS, 24)])
        decoder = decoders.find_decoder_factories([Coding.ZSTD])[Coding.ZSTD]()
        assert drain(decoder, [zstd_with_window(ORDERS, 23)]) == ORDERS


class TestThreads:
    def test_share_a_codec(self, codec: Codec) -> None:
        bodies = [ORDERS[number:] * (1 + number % 3) for number in range(24)]
        level = codec.level_policy.fastest
        barrier = threading.Barrier(8)

        def work(number: int) -> list[bytes]:
            barrier.wait(10)
            return [codec.compress(body, level) for body in bodies[number:] + bodies[:number]]

        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(work, range(8)))
        for number, result in enumerate(results):
            decoded = [decode(codec.coding, coded) for coded in result]
            assert decoded == bodies[number:] + bodies[:number]

    def test_have_streams_of_their_own(self, codec: Codec) -> None:
        barrier = threading.Barrier(8)

        def work(number: int) -> bytes:
            encoder = codec.make_live_stream_encoder(codec.level_policy.live, 32 * KIB)
            barrier.wait(10)
            return streamed(encoder, [b"%d" % number, ORDERS] * 5, flushes=True)

        with ThreadPoolExecutor(8) as pool:
            for number, coded in enumerate(pool.map(work, range(8))):
                assert decode(codec.coding, coded) == (b"%d" % number + ORDERS) * 5


MEASURE = """
import sys
from hasten.compression import _codecs as codecs
from tests.contract.test_codecs import make
from tests.http.bodies import tokens

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

codec, memory, count = make(sys.argv[1]), int(sys.argv[2]), 300
events = tokens(40)

def stream():
    encoder = codec.make_live_stream_encoder(codec.level_policy.live, memory)
    for event in events:
        encoder.write(event)
        encoder.flush()
    return encoder

warm = [stream() for _ in range(5)]
before = resident()
streams = [stream() for _ in range(count)]
print((resident() - before) // count)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="no /proc")  # noqa: PTH110
@pytest.mark.parametrize("name", CODECS)
def test_a_live_stream_takes_about_the_memory_asked_for(name: str) -> None:
    """Brotli needs about 300 kB at least, as its encoder documents."""
    asked = 32 * KIB
    result = subprocess.run(
        [sys.executable, "-c", MEASURE, name, str(asked)],
        capture_output=True,
        check=True,
        timeout=60,
        text=True,
    )
    assert int(result.stdout) < (600 * KIB if name == "br" else 3 * asked)


# Decoding -----------------------------------------------------------------------------------------


def decoder_of(coding: Coding) -> Decoder:
    return decoders.find_decoder_factories([coding])[coding]()


def drain(decoder: Decoder, parts: Sequence[bytes], at_most: int = 4096) -> bytes:
    """Decode as the contract says. Fails if decoding does not end."""
    plain = b""
    for part in parts:
        plain += bounded(decoder.decode(part, at_most), at_most)
        silent = 0
        while decoder.has_pending_output:
            more = bounded(decoder.decode(b"", at_most), at_most)
            plain += more
            silent = 0 if more else silent + 1
            assert silent < 100, "it says that there is more, and gives nothing"
    return plain


def bounded(plain: bytes, at_most: int) -> bytes:
    """About at_most bytes: brotli returns whole blocks of 32 kB and more."""
    assert len(plain) <= at_most + max(at_most, 32 * KIB)
    return plain


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


class TestDecoder:
    @lasting
    @given(
        parts=pieces,
        places=st.lists(st.integers(0, 1 << 20), max_size=8),
        at_most=st.sampled_from([64, 1000, 4096, 65536]),
    )
    def test_takes_any_cutting(
        self, coding: Coding, parts: list[bytes], places: list[int], at_most: int
    ) -> None:
        body = b"".join(parts)
        decoder = decoder_of(coding)
        assert drain(decoder, cut(encode(coding, body), places), at_most) == body
        assert decoder.is_body_complete
        assert not decoder.has_pending_output

    def test_takes_byte_after_byte(self, coding: Coding) -> None:
        coded = encode(coding, ORDERS)
        decoder = decoder_of(coding)
        plain = b""
        for number, byte in enumerate(coded, 1):
            plain += drain(decoder, [bytes([byte])])
            assert decoder.is_body_complete == (number == len(coded))
        assert plain == ORDERS

    def test_gives_a_piece_at_a_time(self, coding: Coding) -> None:
        """Ten megabytes are coded as a few bytes."""
        body = bytes(10 << 20)
        decoder = decoder_of(coding)
        first = decoder.decode(encode(coding, body), 1000)
        bounded(first, 1000)
        assert decoder.has_pending_output
        assert not decoder.is_body_complete
        assert len(first) + len(drain(decoder, [b""], 65536)) == len(body)
        assert decoder.is_body_complete

    @pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 8192, 12_288])
    def test_ends_where_the_piece_ends(self, coding: Coding, size: int) -> None:
        decoder = decoder_of(coding)
        assert drain(decoder, [encode(coding, noise(size))]) == noise(size)
        assert decoder.is_body_complete

    def test_nothing_is_not_the_end(self, coding: Coding) -> None:
        decoder = decoder_of(coding)
        assert drain(decoder, [b"", b""]) == b""
        assert not decoder.is_body_complete
        assert not decoder.has_pending_output

    def test_nothing_more_is_no_harm(self, coding: Coding) -> None:
        decoder = decoder_of(coding)
        assert drain(decoder, [encode(coding, b"abc"), b"", b""]) == b"abc"
        assert decoder.is_body_complete

    @pytest.mark.parametrize("coding", [Coding.ZSTD, Coding.GZIP])
    @lasting
    @given(
        bodies=st.lists(st.binary(max_size=5000), min_size=2, max_size=4),
        places=st.lists(st.integers(0, 1 << 20), max_size=6),
    )
    def test_joins_members(self, coding: Coding, bodies: list[bytes], places: list[int]) -> None:
        coded = b"".join(encode(coding, body) for body in bodies)
        decoder = decoder_of(coding)
        assert drain(decoder, cut(coded, places), 700) == b"".join(bodies)
        assert decoder.is_body_complete

    def test_a_begun_member_is_not_the_end(self) -> None:
        for coding in (Coding.ZSTD, Coding.GZIP):
            coded = encode(coding, ORDERS)
            decoder = decoder_of(coding)
            drain(decoder, [coded + coded[:20]])
            assert not decoder.is_body_complete

    def test_frames_are_skipped(self) -> None:
        skipped = b"\x5a\x2a\x4d\x18\x05\x00\x00\x00hello"
        decoder = decoder_of(Coding.ZSTD)
        assert drain(decoder, [skipped, encode("zstd", b"abc") + skipped]) == b"abc"
        assert decoder.is_body_complete

    @pytest.mark.parametrize(
        ("coding", "empty"),
        [
            (Coding.GZIP, encode("gzip", b"")),
            (Coding.ZSTD, encode("zstd", b"")),
            (Coding.ZSTD, b"\x50\x2a\x4d\x18" + bytes(4)),
        ],
        ids=["gzip", "zstd", "zstd-skippable"],
    )
    def test_few_empty_members_may_follow_each_other(self, coding: Coding, empty: bytes) -> None:
        """Each costs a call and yields nothing, so thousands of them would be an attack."""
        content = encode(coding, b"content")
        assert drain(decoder_of(coding), [empty * 50 + content + empty * 50]) == b"content"
        decoder = decoder_of(coding)
        decoder.decode(empty * 50_000, 65536)

        def go_on() -> None:
            for _ in range(1000):
                decoder.decode(b"", 65536)

        with pytest.raises(MalformedBody):
            go_on()

    @pytest.mark.parametrize("where", ["together", "apart"])
    def test_rubbish_after_the_end_is_bad(self, coding: Coding, where: str) -> None:
        rubbish = b"rubbish that is no header"
        coded = encode(coding, ORDERS)
        parts = [coded + rubbish] if where == "together" else [coded, rubbish]
        decoder = decoder_of(coding)
        with pytest.raises(MalformedBody):
            drain(decoder, parts)

    def test_a_checksum_is_checked(self) -> None:
        for coding, place in ((Coding.GZIP, -6), (Coding.DEFLATE, -2)):
            coded = bytearray(encode(coding, ORDERS))
            coded[place] ^= 1
            decoder = decoder_of(coding)
            with pytest.raises(MalformedBody):
                drain(decoder, [bytes(coded)])


class TestBadData:
    @lasting
    @given(data=st.binary(max_size=400), at_most=st.sampled_from([1, 100, 65536]))
    def test_random(self, coding: Coding, data: bytes, at_most: int) -> None:
        tolerated(coding, [data], at_most)

    @lasting
    @given(length=st.integers(0, 1 << 20), places=st.lists(st.integers(0, 1 << 20), max_size=3))
    def test_truncated(self, coding: Coding, length: int, places: list[int]) -> None:
        coded = encode(coding, ORDERS)
        part = coded[: length % len(coded)]
        decoder = decoder_of(coding)
        assert ORDERS.startswith(drain(decoder, cut(part, places)))
        assert not decoder.is_body_complete

    @effort(50)
    @given(
        flips=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 7)), min_size=1),
        places=st.lists(st.integers(0, 1 << 20), max_size=3),
    )
    def test_flipped_bits(
        self, coding: Coding, flips: list[tuple[int, int]], places: list[int]
    ) -> None:
        coded = bytearray(encode(coding, ORDERS))
        for place, bit in flips:
            coded[place % min(len(coded), 64)] ^= 1 << bit
        tolerated(coding, cut(bytes(coded), places), 65536)

    @lasting
    @given(head=st.integers(0, 30), tail=st.binary(max_size=200))
    def test_a_good_head_with_a_bad_tail(self, coding: Coding, head: int, tail: bytes) -> None:
        tolerated(coding, [encode(coding, ORDERS)[:head], tail], 65536)

    def test_stays_bad(self, coding: Coding) -> None:
        """Each further call raises the same exception."""
        decoder = decoder_of(coding)
        for _ in range(3):
            with pytest.raises(MalformedBody):
                drain(decoder, [b"\xff" * 64])


def tolerated(coding: Coding, parts: Sequence[bytes], at_most: int) -> None:
    """Any result but another exception or an endless loop."""
    decoder = decoder_of(coding)
    plain = 0
    try:
        for part in parts:
            data = part
            while True:
                plain += len(bounded(decoder.decode(data, at_most), at_most))
                data = b""
                if not decoder.has_pending_output or plain > 1 << 20:
                    break
    except MalformedBody as error:
        assert str(error)  # noqa: PT017 - it may come or not


# What is installed --------------------------------------------------------------------------------


class TestMissing:
    @pytest.mark.parametrize(
        ("module", "missing"), [("zstd", Coding.ZSTD), ("brotli", Coding.BROTLI)]
    )
    def test_is_not_offered(
        self, module: str, missing: Coding, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(libraries, module, None)
        rest = [coding for coding in Coding if coding is not missing]
        assert list(codecs.make_codecs(list(Coding), {})) == rest
        assert list(codecs.make_codecs(list(Coding), {missing: 3})) == rest
        assert list(decoders.find_decoder_factories(list(Coding))) == rest
        assert codecs.make_codecs([missing], {}) == {}

    def test_isal_is_made_up_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(libraries, "isal", None)
        codec = make("gzip-isal")
        assert (
            decode("gzip", codec.compress(ORDERS, codec.level_policy.choose_level(len(ORDERS))))
            == ORDERS
        )
        assert codec.compress(ORDERS, 9) == make("gzip-zlib").compress(ORDERS, 9)

    def test_zstd_has_no_dictionaries(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(libraries, "zstd", None)
        assert codecs.make_zstd_codec_with_dictionary(b"dictionary") is None

    def test_a_brotli_without_output_limit_is_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        old = SimpleNamespace(Decompressor=SimpleNamespace(process=None))
        import_brotli: Callable[[], Any] = libraries._import_brotli
        monkeypatch.setattr(libraries, "_import_if_installed", lambda module: old)
        assert import_brotli() is None
        monkeypatch.setattr(libraries, "_import_if_installed", lambda module: None)
        assert import_brotli() is None

    @pytest.mark.parametrize(
        "error",
        [
            ImportError("no libzstd", name="_zstd"),
            ModuleNotFoundError("No module named '_zstd'", name="_zstd"),
        ],
    )
    def test_a_python_that_was_built_without_zstd_has_none(
        self, error: ImportError, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """From 3.14 on the module can be imported, but its C extension may be missing."""

        def import_module(name: str) -> Any:
            assert name == "compression.zstd"
            raise error

        monkeypatch.setattr(libraries, "sys", SimpleNamespace(version_info=(3, 14, 0)))
        monkeypatch.setattr(_extras, "importlib", SimpleNamespace(import_module=import_module))
        import_zstd: Callable[[], Any] = libraries._import_zstd
        assert import_zstd() is None

    def test_what_is_asked_for_keeps_its_order(self) -> None:
        order = list(Coding)
        random.Random(1).shuffle(order)
        assert list(codecs.make_codecs(order, {})) == order
        assert list(decoders.find_decoder_factories(order)) == order
