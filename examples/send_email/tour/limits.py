"""Part three: send too many requests, and guess passwords."""

from typing import Final

import httpx

from examples.send_email.tour.seeing import Row, as_another

GENERAL: Final = 100
GUESSES: Final = 5

LOGIN: Final = {"email": "ada.1@example.org", "password": "correct horse"}
WRONG: Final = {**LOGIN, "password": "battery staple"}


def see_limits(client: httpx.Client) -> list[Row]:
    return [*see_general(client), *see_logins(client)]


def see_general(client: httpx.Client) -> list[Row]:
    as_another(client)
    served = [client.get("/api/users/1").status_code for _ in range(GENERAL)]
    refused = client.get("/api/users/1")
    wait = int(refused.headers.get("Retry-After", 0))
    is_whole = served == [200] * GENERAL
    is_refused = (refused.status_code, refused.text) == (
        429,
        "Too many requests, please try again later",
    )
    return [
        (f"{GENERAL} requests to /api/", f"{served.count(200)} answered", is_whole),
        (
            "one more",
            f"status {refused.status_code}, Retry-After: {wait}",
            is_refused and 0 < wait <= 900,
        ),
        ("its RateLimit", refused.headers.get("RateLimit", "none"), None),
    ]


def see_logins(client: httpx.Client) -> list[Row]:
    as_another(client)
    good = [client.post("/api/auth/login", json=LOGIN) for _ in range(GUESSES * 2)]
    left = good[-1].headers.get("RateLimit", "")
    is_free = [each.status_code for each in good] == [200] * len(good)
    bad = [client.post("/api/auth/login", json=WRONG).status_code for _ in range(GUESSES + 1)]
    return [
        (
            f"{len(good)} correct logins, with a limit of {GUESSES}",
            f"{GUESSES} left" if f'"{GUESSES}-in-1hr";r={GUESSES};' in left else left,
            is_free and f'"{GUESSES}-in-1hr";r={GUESSES};' in left,
        ),
        (
            f"{GUESSES + 1} wrong ones",
            ", ".join(map(str, bad)),
            bad == [401] * GUESSES + [429],
        ),
    ]
