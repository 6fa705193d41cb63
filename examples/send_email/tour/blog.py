"""Part two: read pages by number and by cursor, select fields, send invalid parameters."""

import json
import time
from statistics import median
from typing import Any, Final

import httpx

from examples.send_email.seed import POSTS
from examples.send_email.tour.shared import Row, get_raw, progress_bar, switch_client

LIMIT: Final = 20
# A page in the middle is the slowest: pages near the end are read backwards from the end.
DEEP_PAGE: Final = POSTS // LIMIT // 2 + 1
REPETITIONS: Final = 11


def try_blog(client: httpx.Client) -> list[Row]:
    return [*try_pages(client), *try_fields(client), *try_invalid_requests(client)]


def try_pages(client: httpx.Client) -> list[Row]:
    switch_client(client)
    first = get(client, "/api/posts")
    is_exact = (
        list(first) == ["data", "pagination"]
        and len(first["data"]) == LIMIT
        and first["pagination"] == {"page": 1, "limit": LIMIT, "total": POSTS}
    )
    total = first["pagination"]["total"]
    ids, deep_cursor = walk(client)
    switch_client(client)
    each_once = len(ids) == len(set(ids)) == POSTS
    number_ms, by_number = get_often(client, f"/api/posts?page={DEEP_PAGE}")
    cursor_ms, by_cursor = get_often(client, f"/api/posts?cursor={deep_cursor}")
    return [
        ("GET /api/posts, with the total", f"{len(first['data'])} of {total:,}", is_exact),
        ("read by cursor, each once", f"{len(set(ids)):,} of {POSTS:,}", each_once),
        (f"GET /api/posts?page={DEEP_PAGE}", f"{number_ms:.1f} ms, median of {REPETITIONS}", None),
        ("the same posts by cursor", f"{cursor_ms:.1f} ms", by_cursor["data"] == by_number["data"]),
    ]


def walk(client: httpx.Client) -> tuple[list[int], str]:
    """Read all posts by cursor. Return their ids, and the cursor of the deep page."""
    ids: list[int] = []
    deep_cursor = ""
    cursor: str | None = ""  # an empty cursor returns the first page
    with progress_bar() as progress:
        bar = progress.add_task("All posts, by cursor", total=POSTS)
        while cursor is not None:
            if len(ids) % (50 * 100) == 0:
                switch_client(client)  # a single client would exceed its rate limit
            if len(ids) == (DEEP_PAGE - 1) * LIMIT:
                deep_cursor = cursor
            page = get(client, f"/api/posts?fields=id&limit=100&cursor={cursor}")
            ids += [post["id"] for post in page["data"]]
            cursor = page["pagination"]["next_cursor"]
            progress.update(bar, completed=len(ids))
    return ids, deep_cursor


def try_fields(client: httpx.Client) -> list[Row]:
    user_bytes, user = get_bytes(client, "/api/users/1")
    name_bytes, name = get_bytes(client, "/api/users/1?fields=name")
    page_bytes, _ = get_bytes(client, "/api/posts")
    part_bytes, part = get_bytes(client, "/api/posts?fields=id,title,author(name)")
    is_part = all(
        list(post) == ["id", "title", "author"] and list(post["author"]) == ["name"]
        for post in part["data"]
    )
    return [
        ("GET /api/users/1", user_bytes, list(user) == ["id", "name", "email"]),
        ("the same with ?fields=name", name_bytes, list(name) == ["name"]),
        ("GET /api/posts", page_bytes, None),
        ("the same with ?fields=id,title,author(name)", part_bytes, is_part),
    ]


def try_invalid_requests(client: httpx.Client) -> list[Row]:
    secret = client.get("/api/users/1?fields=password_hash")
    unknown = client.get("/api/users/1?fields=no_such_field")
    is_unknown = secret.text == unknown.text.replace("no_such_field", "password_hash")
    wrong_page = client.get("/api/posts?page=0").status_code
    cursor = get(client, "/api/posts?cursor=")["pagination"]["next_cursor"]
    forged = client.get(f"/api/posts?cursor={cursor[:-4]}AAAA").status_code
    foreign = client.get(f"/api/posts?sort=title&cursor={cursor}").status_code
    return [
        (
            "a user's ?fields=password_hash",
            f"status {secret.status_code}, as for an unknown name",
            secret.status_code == 422 and is_unknown,
        ),
        ("GET /api/posts?page=0", f"status {wrong_page}", wrong_page == 422),
        ("a forged cursor", f"status {forged}", forged == 400),
        ("a cursor of another order", f"status {foreign}", foreign == 400),
    ]


def get(client: httpx.Client, path: str) -> Any:
    return client.get(path).raise_for_status().json()


def get_often(client: httpx.Client, path: str) -> tuple[float, Any]:
    """Return the median response time in milliseconds, and the response."""
    answer = get(client, path)
    times_ms = []
    for _ in range(REPETITIONS):
        start = time.perf_counter()
        client.get(path)
        times_ms.append((time.perf_counter() - start) * 1000)
    return median(times_ms), answer


def get_bytes(client: httpx.Client, path: str) -> tuple[str, Any]:
    """Return the size of the uncompressed response, and the response."""
    _, body = get_raw(client, path, "identity")
    return f"{len(body):,} bytes", json.loads(body)
