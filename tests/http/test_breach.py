"""Secrets in compressed bodies: RFC 9110, section 17.6."""

from __future__ import annotations

from tests.http import expect
from tests.http.bodies import ORDERS
from tests.http.client import Headers, Response
from tests.http.hosts import Answer
from tests.http.site import Site, behaviour

COOKIE = (b"cookie", b"session=1")
CROSS_SITE = (b"sec-fetch-site", b"cross-site")
SAME_SITE = (b"sec-fetch-site", b"same-site")
VISIT = (
    (b"sec-fetch-mode", b"navigate"),
    (b"sec-fetch-user", b"?1"),
    (b"sec-fetch-dest", b"document"),
)


async def ask(site: Site, headers: Headers, **options: object) -> Response:
    return await site.serve(Answer(), **options).get(site.coding, headers=headers)


async def is_coded(site: Site, headers: Headers, **options: object) -> bool:
    response = await ask(site, headers, **options)
    expect.varies(response)
    assert response.decoded() == ORDERS
    return response.coding is not None


@behaviour()
async def test_a_request_with_cookies_from_another_site_is_answered_plain(site: Site) -> None:
    assert not await is_coded(site, [COOKIE, CROSS_SITE])
    assert await is_coded(site, [CROSS_SITE])
    assert await is_coded(site, [COOKIE, (b"sec-fetch-site", b"same-origin")])
    assert await is_coded(site, [COOKIE, (b"sec-fetch-site", b"none")])
    assert await is_coded(site, [COOKIE])


@behaviour(once=True)
async def test_a_visit_by_a_link_is_coded(site: Site) -> None:
    """Only if the user clicked: a script could navigate a thousand times."""
    assert await is_coded(site, [COOKIE, CROSS_SITE, *VISIT])
    for missing in VISIT:
        rest = [header for header in VISIT if header != missing]
        assert not await is_coded(site, [COOKIE, CROSS_SITE, *rest])


@behaviour(once=True)
async def test_origin_and_referer_identify_the_site_in_old_browsers(site: Site) -> None:
    assert not await is_coded(site, [COOKIE, (b"origin", b"https://evil.example")])
    assert not await is_coded(site, [COOKIE, (b"origin", b"null")])
    assert not await is_coded(site, [COOKIE, (b"referer", b"https://evil.example/x")])
    assert await is_coded(site, [COOKIE, (b"origin", b"https://example.org")])
    assert await is_coded(site, [COOKIE, (b"referer", b"https://example.org/page")])


@behaviour(once=True)
async def test_a_site_can_be_trusted_or_distrusted(site: Site) -> None:
    from hasten.compression import BreachGuard

    trusting = BreachGuard(trusted_origins=("https://app.example",))
    known, unknown = (b"origin", b"https://app.example"), (b"origin", b"https://evil.example")
    assert await is_coded(site, [COOKIE, CROSS_SITE, known], breach=trusting)
    assert not await is_coded(site, [COOKIE, CROSS_SITE, unknown], breach=trusting)
    assert not await is_coded(site, [COOKIE, CROSS_SITE], breach=trusting)
    assert await is_coded(site, [COOKIE, SAME_SITE])
    assert not await is_coded(site, [COOKIE, SAME_SITE], breach=BreachGuard(same_site=True))
    assert await is_coded(site, [COOKIE, CROSS_SITE], breach="off")
