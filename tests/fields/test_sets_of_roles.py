"""A set of fields is accepted by its selector, and by the one that `without` came from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import httpx
import pytest
from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.orm import Session

from hasten import fastapi
from hasten.errors import InvalidOption, InvalidParameter
from hasten.fields import FieldSelector, Partial
from hasten.pagination import Paginator, Window
from tests.fields.databases import User, engine

SECRET: Final = "a secret of more than 16 bytes"


class PostOut(BaseModel):
    id: int
    title: str


class TeamOut(BaseModel):
    id: int
    name: str


class UserOut(BaseModel):
    id: int
    name: str
    email: str | None
    team: TeamOut | None
    posts: list[PostOut]


Users: Final[FieldSelector[Any]] = FieldSelector(UserOut, model=User, max_related=2)
Guests: Final = Users.without("email", "team.name", "posts.id")
OfGuests: Final = Guests.without("posts")
Strangers: Final[FieldSelector[Any]] = FieldSelector(UserOut, model=User)

ASKED: Final = "id,name,team(id),posts(title)"
ITEMS: Final = [
    {
        "id": n, "name": f"n{n}", "email": "e", "team": {"id": 1, "name": "t"},
        "posts": [{"id": 1, "title": "a"}],
    }
    for n in range(1, 6)
]  # fmt: skip

SORTS: Final = ("id", "name", "email")
Pages: Final = Paginator(Partial[UserOut], model=User, sort=SORTS, fields=Users, advise=False)
Walk: Final = Paginator(
    Partial[UserOut], model=User, sort=SORTS, fields=Users, mode="cursor", secret=SECRET,
    advise=False,
)  # fmt: skip
InMemory: Final[FieldSelector[Any]] = FieldSelector(UserOut)
Lists: Final = Paginator(
    Partial[UserOut], unique=("id",), sort=SORTS, fields=InMemory, mode="both", secret=SECRET
)
FEW: Final = select(User).where(User.id < 9)


class Source:
    async def fetch(self, window: Window, /) -> Sequence[object]:
        assert window.fields is not None
        assert window.fields.allowed is InMemory.allowed
        return ITEMS[window.offset : window.offset + window.limit]

    async def count(self, cap: int | None, /) -> int | None:
        return None


def test_the_original_selector_accepts_sets_of_without(database: str) -> None:
    own, role = Users.parse(f"fields={ASKED}"), Guests.parse(f"fields={ASKED}")
    with Session(engine(database)) as session:
        one = select(User).where(User.id == 3)
        assert Users.sync.one(session, one, role) == Users.sync.one(session, one, own)
        assert Users.sync.many(session, FEW, role) == Users.sync.many(session, FEW, own)
        for pages in (Pages, Walk):
            q = pages.parse("limit=3&sort=-name")
            of_role, of_own = (pages.sync.page(session, FEW, q, each) for each in (role, own))
            assert of_role.data == of_own.data
            assert set(of_role.data[0]) - {"posts_has_more"} == {"id", "name", "team", "posts"}
        twice = OfGuests.parse("")
        assert Pages.sync.page(session, FEW, Pages.parse(""), twice).data[0].keys() == {
            "id", "name",
        }  # fmt: skip


async def test_the_original_selector_accepts_sets_of_without_for_items() -> None:
    own = InMemory.parse(f"fields={ASKED}")
    role = InMemory.without("email", "team.name").parse(f"fields={ASKED}")
    assert InMemory.from_item(ITEMS[0], role) == InMemory.from_item(ITEMS[0], own)
    assert InMemory.from_items(ITEMS, role) == InMemory.from_items(ITEMS, own)
    for query in ("limit=2&sort=-name", "limit=2&cursor="):
        q = Lists.parse(query)
        assert Lists.from_items(ITEMS, q, role).data == Lists.from_items(ITEMS, q, own).data
    page = await Lists.from_source(Source(), Lists.parse(""), role)
    assert page.data == InMemory.from_items(ITEMS, own)


@pytest.mark.parametrize(
    ("fields", "other"), [(Users, Strangers), (Guests, Users), (Guests, Users.without("team"))]
)
@pytest.mark.parametrize("asked", ["id", "id,posts(title)"])
def test_an_unrelated_set_is_refused(
    fields: FieldSelector[Any], other: FieldSelector[Any], asked: str
) -> None:
    chosen = other.parse(f"fields={asked}")
    pages = Paginator(Partial[UserOut], model=User, fields=fields, advise=False)
    with Session(engine("sqlite")) as session:
        calls: list[Callable[[], object]] = [
            lambda: fields.sync.one(session, select(User).where(User.id == 1), chosen),
            lambda: fields.sync.many(session, FEW, chosen),
            lambda: fields.from_item(ITEMS[0], chosen),
            lambda: fields.from_items(ITEMS, chosen),
            lambda: fields._to_fields_of_this_selector(chosen),
            lambda: pages.sync.page(session, FEW, pages.parse(""), chosen),
            lambda: Lists.from_items(ITEMS, Lists.parse(""), chosen),
            lambda: Lists.from_items(ITEMS, Lists.parse("cursor="), chosen),
        ]
        for call in calls:
            with pytest.raises(InvalidOption, match=r"fields='id.*parsed by this FieldSelector"):
                call()


def test_the_set_limits_what_can_be_sorted_by() -> None:
    role = Guests.parse("")
    with Session(engine("sqlite")) as session:
        for pages in (Pages, Walk):
            with pytest.raises(InvalidParameter, match="allowed names are id, name") as refused:
                pages.sync.page(session, FEW, pages.parse("sort=-email"), role)
            assert "email" not in refused.value.allowed
            assert (refused.value.parameter, refused.value.status) == ("sort", 422)
    role = InMemory.without("email").parse("")
    for query in ("sort=email", "sort=email&cursor="):
        with pytest.raises(InvalidParameter, match="allowed names are id, name"):
            Lists.from_items(ITEMS, Lists.parse(query), role)


def test_the_set_limits_what_a_cursor_contains() -> None:
    options: dict[str, Any] = {"mode": "both", "secret": SECRET, "advise": False}
    by_email = Paginator(UserOut, model=User, fields=Users, default_sort="email", **options)
    by_id: Any = Paginator(UserOut, model=User, fields=Users, **options)
    with Session(engine("sqlite")) as session:
        # The order of the developer contains no value of a row.
        page = by_email.sync.page(session, FEW, by_email.parse("limit=2"), Guests.parse(""))
        assert "email" not in page.data[0]
        for pages, role, statement in (
            (by_email, Guests, FEW),
            (by_id, Guests, FEW.order_by(User.email)),
            (by_id, Users.without("id"), FEW),
        ):
            with pytest.raises(InvalidOption, match="clients can read the sort values in a cursor"):
                pages.sync.page(session, statement, pages.parse("cursor="), role.parse(""))
    with pytest.raises(InvalidOption, match="clients can read the sort values in a cursor"):
        Lists.from_items(ITEMS, Lists.parse("cursor="), InMemory.without("id").parse(""))


def test_fastapi_rejects_the_same() -> None:
    pages = fastapi.Paginate(Partial[UserOut], model=User, sort=SORTS, fields=Users, advise=False)
    with Session(engine("sqlite")) as session:
        page = pages.sync.page(session, FEW, pages.parse(""), Guests.parse("fields=id"))
        assert page.data[0] == {"id": 1}
        with pytest.raises(RequestValidationError):
            pages.sync.page(session, FEW, pages.parse("sort=email"), Guests.parse(""))


async def test_each_role_has_its_own_parameters() -> None:
    """Also if the parameters of the original selector were used before."""
    members = fastapi.Fields(UserOut, model=User)
    app = FastAPI()
    app.get("/members")(lambda fields=Depends(members.params): str(fields))  # noqa: B008
    guests = members.without("email")
    app.get("/guests")(lambda fields=Depends(guests.params): str(fields))  # noqa: B008
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/members?fields=email")).json() == "email"
        assert (await client.get("/guests?fields=email")).status_code == 422
    paths = app.openapi()["paths"]
    asked = paths["/guests"]["get"]["parameters"][0]["schema"]["items"]["enum"]
    assert "email" not in asked
