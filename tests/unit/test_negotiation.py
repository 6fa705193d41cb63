"""Accept-Encoding becomes an order of codings, whatever is sent. RFC 9110, section 12.5.3."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten._asgi import join_header_values
from hasten.compression._negotiation import (
    MAX_HEADER_BYTES,
    Coding,
    choose_codings,
    make_cached_chooser,
    normalize_coding,
)

OFFER = (Coding.ZSTD, Coding.BROTLI, Coding.GZIP)
NAMES = ["zstd", "br", "gzip", "x-gzip", "deflate", "identity", "*", "compress"]
QVALUES = {"0": 0, "0.": 0, "0.000": 0, "0.001": 1, "0.05": 50, "0.5": 500, "0.999": 999, "1": 1000}
INVALID = ["", "abc", "1.5", "-1", "1.0001", "0.1234", "1e0", "+1", ".5", "½", "nan", "0 .5", "0_1"]

members = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from([None, *QVALUES])), max_size=8)


def written(wanted: list[tuple[str, str | None]]) -> str:
    return ",".join(name if q is None else f"{name};q={q}" for name, q in wanted)


def weight(wanted: list[tuple[str, str | None]], coding: str) -> int | None:
    """Return the weight of a coding as the RFC defines it, or None."""
    for name in (coding, "*"):
        said = [
            1000 if q is None else QVALUES[q]
            for member, q in wanted
            if member == name or (name == "gzip" and member == "x-gzip")
        ]
        if said:
            return min(said)
    return None


class TestChoose:
    @pytest.mark.parametrize(
        ("header", "codings"),
        [
            (None, ""),
            ("", ""),
            (" ", ""),
            ("gzip", "gzip"),
            ("GZIP", "gzip"),
            ("x-gzip", "gzip"),
            ("gzip, x-gzip;q=0", ""),
            ("gzip, deflate, br, zstd", "zstd br gzip"),
            ("gzip;q=1, br;q=0.5, zstd;q=0.1", "gzip br zstd"),
            ("*", "zstd br gzip"),
            ("*;q=0", ""),
            ("*;q=0, br", "br"),
            ("zstd;q=0, *", "br gzip"),
            ("gzip, *;q=0.5", "gzip zstd br"),
            ("identity", ""),
            ("identity;q=0", ""),
            ("identity;q=0.5, gzip;q=0.4, br;q=0.6", "br"),
            ("identity;q=0.5, gzip;q=0.5", "gzip"),
            ("identity, *;q=0.9", ""),
            ("*;q=0.5, gzip;q=0.3", "zstd br"),  # * includes identity
            ("gzip;level=9", "gzip"),
            ("gzip;level=9;q=0", ""),
            ("gzip;q=0;q=1", ""),
            ("gzip;Q=0", ""),
            ("gzip \t; \tq=0.5", "gzip"),
            ("gzipp, agzip, gzip2", ""),
            ("gzip;q", ""),
            (",,;;,=,gzip,,", "gzip"),
            ("gzip;q=0.001", "gzip"),
        ],
    )
    def test_codings_are_ordered_by_weight(self, header: str | None, codings: str) -> None:
        assert " ".join(choose_codings(header, OFFER).codings) == codings

    @pytest.mark.parametrize(
        ("header", "refuses", "refuses_codings_and_identity"),
        [
            ("gzip", False, False),
            ("identity;q=0", True, True),
            ("identity;q=0, gzip", True, False),
            ("*;q=0", True, True),
            ("*;q=0, identity", False, False),
            ("*;q=0, identity;q=0.001", False, False),
            ("*;q=0, br", True, False),
            ("compress", False, False),
            ("identity;q=nonsense", True, True),
        ],
    )
    def test_refusing_identity(
        self, header: str, *, refuses: bool, refuses_codings_and_identity: bool
    ) -> None:
        wishes = choose_codings(header, OFFER)
        assert wishes.refuses_identity is refuses
        assert wishes.refuses_codings_and_identity is refuses_codings_and_identity

    @pytest.mark.parametrize("offer", [OFFER, OFFER[::-1], (Coding.GZIP,), ()])
    def test_the_offer_decides_between_equal_weights(self, offer: tuple[Coding, ...]) -> None:
        assert choose_codings("br, gzip, zstd", offer).codings == offer
        assert choose_codings("*;q=0.1", offer).codings == offer

    def test_a_long_header_is_ignored(self) -> None:
        long = "gzip," * (MAX_HEADER_BYTES // 5) + "gzip"
        assert choose_codings(long[:MAX_HEADER_BYTES], OFFER).codings == (Coding.GZIP,)
        assert choose_codings(long + "," * 9, OFFER).codings == ()

    @given(st.text(max_size=300) | st.text("gzipbr*;q=01., \t", max_size=300))
    def test_never_raises(self, header: str) -> None:
        wishes = choose_codings(header, OFFER)
        assert len(set(wishes.codings)) == len(wishes.codings)
        assert set(wishes.codings) <= set(OFFER)

    @given(st.binary(max_size=300))
    def test_never_raises_for_any_bytes(self, header: bytes) -> None:
        assert make_cached_chooser(OFFER)(header) == choose_codings(header.decode("latin-1"), OFFER)

    @given(members)
    def test_choices_are_accepted_and_preferred(self, wanted: list[tuple[str, str | None]]) -> None:
        least = max(weight(wanted, "identity") or 0, 1)
        chosen = choose_codings(written(wanted), OFFER).codings
        assert set(chosen) == {coding for coding in OFFER if (weight(wanted, coding) or 0) >= least}
        weights = [weight(wanted, coding) or 0 for coding in chosen]
        assert weights == sorted(weights, reverse=True)

    @given(members, st.sampled_from(OFFER), st.data())
    def test_a_refused_coding_is_not_chosen(
        self, wanted: list[tuple[str, str | None]], coding: Coding, data: st.DataObject
    ) -> None:
        """Wherever it is in the header, and whatever other weights it has."""
        place = data.draw(st.integers(0, len(wanted)))
        zero = data.draw(st.sampled_from(["0", "0.", "0.0", "0.00", "0.000", *INVALID]))
        header = written([*wanted[:place], (coding, zero), *wanted[place:]])
        assert coding not in choose_codings(header, OFFER).codings

    @given(members, st.data())
    def test_case_spaces_and_lines_do_not_matter(
        self, wanted: list[tuple[str, str | None]], data: st.DataObject
    ) -> None:
        space = st.text(" \t", max_size=3)

        def disguised(text: str) -> str:
            cased = "".join(data.draw(st.sampled_from([c.lower(), c.upper()])) for c in text)
            return data.draw(space) + cased + data.draw(space)

        parts = [
            ";".join(disguised(part) for part in member.split(";"))
            for member in written(wanted).split(",")
        ]
        cut = data.draw(st.integers(0, len(parts)))
        lines = [
            (data.draw(st.sampled_from([b"accept-encoding", b"Accept-Encoding"])), line.encode())
            for line in (",".join(parts[:cut]), ",".join(parts[cut:]))
        ]
        combined = join_header_values(lines, b"accept-encoding")
        assert combined is not None
        assert choose_codings(combined.decode(), OFFER) == choose_codings(
            written(wanted) or ",", OFFER
        )


@pytest.mark.parametrize(
    ("written", "name"), [(" GZip\t", "gzip"), ("x-gzip", "gzip"), ("X-GZIP", "gzip"), ("", "")]
)
def test_a_coding_has_one_name(written: str, name: str) -> None:
    assert normalize_coding(written) == name
