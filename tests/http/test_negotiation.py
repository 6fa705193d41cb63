"""Which coding a response gets: RFC 9110, section 12.5.3."""

from __future__ import annotations

import zlib

from tests.http import expect
from tests.http.bodies import ORDERS, SMALL
from tests.http.codings import CODINGS
from tests.http.hosts import Answer
from tests.http.site import Site, behaviour

INVALID_WEIGHTS = ["abc", "1.5", "-1", "1.0001", "0.1234", "", "1e0", "+1", "0,5", ".5", "½"]


@behaviour()
async def test_without_accept_encoding_the_body_is_plain(site: Site) -> None:
    """Every client can read a plain body."""
    response = expect.plain(await site.serve(Answer()).get(), ORDERS)
    assert response.get("content-length") == str(len(ORDERS))


@behaviour()
async def test_a_plain_response_varies(site: Site) -> None:
    """Otherwise a cache would send the plain body to all clients."""
    expect.varies(await site.serve(Answer()).get())


@behaviour(codings=CODINGS)
async def test_the_accepted_coding_is_used(site: Site) -> None:
    response = expect.coded(await site.serve(Answer()).get(site.coding), site.coding, ORDERS)
    assert response.get("content-length") == str(len(response.body))


@behaviour(codings=CODINGS, once=True)
async def test_weight_zero_refuses(site: Site) -> None:
    expect.plain(await site.serve(Answer()).get(f"{site.coding};q=0"), ORDERS)


@behaviour(codings=CODINGS, once=True)
async def test_weight_zero_with_spaces_and_decimals_refuses(site: Site) -> None:
    for zero in ("0", "0.", "0.0", "0.000"):
        expect.plain(await site.serve(Answer()).get(f"{site.coding} ;\tq={zero} "), ORDERS)


@behaviour(codings=CODINGS, once=True)
async def test_names_have_no_case(site: Site) -> None:
    response = await site.serve(Answer()).get(f"{site.coding.upper()};Q=0.5")
    expect.coded(response, site.coding, ORDERS)


@behaviour(codings=CODINGS, once=True)
async def test_a_name_within_another_is_not_that_name(site: Site) -> None:
    for other in (f"xnot{site.coding}", f"{site.coding}2", f"not-{site.coding}"):
        expect.plain(await site.serve(Answer()).get(other), ORDERS)


@behaviour(once=True)
async def test_a_star_accepts_the_first_coding_of_the_server(site: Site) -> None:
    expect.coded(await site.serve(Answer()).get("*"), "zstd", ORDERS)
    gzip_first = site.serve(Answer(), encodings=("gzip", "zstd"))
    expect.coded(await gzip_first.get("*;q=0.1"), "gzip", ORDERS)


@behaviour(once=True)
async def test_identity_and_no_other_is_plain(site: Site) -> None:
    expect.plain(await site.serve(Answer()).get("identity, *;q=0"), ORDERS)


@behaviour(codings=CODINGS, once=True)
async def test_identity_can_be_preferred(site: Site) -> None:
    response = await site.serve(Answer()).get(f"identity;q=1, {site.coding};q=0.5")
    expect.plain(response, ORDERS)
    response = await site.serve(Answer()).get(f"identity;q=0.4, {site.coding};q=0.5")
    expect.coded(response, site.coding, ORDERS)


@behaviour(codings=CODINGS, once=True)
async def test_the_highest_weight_wins(site: Site) -> None:
    """Whatever its position in the list, and whatever the server prefers."""
    others = [coding for coding in CODINGS if coding != site.coding]
    members = [f"{coding};q=0.1" for coding in others]
    for place in range(len(members) + 1):
        accept = [*members[:place], f"{site.coding};q=1.0", *members[place:]]
        expect.coded(await site.serve(Answer()).get(", ".join(accept)), site.coding, ORDERS)


@behaviour(codings=CODINGS, once=True)
async def test_several_lines_are_one_list(site: Site) -> None:
    response = await site.serve(Answer()).get(["identity", site.coding])
    expect.coded(response, site.coding, ORDERS)
    expect.plain(await site.serve(Answer()).get([f"{site.coding};q=0.5", "identity"]), ORDERS)


@behaviour(codings=CODINGS, once=True)
async def test_rubbish_is_ignored(site: Site) -> None:
    for rubbish in (f"{site.coding};q=abc,;;,,=", ";", ",", "=", ";q=1", f"{site.coding};q"):
        expect.plain(await site.serve(Answer()).get(rubbish), ORDERS)
    expect.coded(await site.serve(Answer()).get(f",, ;;,=, {site.coding} ,,"), site.coding, ORDERS)


@behaviour(once=True)
async def test_an_empty_value_accepts_only_plain(site: Site) -> None:
    expect.plain(await site.serve(Answer()).get(""), ORDERS)


