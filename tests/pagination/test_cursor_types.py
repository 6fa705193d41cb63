"""Values of every type that a column has go through a cursor and back into the next statement."""

from __future__ import annotations

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from hasten.errors import InvalidOption
from hasten.fields import Allowed, Fields
from hasten.pagination import CursorPage, Paginate
from tests.fields.databases import DATABASES, Slot, User, engine

SORTS = ("id", "name", "email", "created", "balance", "role", "ref", "team_id")

Users = Paginate(
    object,
    model=User,
    fields=Fields(Allowed(SORTS), model=User),
    sort=SORTS,
    mode="cursor",
    secret="a secret of more than 16 bytes",
    advise=False,
)

Slots = Paginate(
    object,
    model=Slot,
    fields=Fields(Allowed(("day", "hour")), model=Slot),
    sort=("day", "hour"),
    mode="cursor",
    secret="a secret of more than 16 bytes",
    advise=False,
)


@pytest.mark.parametrize("database", DATABASES)
@pytest.mark.parametrize("sort", [*SORTS, *[f"-{name}" for name in SORTS], "role,-created"])
def test_56_every_type_walks_forward_and_back(database: str, sort: str) -> None:
    with Session(engine(database)) as session:
        seen = walk(session, Users, User, sort)
        assert len(seen) == len({row["id"] for row in seen}) == 30


@pytest.mark.parametrize("database", DATABASES)
@pytest.mark.parametrize("sort", ["day", "-hour", "hour,-day"])
def test_a_primary_key_of_two_columns(database: str, sort: str) -> None:
    with Session(engine(database)) as session:
        seen = walk(session, Slots, Slot, sort)
        assert len(seen) == len({(row["day"], row["hour"]) for row in seen})
        assert seen


def test_what_a_cursor_cannot_hold_is_refused_at_once() -> None:
    with pytest.raises(InvalidOption, match=r"not JSON\(\)"):
        Paginate(
            object,
            model=User,
            fields=Fields(Allowed(("id", "settings")), model=User),
            sort=("settings",),
            mode="cursor",
            secret="a secret of more than 16 bytes",
        )


def walk(
    session: Session,
    paginate: Paginate[CursorPage[object]],
    model: type,
    sort: str,
) -> list[dict[str, object]]:
    """All rows, read forwards, once they have been found to be the same backwards."""
    pages: list[CursorPage[object]] = []
    token: str | None = ""
    while token is not None:
        q = paginate.parse(f"sort={sort}&limit=4&cursor={token}")
        pages.append(paginate.page_sync(session, select(model), q))
        token = pages[-1].next_cursor
        assert len(pages) < 50
    for before, page in zip(reversed(pages[:-1]), reversed(pages), strict=False):
        q = paginate.parse(f"sort={sort}&limit=4&cursor={page.prev_cursor}")
        assert paginate.page_sync(session, select(model), q).data == before.data
    return [dict(row) for page in pages for row in page.data]
