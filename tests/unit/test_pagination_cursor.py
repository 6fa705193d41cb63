"""A token is read as the cursor that it was made from, or it is rejected."""

from __future__ import annotations

import base64
import hmac
import math
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hasten.errors import InvalidOption, InvalidParameter
from hasten.pagination._cursor import MAX_CHARS, Cursor, SigningKeys, compute_fingerprint

SECRET = b"0f1e2d3c4b5a6978"
KEYS = SigningKeys(SECRET)
QUERY = compute_fingerprint("posts", "-created_at,id")
CURSOR = Cursor((datetime(2026, 1, 2, 3, 4, 5, 678901, UTC), None, 42, "Zoë"), backwards=True)
TOKEN = KEYS.sign(CURSOR, QUERY)

# With seconds, as in PostgreSQL. Python 3.11 reads an offset of a microsecond as zero.
OFFSETS = st.integers(-86399, 86399).map(lambda value: timezone(timedelta(seconds=value)))
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(10**300), max_value=10**300),
    st.text(max_size=50),
    st.floats(allow_nan=False),
    st.binary(max_size=50),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.dates(),
    # Databases have no fold.
    st.times(timezones=st.none() | OFFSETS).map(lambda value: value.replace(fold=0)),
    st.datetimes(timezones=st.none() | OFFSETS).map(lambda value: value.replace(fold=0)),
    st.timedeltas(),
)


class Colour(Enum):
    RED = "red"


class Rank(IntEnum):
    HIGH = 3


class Word(StrEnum):
    YES = "yes"


def refusal(token: str, query: bytes = QUERY, keys: SigningKeys = KEYS) -> InvalidParameter:
    with pytest.raises(InvalidParameter) as info:
        keys.verify(token, query)
    assert info.value.status == 400
    assert info.value.parameter == "cursor"
    return info.value


def raw(token: str) -> bytes:
    return base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))


def text(token: bytes) -> str:
    return base64.urlsafe_b64encode(token).rstrip(b"=").decode()


def signed(body: bytes) -> str:
    """Return a token with a valid signature."""
    mac = hmac.digest(SECRET, b"hasten.pagination.cursor\0" + body, "sha256")
    return text(body + mac[:16])


class TestRoundTrip:
    @given(st.lists(SCALARS, max_size=4), st.booleans())
    def test_any_values_come_back_unchanged(self, values: list[object], backwards: bool) -> None:
        cursor = Cursor(tuple(values), backwards)
        twin = KEYS.verify(KEYS.sign(cursor, QUERY), QUERY)
        assert twin == cursor
        assert [type(value) for value in twin.values] == [type(value) for value in values]
        assert list(map(repr, twin.values)) == list(map(repr, values))

    @pytest.mark.parametrize(
        "value",
        [True, False, 0, 1, -1, 127, 128, -128, -129, 2**63, -(2**63) - 1, 10**400, 0.0, -0.0],
    )
    def test_numbers_at_the_edges_of_their_types_come_back_unchanged(self, value: object) -> None:
        [twin] = KEYS.verify(KEYS.sign(Cursor((value,)), QUERY), QUERY).values
        assert (type(twin), repr(twin)) == (type(value), repr(value))

    @pytest.mark.parametrize(
        "value",
        [
            "",
            "\0",
            "Ünï-код-漢字-🦊",
            "\udc80",
            b"",
            b"\0\xff",
            Decimal("1.10"),
            Decimal("-0E-20"),
            Decimal("Infinity"),
            UUID(int=7),
            date.min,
            date.max,
            datetime(2026, 3, 1, 12, 0, 0, 1, UTC),
            datetime(2026, 3, 1, 12, 0, 0, 1, timezone(timedelta(hours=5, minutes=45, seconds=3))),
            datetime(9999, 12, 31, 23, 59, 59, 999999),  # noqa: DTZ001 (columns have none)
            time(23, 59, 59, 999999),
            timedelta.min,
            timedelta.max,
            timedelta(days=-1, microseconds=1),
        ],
    )
    def test_values_of_every_type_come_back_unchanged(self, value: object) -> None:
        [twin] = KEYS.verify(KEYS.sign(Cursor((value,)), QUERY), QUERY).values
        assert (type(twin), repr(twin)) == (type(value), repr(value))

    @pytest.mark.parametrize("member", [Colour.RED, Rank.HIGH, Word.YES])
    def test_an_enum_member_comes_back_as_its_value(self, member: Enum) -> None:
        [twin] = KEYS.verify(KEYS.sign(Cursor((member,)), QUERY), QUERY).values
        assert (type(twin), twin) == (type(member.value), member.value)

    def test_nan_and_infinity_come_back_unchanged(self) -> None:
        values = KEYS.verify(KEYS.sign(Cursor((math.nan, math.inf)), QUERY), QUERY).values
        assert list(map(str, values)) == ["nan", "inf"]

    def test_a_token_needs_no_quoting(self) -> None:
        for size in range(40):
            token = KEYS.sign(Cursor((b"\xfb\xff" * size,)), QUERY)
            assert set(token) <= set("-_") | set(map(chr, range(128))) - set("+/=% ")

    def test_a_token_is_short(self) -> None:
        """Each response has up to two in URLs."""
        assert len(KEYS.sign(Cursor((datetime(2026, 1, 2, tzinfo=UTC), 10**9)), QUERY)) < 100