@behaviour(codings=CODINGS, once=True)
async def test_a_star_accepts_all_codings_that_are_not_named(site: Site) -> None:
    for accept in (f"{site.coding};q=0, *", f"*, {site.coding};q=0"):
        response = await site.serve(Answer()).get(accept)
        others = [coding for coding in ("zstd", "br", "gzip") if coding != site.coding]
        expect.coded(response, others[0], ORDERS)


@behaviour(once=True)
async def test_nothing_acceptable_is_plain_or_406_if_strict(site: Site) -> None:
    """Clients may refuse everything by accident, so plain is the default."""
    for accept in ("identity;q=0", "*;q=0", "identity;q=0, gzip;q=0", "compress, *;q=0"):
        response = await site.serve(Answer()).get(accept)
        assert response.status == 200
        expect.plain(response, ORDERS)
        answer = Answer()
        response = await site.serve(answer, strict=True).get(accept)
        assert response.status == 406
        assert answer.calls == 0
    response = await site.serve(Answer(), strict=True).get("compress")
    assert response.status == 200  # identity was not refused


@behaviour(codings=CODINGS, once=True)
async def test_a_small_body_is_coded_if_strict_and_plain_is_refused(site: Site) -> None:
    accept = f"identity;q=0, {site.coding}"
    expect.coded(await site.serve(Answer(SMALL), strict=True).get(accept), site.coding, SMALL)
    expect.plain(await site.serve(Answer(SMALL)).get(accept), SMALL)


@behaviour(once=True)
async def test_x_gzip_is_gzip(site: Site) -> None:
    expect.coded(await site.serve(Answer()).get("x-gzip"), "gzip", ORDERS)
    expect.plain(await site.serve(Answer()).get("x-gzip;q=0"), ORDERS)


@behaviour(once=True)
async def test_the_server_chooses_between_equal_weights(site: Site) -> None:
    expect.coded(await site.serve(Answer()).get("gzip;q=0.5, br;q=0.5"), "br", ORDERS)
    expect.coded(await site.serve(Answer()).get("gzip, deflate, br, zstd"), "zstd", ORDERS)
    reordered = site.serve(Answer(), encodings=("gzip", "br"))
    expect.coded(await reordered.get("br, gzip, zstd"), "gzip", ORDERS)


@behaviour(codings=CODINGS, once=True)
async def test_an_invalid_weight_refuses(site: Site) -> None:
    for weight in INVALID_WEIGHTS:
        expect.plain(await site.serve(Answer()).get(f"{site.coding};q={weight}"), ORDERS)
    expect.coded(await site.serve(Answer()).get(f"{site.coding};q=1.000"), site.coding, ORDERS)


@behaviour(once=True)
async def test_a_coding_named_twice_has_the_lower_weight(site: Site) -> None:
    for accept in ("gzip;q=0, gzip", "gzip, gzip;q=0", "gzip, x-gzip;q=0"):
        expect.plain(await site.serve(Answer()).get(accept), ORDERS)


@behaviour(once=True)
async def test_an_endless_list_is_not_read(site: Site) -> None:
    for accept in ("gzip," * 2048, "gzip, " + "x" * 10_240, "gzip;q=" + "1" * 10_240):
        expect.plain(await site.serve(Answer()).get(accept), ORDERS)
    expect.coded(await site.serve(Answer()).get("gzip"), "gzip", ORDERS)


@behaviour(once=True)
async def test_deflate_has_the_zlib_format(site: Site) -> None:
    """Not the raw format of some servers: RFC 9110, section 8.4.1.2."""
    response = await site.serve(Answer(), encodings=("deflate",)).get("deflate")
    expect.coded(response, "deflate", ORDERS)
    assert response.body[0] == 0x78
    assert zlib.decompress(response.body) == ORDERS
    expect.plain(await site.serve(Answer()).get("deflate"), ORDERS)  # only if it is offered


@behaviour(once=True)
async def test_a_request_can_forbid_transformations(site: Site) -> None:
    for directives in (b"no-transform", b"max-age=0, No-Transform"):
        headers = [(b"cache-control", directives)]
        response = expect.plain(await site.serve(Answer()).get("gzip", headers=headers), ORDERS)
        expect.varies(response)
    harmless = [(b"cache-control", b"no-cache")]
    expect.coded(await site.serve(Answer()).get("gzip", headers=harmless), "gzip", ORDERS)


@behaviour(once=True)
async def test_no_transform_counts_in_any_line(site: Site) -> None:
    """Several lines of one header are one list: RFC 9110, section 5.3."""
    lines = [(b"cache-control", b"no-transform"), (b"cache-control", b"max-age=0")]
    for headers in (lines, lines[::-1]):
        response = await site.serve(Answer()).get(site.coding, headers=headers)
        expect.plain(response, ORDERS)
    response = await site.serve(Answer()).get(site.coding, headers=lines[1:])
    expect.coded(response, site.coding, ORDERS)
