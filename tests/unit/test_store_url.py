"""URLs of Redis: their options, and how they are shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten import Store
from hasten._store_url import RedisAddress, ServerKind, parse_store_url, without_password
from hasten.errors import InvalidOption

# Characters that need no escape. Others are written as %40 etc.
_unreserved = st.text(st.characters(blacklist_characters="@/?#&"))


def server_of(url: str) -> RedisAddress:
    found = parse_store_url(url).location
    assert isinstance(found, RedisAddress)
    return found


class TestParts:
    def test_one_server(self) -> None:
        address = server_of("redis://ada:p%40ss@db.example.org:7000/3?timeout=1.5&wait=20")
        assert (address.kind, address.nodes) == (ServerKind.SINGLE, (("db.example.org", 7000),))
        assert (address.username, address.password, address.db) == ("ada", "p@ss", 3)
        assert (address.timeout, address.wait, address.tls) == (1.5, 20.0, None)

    @pytest.mark.parametrize("url", ["redis://", "redis://localhost", "redis://localhost:6379/0"])
    def test_defaults(self, url: str) -> None:
        address = server_of(url)
        assert (address.nodes, address.db) == ((("localhost", 6379),), 0)
        assert (address.username, address.password) == (None, None)

    def test_an_ipv6_address(self) -> None:
        assert server_of("redis://[::1]:7000").nodes == (("::1", 7000),)
        assert server_of("redis://[::1]").nodes == (("::1", 6379),)

    def test_sentinels(self) -> None:
        address = server_of("redis+sentinel://:pw@a,b:26380/main/2?sentinel_password=other")
        assert (address.kind, address.service, address.db) == (ServerKind.SENTINEL, "main", 2)
        assert address.nodes == (("a", 26379), ("b", 26380))
        assert (address.password, address.sentinel_password) == ("pw", "other")

    def test_a_cluster(self) -> None:
        address = server_of("redis+cluster://a:1,b:2")
        assert (address.kind, address.nodes) == (ServerKind.CLUSTER, (("a", 1), ("b", 2)))

    def test_a_unix_socket(self) -> None:
        address = server_of("unix://ada:pw@/run/redis.sock?db=2")
        assert (address.path, address.db, address.nodes) == ("/run/redis.sock", 2, ())
        assert (address.username, address.password) == ("ada", "pw")

    def test_tls(self, tmp_path: Path) -> None:
        certificate = tmp_path / "ca.pem"
        certificate.touch()
        address = server_of(f"rediss://a?ssl_ca_certs={certificate}")
        assert address.tls == {"ssl_ca_certs": str(certificate), "ssl_check_hostname": True}
        address = server_of("rediss+cluster://a?ssl_cert_reqs=none")
        assert address.tls == {"ssl_cert_reqs": "none", "ssl_check_hostname": False}

    def test_a_prefix(self) -> None:
        assert parse_store_url("redis://a?prefix=shop").prefix == "shop"


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("redis:localhost", "must be redis://"),
        ("redis://a:port", "must be redis://"),
        ("redis://a:99999", "must be redis://"),
        ("redis://a/first", "must be redis://"),
        ("redis://a/0/1", "must be redis://"),
        ("redis+cluster://a/1", "database 0: a cluster has no other database"),
        ("redis+sentinel://a", "with the service name"),
        ("unix://run/redis.sock", "must be unix:///path/of/socket"),
        ("redis://a?colour=red", "must be a URL with no options other than"),
        (
            "redis://a?timeout=soon",
            "timeout='soon': must be a number of at least 0.001, below 1,000,000",
        ),
        (
            "redis://a?timeout=1e6",
            "timeout='1e6': must be a number of at least 0.001, below 1,000,000",
        ),
        ("redis://a?wait=-1", "wait='-1': must be a number of at least 0, below 1,000,000"),
        (
            "redis://a?connections=1",
            "connections='1': must be a number of at least 2, below 1,000,000",
        ),
        (
            "rediss://a?ssl_ca_certs=/no/such",
            "ssl_ca_certs='/no/such': must be the path of an existing file",
        ),
        ("rediss://a?ssl_cert_reqs=maybe", "must be 'required' or 'none'"),
    ],
)
def test_an_invalid_url_is_named_without_its_password(url: str, complaint: str) -> None:
    secret = url.replace("://", "://ada:hunter2@") if "://a" in url else url
    with pytest.raises(InvalidOption) as caught:
        server_of(secret)
    assert complaint in str(caught.value)
    assert "hunter2" not in str(caught.value)


class TestShown:
    def test_everything_but_secrets_is_shown(self) -> None:
        shown = server_of("redis://ada:pw@a/1?wait=5&prefix={x}").shown
        assert shown == "redis://ada@a/1?prefix={x}&wait=5"
        shown = server_of("redis+sentinel://:pw@a/main?sentinel_password=pw2").shown
        assert shown == "redis+sentinel://a/main"

    def test_equivalent_urls_are_shown_alike(self) -> None:
        assert (
            server_of("redis://a?wait=1&timeout=2").shown
            == server_of("redis://a/?timeout=2&wait=1").shown
        )

    @given(_unreserved, st.text())
    def test_the_password_is_never_shown(self, user: str, password: str) -> None:
        """Not even that of an invalid URL."""
        assert "SECRET" not in without_password(f"redis://{user}:SECRET{password}@host/0")

    @pytest.mark.parametrize("open_", [parse_store_url, Store])
    @pytest.mark.parametrize(
        "url",
        [
            "redis://ada:SECRET?1@host:6379/0", "redis://ada:1?SECRET@host/0",
            "redis://:1?SECRET@host/0?timeout=1", "redis://:6379?timeout=SECRET@host",
            "redis://:6379?SECRET&x=y@host", "redis://ada:p@1?SECRET@host",
            "unix://ada:1?SECRET@/run/redis.sock", "redis:ada:SECRET@host", "ada:SECRET@host",
            "postgres://ada:1?SECRET@host/x", "redis://host?sentinel%5fpassword=SECRET&colour=red",
            "redis://host?Password=SECRET", "sqlite://ada:SECRET@host/jobs.db",
        ],
    )  # fmt: skip
    def test_a_password_with_characters_of_urls_is_never_shown(
        self, open_: Callable[[str], object], url: str
    ) -> None:
        """Such characters have to be escaped, as in %3F, and the error says so."""
        with pytest.raises(InvalidOption) as caught:
            open_(url)
        assert "SECRET" not in str(caught.value)
        assert "SECRET" not in repr(caught.value.value)

    def test_the_error_shows_how_to_quote_a_password(self) -> None:
        with pytest.raises(InvalidOption, match=r"'redis://host/0': must be a URL with '\?' in a"):
            server_of("redis://ada:se?cret@host/0")
        assert server_of("redis://ada:se%3Fcret@host/0").password == "se?cret"
        assert parse_store_url("redis://h?prefix=a%40b").prefix == "a@b"