class TestWhatIsNotOurs:
    @pytest.mark.parametrize(
        "token",
        ["", "x", "%%%", "é", "\udc80", "null", "=", "a" * 2048, text(b"junk"), text(b"\1" * 100)],
    )
    def test_junk_is_refused(self, token: str) -> None:
        assert refusal(token).code == "invalid_cursor"

    @given(st.text(max_size=200) | st.binary(max_size=200).map(text))
    def test_random_junk_is_refused(self, token: str) -> None:
        assert refusal(token).code == "invalid_cursor"

    @given(st.integers(0, len(TOKEN) - 1), st.characters())
    def test_a_changed_character_is_refused(self, at: int, character: str) -> None:
        token = TOKEN[:at] + character + TOKEN[at + 1 :]
        if token != TOKEN:
            assert refusal(token).code == "invalid_cursor"

    def test_a_flipped_bit_is_refused(self) -> None:
        whole = raw(TOKEN)
        for bit in range(len(whole) * 8):
            changed = bytearray(whole)
            changed[bit // 8] ^= 1 << bit % 8
            assert refusal(text(bytes(changed))).code == "invalid_cursor"

    def test_a_truncated_token_is_refused(self) -> None:
        for size in range(len(TOKEN)):
            assert refusal(TOKEN[:size]).code == "invalid_cursor"

    @given(st.text(min_size=1, max_size=20))
    def test_a_token_with_text_before_or_after_it_is_refused(self, more: str) -> None:
        assert refusal(TOKEN + more).code == "invalid_cursor"
        assert refusal(more + TOKEN).code == "invalid_cursor"

    def test_a_position_has_exactly_one_token(self) -> None:
        """Base64 decoders accept padding, the other alphabet and unused bits. Tokens have none."""
        token = next(
            made for n in range(3) if len(made := KEYS.sign(Cursor((b"x" * n,)), QUERY)) % 4 == 2
        )
        last = chr(ord(token[-1]) + 1)
        assert raw(token) == raw(token[:-1] + last)
        refusal(token[:-1] + last)
        refusal(token + "==")
        refusal(token + "\n")

    @pytest.mark.parametrize(
        "forged", ["42", "not a date", "\0", 10**26, None, Decimal("NaN")], ids=repr
    )
    def test_a_value_signed_with_another_secret_is_refused(self, forged: object) -> None:
        """Such values have caused errors in databases of other libraries."""
        stranger = SigningKeys(b"another secret, of a stranger")
        assert refusal(stranger.sign(Cursor((forged,)), QUERY)).code == "invalid_cursor"

    @pytest.mark.parametrize(
        "values",
        [b"x", b"x\0", b"f\1a", b"m\1a", b"d\3abc", b"u\1a", b"D\1x", b"s\1\xff", b"i\xff", b"t\0"],
        ids=repr,
    )
    def test_a_damaged_value_under_our_signature_is_refused(self, values: bytes) -> None:
        assert refusal(signed(b"\1\0" + QUERY + values)).code == "invalid_cursor"

    @given(st.binary(max_size=60))
    def test_no_signed_bytes_raise_another_error(self, values: bytes) -> None:
        token = signed(b"\1\0" + QUERY + values)
        try:
            KEYS.verify(token, QUERY)
        except InvalidParameter:
            assert refusal(token).code == "invalid_cursor"

    def test_an_error_contains_no_part_of_the_token(self) -> None:
        error = refusal("secret-looking-token")
        assert error.value is None
        assert "secret-looking" not in str(error)


class TestWhatItBelongsTo:
    def test_a_cursor_of_another_sort_is_refused(self) -> None:
        error = refusal(TOKEN, compute_fingerprint("posts", "title,id"))
        assert error.code == "cursor_mismatch"
        assert str(error) == (
            "cursor: it belongs to another query: a cursor is only valid with the sort and the "
            "filters of the response that it comes from; omit it to start from the first page"
        )

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (("posts", ["ab", "c"]), ("posts", ["a", "bc"])),
            (("posts", 1), ("posts", "1")),
            (("posts", 1), ("posts", True)),
            (("posts", None), ("posts", "")),
            ((["a"], "b"), (["a", "b"],)),
            (([],), ([[]],)),
        ],
    )
    def test_a_cursor_of_another_filter_is_refused(
        self, one: tuple[object, ...], other: tuple[object, ...]
    ) -> None:
        token = KEYS.sign(CURSOR, compute_fingerprint(*one))
        assert KEYS.verify(token, compute_fingerprint(*one)) == CURSOR
        assert refusal(token, compute_fingerprint(*other)).code == "cursor_mismatch"

    def test_a_token_can_be_read_before_its_query_is_known(self) -> None:
        """So a request can be refused before its statement is built."""
        cursor = KEYS.decode_and_verify_signature(TOKEN)
        assert cursor == CURSOR
        cursor.check(QUERY)
        with pytest.raises(InvalidParameter):
            cursor.check(compute_fingerprint("users"))

    def test_a_new_cursor_belongs_to_no_query(self) -> None:
        with pytest.raises(InvalidParameter):
            CURSOR.check(QUERY)


