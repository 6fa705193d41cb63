"""What another site is, and the size of the padding."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.compression._breach import BreachGuard
from hasten.errors import InvalidOption

COOKIE = {"cookie": "session=1", "host": "example.org"}
CROSS = {**COOKIE, "sec-fetch-site": "cross-site"}
SAME_SITE = {**COOKIE, "sec-fetch-site": "same-site"}
VISIT = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document", "sec-fetch-user": "?1"}
TRUSTING = BreachGuard(
    trusted_origins=("https://app.example", "HTTP://Localhost:3000", "http://[::1]:5")
)


def is_foreign(headers: dict[str, str], guard: BreachGuard | None = None) -> bool:
    encoded = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
    return (guard or BreachGuard())._forbids_compression(encoded)


class TestFetchMetadata:
    @pytest.mark.parametrize(
        ("site", "foreign", "foreign_if_strict"),
        [
            ("same-origin", False, False),
            ("none", False, False),
            ("same-site", False, True),
            ("cross-site", True, True),
            ("something-new", False, False),
        ],
    )
    def test_site_is_identified(self, site: str, *, foreign: bool, foreign_if_strict: bool) -> None:
        headers = {**COOKIE, "sec-fetch-site": site}
        assert is_foreign(headers) is foreign
        assert is_foreign(headers, BreachGuard(same_site=True)) is foreign_if_strict

    @pytest.mark.parametrize("headers", [CROSS, {**COOKIE, "origin": "https://evil.example"}])
    def test_a_request_without_cookies_is_not_foreign(self, headers: dict[str, str]) -> None:
        assert is_foreign(headers)
        assert not is_foreign({name: v for name, v in headers.items() if name != "cookie"})

    @pytest.mark.parametrize(
        ("authorization", "foreign"),
        [
            ("Basic YWxpY2U6c2VjcmV0", True),
            ("basic YWxpY2U6c2VjcmV0", True),
            ("Digest username=alice", True),
            ("Negotiate YII", True),
            ("NTLM TlR", True),
            ("Bearer abc", False),
            ("Basically abc", False),
            ("", False),
        ],
    )
    def test_a_browser_password_can_be_foreign(self, authorization: str, *, foreign: bool) -> None:
        """A page must be allowed to add a bearer token."""
        cross = {"authorization": authorization, "sec-fetch-site": "cross-site"}
        assert is_foreign(cross) is foreign
        assert not is_foreign({**cross, "sec-fetch-site": "same-origin"})

    def test_sec_fetch_site_overrides_origin(self) -> None:
        same = {**COOKIE, "sec-fetch-site": "same-origin", "origin": "https://evil.example"}
        assert not is_foreign(same)
        assert is_foreign({**CROSS, "origin": "https://example.org"})

    @pytest.mark.parametrize("site", [CROSS, SAME_SITE])
    def test_a_navigation_by_the_user_is_not_foreign(self, site: dict[str, str]) -> None:
        guard = BreachGuard(same_site=True)
        assert not is_foreign({**site, **VISIT}, guard)
        for name in VISIT:
            for other in ({}, {name: "else"}):
                rest = {key: value for key, value in VISIT.items() if key != name}
                assert is_foreign({**site, **rest, **other}, guard)


class TestOldBrowsers:
    @pytest.mark.parametrize("header", ["origin", "referer"])
    @pytest.mark.parametrize(
        ("url", "host", "foreign"),
        [
            ("https://example.org", "example.org", False),
            ("https://example.org", "EXAMPLE.ORG", False),
            ("https://Example.org:8443", "example.org", False),
            ("http://example.org", "example.org:8000", False),
            ("https://example.org:8443", "example.org:443", False),
            ("https://www.example.org", "example.org", True),
            ("https://example.org.evil.example", "example.org", True),
            ("https://evil.example", "example.org", True),
            ("https://example.org@evil.example", "example.org", True),
            ("null", "example.org", True),
            ("about:blank", "example.org", True),
            ("example.org", "example.org", True),  # not a URL
            ("https://[", "example.org", True),
            ("https://example.org]", "example.org", True),
            ("http://[::1]:3000", "[::1]:8000", False),
            ("http://[::1]", "[::1]", False),
            ("http://[::2]", "[::1]", True),
            ("http://127.0.0.1:1", "127.0.0.1:2", False),
            ("https://evil.example", "", True),
            ("https://evil.example", "[", True),
        ],
    )
    def test_is_known_by_its_host(self, header: str, url: str, host: str, *, foreign: bool) -> None:
        assert is_foreign({**COOKIE, "host": host, header: url}) is foreign

    def test_a_referer_may_have_a_path(self) -> None:
        assert not is_foreign({**COOKIE, "referer": "https://example.org/a?b=https://evil.example"})
        assert is_foreign({**COOKIE, "referer": "https://evil.example/example.org"})

    def test_origin_overrides_referer(self) -> None:
        assert is_foreign(
            {**COOKIE, "origin": "https://evil.example", "referer": "https://example.org/"}
        )

    def test_a_request_without_a_source_is_not_foreign(self) -> None:
        assert not is_foreign(COOKIE)


class TestTrustedOrigins:
    @pytest.mark.parametrize("base", [COOKIE, CROSS])
    @pytest.mark.parametrize(
        ("url", "trusted"),
        [
            ("https://app.example", True),
            ("https://APP.example", True),
            ("http://app.example", False),  # anybody on the network may be that proxy
            ("https://app.example:8443", False),
            ("https://app.example.evil.example", False),
            ("https://evil.app.example", False),
            ("http://localhost:3000", True),
            ("http://localhost", False),
            ("http://[::1]:5", True),
            ("http://[::1]:6", False),
            ("null", False),
            ("", False),
        ],
    )
    def test_is_compared_as_a_whole(self, base: dict[str, str], url: str, *, trusted: bool) -> None:
        headers = {**base, "origin": url, "host": "example.org"}
        if base is COOKIE and not url:
            return  # no header, so not foreign (see above)
        assert is_foreign(headers, TRUSTING) is not trusted

    @pytest.mark.parametrize(
        ("origin", "trusted"),
        [
            ("https://a.org:443", "https://a.org"),
            ("https://a.org", "https://a.org:443"),
            ("http://a.org:80", "http://a.org"),
        ],
    )
    def test_a_trusted_origin_may_have_the_default_port(self, origin: str, trusted: str) -> None:
        headers = {**CROSS, "origin": trusted}
        assert not is_foreign(headers, BreachGuard(trusted_origins=[origin]))
        assert is_foreign(headers)
        assert is_foreign(headers, BreachGuard(trusted_origins=["https://a.org:8443"]))

    def test_a_trusted_origin_may_come_from_the_referer(self) -> None:
        assert not is_foreign({**CROSS, "referer": "https://app.example/page?x"}, TRUSTING)
        assert is_foreign({**CROSS, "referer": "https://evil.example/page"}, TRUSTING)

    @pytest.mark.parametrize(
        "origin",
        [
            "", "app.example", "//app.example", "https://", "https://app.example/",
            "https://app.example/page", "https://app.example?x", "null", "*", "https://[",
        ],
    )  # fmt: skip
    def test_a_trusted_origin_must_be_an_origin(self, origin: str) -> None:
        with pytest.raises(InvalidOption) as caught:
            BreachGuard(trusted_origins=(origin,))
        assert caught.value.option == "trusted_origins"
        assert caught.value.value == origin

    @pytest.mark.parametrize("value", ["no", 1, None])
    def test_same_site_is_a_flag(self, value: bool) -> None:
        with pytest.raises(InvalidOption) as caught:
            BreachGuard(same_site=value)
        assert (caught.value.option, caught.value.value) == ("same_site", value)

    def test_a_single_text_is_not_a_list_of_origins(self) -> None:
        with pytest.raises(InvalidOption) as caught:
            BreachGuard(trusted_origins="https://app.example")
        assert caught.value.option == "trusted_origins"


@given(
    st.dictionaries(
        st.sampled_from([b"origin", b"referer", b"host", b"sec-fetch-site"]),
        st.binary(max_size=40)
        | st.text("https://[]:@example.org0123%", max_size=40).map(str.encode),
    )
)
def test_any_headers_are_accepted(headers: dict[bytes, bytes]) -> None:
    for guard in (BreachGuard(), TRUSTING, BreachGuard(same_site=True)):
        assert guard._forbids_compression({b"cookie": b"a=b", **headers}) in {True, False}
        assert not guard._forbids_compression(headers)
