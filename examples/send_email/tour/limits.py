"""Part three: exceed the rate limits, with many requests and with wrong passwords."""

from typing import Final

import httpx

from examples.send_email.tour.shared import Row, switch_client

GENERAL_LIMIT: Final = 100
LOGIN_LIMIT: Final = 5

LOGIN: Final = {"email": "ada.1@example.org", "password": "correct horse"}
WRONG: Final = {**LOGIN, "password": "battery staple"}


def try_limits(client: httpx.Client) -> list[Row]:
    return [*try_general_limit(client), *try_login_limit(client)]


def try_general_limit(client: httpx.Client) -> list[Row]:
    switch_client(client)
    served = [client.get("/api/users/1").status_code for _ in range(GENERAL_LIMIT)]
    refused = client.get("/api/users/1")
    wait = int(refused.headers.get("Retry-After", 0))
    is_whole = served == [200] * GENERAL_LIMIT
    is_refused = (refused.status_code, refused.text) == (
        429,
        "Too many requests, please try again later",
    )
    return [
        (f"{GENERAL_LIMIT} requests to /api/", f"{served.count(200)} answered", is_whole),
        (
            "one more",
            f"status {refused.status_code}, Retry-After: {wait}",
            is_refused and 0 < wait <= 900,
        ),
        ("its RateLimit", refused.headers.get("RateLimit", "none"), None),
    ]


def try_login_limit(client: httpx.Client) -> list[Row]:
    switch_client(client)
    good = [client.post("/api/auth/login", json=LOGIN) for _ in range(LOGIN_LIMIT * 2)]
    left = good[-1].headers.get("RateLimit", "")
    is_free = [each.status_code for each in good] == [200] * len(good)
    bad = [client.post("/api/auth/login", json=WRONG).status_code for _ in range(LOGIN_LIMIT + 1)]
    return [
        (
            f"{len(good)} correct logins, with a limit of {LOGIN_LIMIT}",
            f"{LOGIN_LIMIT} left" if f'"{LOGIN_LIMIT}-in-1hr";r={LOGIN_LIMIT};' in left else left,
            is_free and f'"{LOGIN_LIMIT}-in-1hr";r={LOGIN_LIMIT};' in left,
        ),
        (
            f"{LOGIN_LIMIT + 1} wrong ones",
            ", ".join(map(str, bad)),
            bad == [401] * LOGIN_LIMIT + [429],
        ),
    ]