class TestAges:
    def test_a_cursor_of_another_version_has_expired(self) -> None:
        error = refusal(signed(b"\2" + b"whatever it holds, it is ours"))
        assert error.code == "cursor_expired"

    def test_an_unsigned_cursor_of_another_version_is_invalid(self) -> None:
        assert refusal(text(b"\2" + b"x" * 60)).code == "invalid_cursor"

    def test_secrets_can_be_rotated(self) -> None:
        """The first secret signs, and each verifies. Tokens of a removed one are refused."""
        old, new = "the old secret, long enough", "the new secret, long enough"
        both = SigningKeys([new, old])
        assert both.verify(SigningKeys(old).sign(CURSOR, QUERY), QUERY) == CURSOR
        assert both.sign(CURSOR, QUERY) == SigningKeys(new).sign(CURSOR, QUERY)
        assert (
            refusal(SigningKeys(old).sign(CURSOR, QUERY), keys=SigningKeys(new)).code
            == "invalid_cursor"
        )

    def test_a_token_of_an_earlier_release_is_still_valid(self) -> None:
        """Clients keep tokens across deployments, so no renamed module may invalidate them."""
        token = "AQEkNaZaawDNeSTIToV9-Qa2aQEHcwF407VwQd5a8XotEwiThYAQ8A"
        assert KEYS.verify(token, compute_fingerprint("posts")) == Cursor((7, "x"), backwards=True)


class TestSize:
    def test_a_long_token_is_refused_undecoded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delattr("hasten.pagination._cursor._from_base64")
        assert str(refusal("a" * (MAX_CHARS + 1))).startswith("cursor: it has more than 2048 char")

    def test_a_token_that_would_be_refused_is_never_made(self) -> None:
        longest = (MAX_CHARS * 3 // 4) - 18 - 16 - 3
        cursor = Cursor(("x" * longest,))
        assert KEYS.verify(KEYS.sign(cursor, QUERY), QUERY) == cursor
        with pytest.raises(InvalidOption, match=r"sort='a cursor of .*: must be at most 2,048"):
            KEYS.sign(Cursor(("x" * (longest + 1),)), QUERY)

    def test_a_value_that_it_cannot_hold_is_named(self) -> None:
        with pytest.raises(
            InvalidOption,
            match=r"sort='a field whose values have the type dict': .* sort by another",
        ):
            KEYS.sign(Cursor(({},)), QUERY)

    def test_a_fingerprint_has_one_length(self) -> None:
        with pytest.raises(ValueError, match="must be 16"):
            KEYS.sign(CURSOR, b"short")


class TestSecrets:
    @pytest.mark.parametrize("secret", ["", "short", b"x" * 15, ["long enough, this one", "not"]])
    def test_a_short_secret_is_refused(self, secret: str | bytes | list[str]) -> None:
        with pytest.raises(InvalidOption, match="at least 16 random bytes") as info:
            SigningKeys(secret)
        assert "short" not in str(info.value)

    @pytest.mark.parametrize(
        "secret",
        [
            b"x" * 40, "secretsecretsecret", "0123456789abcdef", "abcdefghijklmnop",
            "ChangeMe, please, soon", "change-this-in-production", "aaaabbbbccccdddd",
            bytes(range(32)),
        ],
    )  # fmt: skip
    def test_a_secret_that_can_be_guessed_is_refused(self, secret: str | bytes) -> None:
        with pytest.raises(InvalidOption, match="is easy to guess") as caught:
            SigningKeys(secret)
        assert str(secret) not in str(caught.value)

    @given(st.binary(min_size=16, max_size=16).map(bytes.hex) | st.uuids().map(str))
    def test_random_secrets_are_accepted(self, secret: str) -> None:
        assume(len(set(secret)) > 8)  # nearly all random ones pass
        SigningKeys(secret)

    @pytest.mark.parametrize("secret", [[], None, [None]])
    def test_a_missing_secret_is_refused(self, secret: list[str]) -> None:
        with pytest.raises(InvalidOption, match="at least 16 random bytes"):
            SigningKeys(secret)

    def test_the_secret_is_not_shown(self) -> None:
        assert "0123" not in repr(KEYS)
        assert not hasattr(KEYS, "__dict__")
