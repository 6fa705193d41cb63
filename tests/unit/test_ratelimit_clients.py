"""The client of a request: the bits of its address, and trusted proxies."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.errors import InvalidOption
from hasten.ratelimit._http.addresses import AddressKeys, is_private_address, parse_address
from hasten.ratelimit._http.proxies import Proxies

XFF = "x-forwarded-for"


def key(text: str, prefix: int = 56) -> str:
    return AddressKeys(prefix).get_key(text)


class TestAddresses:
    @pytest.mark.parametrize(
        "text",
        [
            "203.0.113.7", "203.0.113.7:4711", "::ffff:203.0.113.7", "::ffff:cb00:7107",
            "[::ffff:203.0.113.7]:443", "::FFFF:CB00:7107",
            " 203.0.113.7\t", "0:0:0:0:0:ffff:203.0.113.7%eth0",
        ],
    )  # fmt: skip
    def test_every_spelling_of_an_ipv4_address_is_one_client(self, text: str) -> None:
        assert key(text) == "203.0.113.7"

    @pytest.mark.parametrize("text", ["64:ff9b::9.9.9.9", "2002:909:909::1", "9.9.9.9"])
    def test_translated_addresses_are_the_same_client(self, text: str) -> None:
        assert key(text) == "9.9.9.9"

    @pytest.mark.parametrize("inner", ["10.0.0.1", "127.0.0.1", "169.254.1.1", "192.168.0.1"])
    def test_translators_do_not_write_private_addresses(self, inner: str) -> None:
        number = int(IPv4Address(inner))
        assert key(f"64:ff9b::{inner}") != inner
        assert key(str(IPv6Address(0x2002 << 112 | number << 80 | 1))) != inner

    def test_different_mapped_addresses_are_different_clients(self) -> None:
        assert key("::ffff:1.2.3.4") != key("::ffff:9.9.9.9")

    def test_an_ipv6_client_is_identified_by_its_network(self) -> None:
        assert key("2001:db8:0:1::1") == key("2001:db8:0:1:ffff::9") == "2001:db8::/56"
        assert key("2001:db8:0:100::1") != key("2001:db8:0:1::1")
        assert key("2001:db8:0:1::1", 64) != key("2001:db8:0:2::1", 64)
        assert key("2001:db8::1", 128) != key("2001:db8::2", 128)

    def test_an_ipv6_address_may_end_like_ipv4(self) -> None:
        assert key("2001:db8:1234:5678::1.2.3.4") == "2001:db8:1234:5600::/56"

    def test_the_zone_of_an_address_is_ignored(self) -> None:
        assert key("fe80::1%eth0") == key("fe80::1")

    @pytest.mark.parametrize(
        "text", ["", "testclient", "1.2.3", "999.1.1.1", "x" * 1000, "[", "::g"]
    )
    def test_what_is_no_address_stands_for_itself(self, text: str) -> None:
        assert parse_address(text) is None
        assert key(text) == text

    @given(st.text(max_size=60))
    def test_any_text_is_a_key(self, text: str) -> None:
        assert isinstance(key(text), str)

    @given(st.ip_addresses(v=4))
    def test_an_address_is_its_own_key(self, address: IPv4Address) -> None:
        assert key(str(address)) == str(address)
        assert key(f"::ffff:{address}") == key(str(IPv6Address(f"::ffff:{address}")))

    def test_the_cache_of_keys_is_bounded(self) -> None:
        addresses = AddressKeys()
        for number in range(25_000):
            addresses.get_key(f"198.51.{number // 250}.{number % 250}")
        assert len(addresses.keys) <= 10_000

    @pytest.mark.parametrize("prefix", [0, 31, 129, True])
    def test_prefixes_within_reason(self, prefix: Any) -> None:
        with pytest.raises(InvalidOption, match=r"^ipv6_prefix="):
            AddressKeys(prefix)

    def test_private_ones(self) -> None:
        assert is_private_address("10.0.0.1")
        assert is_private_address("::1")
        assert not is_private_address("8.8.8.8")
        assert not is_private_address(None)


def scope(peer: str | None, *lines: tuple[str, str]) -> dict[str, Any]:
    return {
        "client": None if peer is None else (peer, 1),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in lines],
    }


def client(proxies: Proxies, peer: str | None, *lines: tuple[str, str]) -> str | None:
    return proxies.find_client_address(scope(peer, *lines)).address


TRUSTING = Proxies(["10.0.0.0/8", "2001:db8::/32"])


class TestProxies:
    def test_forwarded_addresses_of_untrusted_peers_are_ignored(self) -> None:
        assert client(TRUSTING, "203.0.113.5", (XFF, "1.1.1.1")) == "203.0.113.5"
        assert client(Proxies(), "10.0.0.1", (XFF, "1.1.1.1")) == "10.0.0.1"

    def test_the_client_is_the_last_untrusted_address(self) -> None:
        whole = (XFF, "6.6.6.6, 203.0.113.9, 10.1.1.1")
        split = (XFF, "6.6.6.6, 203.0.113.9"), (XFF, "10.1.1.1")
        assert client(TRUSTING, "10.0.0.1", whole) == "203.0.113.9"
        assert client(TRUSTING, "10.0.0.1", *split) == "203.0.113.9"

    @pytest.mark.parametrize(
        "element", ["203.0.113.9:51234", "[2001:db9::1]:443", "2001:db9::1", " 203.0.113.9 "]
    )
    def test_a_forwarded_address_may_have_a_port_and_brackets(self, element: str) -> None:
        found = client(TRUSTING, "10.0.0.1", (XFF, element))
        assert found in {"203.0.113.9", "2001:db9::1"}

    @pytest.mark.parametrize("junk", ["unknown", "_hidden", "", "1.2.3.4.5", "<script>"])
    def test_an_invalid_address_ends_the_search(self, junk: str) -> None:
        found = TRUSTING.find_client_address(scope("10.0.0.1", (XFF, f"9.9.9.9, {junk}, 10.1.1.1")))
        assert found == ("10.1.1.1", "FORWARDED_BROKEN")

    @pytest.mark.parametrize("written", ["64:ff9b::{}", "2002:{:x}:{:x}::1"])
    @pytest.mark.parametrize("proxy", ["10.0.0.9", "9.9.9.9"])
    def test_what_translators_write_is_no_proxy(self, written: str, proxy: str) -> None:
        number = int(IPv4Address(proxy))
        peer = written.format(*([proxy] if "ff9b" in written else divmod(number, 1 << 16)))
        proxies = Proxies(["10.0.0.0/8", "9.9.9.9"])
        assert client(proxies, proxy, (XFF, "1.1.1.1")) == "1.1.1.1"
        assert client(proxies, peer, (XFF, "1.1.1.1")) == peer
        found = client(proxies, "10.0.0.1", (XFF, f"1.1.1.1, {peer}"))
        assert found is not None
        assert parse_address(found) == parse_address(peer)

    def test_hops_count_proxies_from_the_right(self) -> None:
        two = Proxies(hops=2)
        assert client(two, "10.0.0.1", (XFF, "6.6.6.6, 203.0.113.9, 10.1.1.1")) == "203.0.113.9"
        assert client(two, "10.0.0.1", (XFF, "6.6.6.6")) == "10.0.0.1"
        assert client(Proxies(hops=1), None, (XFF, "6.6.6.6, 203.0.113.9")) == "203.0.113.9"

    def test_forwarded(self) -> None:
        proxies = Proxies(["10.0.0.0/8"], header="Forwarded")
        value = 'for=6.6.6.6, For="[2001:db8::1]:80";proto=http;by="a,b;c", for=10.0.0.2'
        assert client(proxies, "10.0.0.1", ("forwarded", value)) == "2001:db8::1"
        assert client(proxies, "10.0.0.1", (XFF, "1.1.1.1")) == "10.0.0.1"

    def test_a_header_of_ones_own(self) -> None:
        proxies = Proxies(["10.0.0.0/8"], header="CF-Connecting-IP")
        assert client(proxies, "10.0.0.1", ("cf-connecting-ip", "203.0.113.9")) == "203.0.113.9"
        assert client(proxies, "8.8.8.8", ("cf-connecting-ip", "203.0.113.9")) == "8.8.8.8"

    def test_all_are_trusted(self) -> None:
        assert client(TRUSTING, "10.0.0.1", (XFF, "10.0.0.3, 10.0.0.2")) == "10.0.0.3"

    @given(st.text(max_size=40), st.sampled_from([XFF, "forwarded", "x-real-ip", "via"]))
    def test_no_header_changes_an_untrusted_peer_s_address(self, value: str, name: str) -> None:
        lines = (name, value.encode("utf-8", "replace").decode("latin-1"))
        for proxies in (TRUSTING, Proxies(), Proxies(["10.0.0.0/8"], header="forwarded")):
            assert client(proxies, "203.0.113.5", lines) == "203.0.113.5"

    @given(
        st.text(st.characters(max_codepoint=255), max_size=60), st.sampled_from([XFF, "forwarded"])
    )
    def test_text_before_the_proxies_addresses_changes_nothing(self, junk: str, name: str) -> None:
        """The client writes the left end of the header, its proxies write the right end."""
        proxies = Proxies(["10.0.0.0/8"], header=name)
        true = "203.0.113.9, 10.1.1.1" if name == XFF else "for=203.0.113.9, for=10.1.1.1"
        assert client(proxies, "10.0.0.1", (name, junk), (name, true)) == "203.0.113.9"

    @pytest.mark.parametrize(
        "forged",
        ['for=6.6.6.6;x="', 'for=6.6.6.6, for="', 'for="6.6.6.6', 'for=6.6.6.6;x="\\', '"'],
    )
    @pytest.mark.parametrize("true", ["for=203.0.113.9", 'for="203.0.113.9:80";by="a,b"'])
    def test_a_quote_that_a_client_opens_hides_no_address(self, forged: str, true: str) -> None:
        proxies = Proxies(["10.0.0.0/8"], header="forwarded")
        assert client(proxies, "10.0.0.1", ("forwarded", f"{forged}, {true}")) == "203.0.113.9"
        assert client(proxies, "10.0.0.1", ("forwarded", f"{forged},{true}")) == "203.0.113.9"

    @given(st.text('for="\\;,. 1=\t', max_size=60))
    def test_no_quoting_by_a_client_hides_its_address(self, junk: str) -> None:
        proxies = Proxies(["10.0.0.0/8"], header="forwarded")
        for true in ("for=203.0.113.9", 'for="203.0.113.9:80"', 'for="203.0.113.9";by="a,b"'):
            value = f"{junk}, {true}, for=10.1.1.1"
            assert client(proxies, "10.0.0.1", ("forwarded", value)) == "203.0.113.9"

    @given(st.binary(max_size=200), st.integers(0, 5))
    def test_no_header_raises_an_error(self, value: bytes, hops: int) -> None:
        for header in (XFF, "forwarded", "cf-connecting-ip"):
            proxies = Proxies(hops=hops, header=header) if hops else Proxies(["10.0.0.0/8"])
            asked = {"client": ("10.0.0.1", 1), "headers": [(header.encode(), value)]}
            assert proxies.find_client_address(asked).address is not None

    def test_a_long_header_costs_no_more(self) -> None:
        value = ", ".join(["10.0.0.1"] * 100_000)
        assert client(TRUSTING, "10.0.0.1", (XFF, f"6.6.6.6, {value}")) == "10.0.0.1"
