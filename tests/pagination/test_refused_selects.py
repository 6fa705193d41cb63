"""Selects that cannot be paged, and the remedies in their errors."""

from __future__ import annotations

from typing import Literal

import pytest
from pydantic import BaseModel
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session, aliased
from sqlalchemy.pool import NullPool

from hasten.errors import InvalidOption
from hasten.pagination import Paginator
from tests.pagination.databases import Author, url
from tests.pagination.test_select_analysis import distinct_on

SECRET = "a secret of more than 16 bytes"


class AuthorOut(BaseModel):
    id: int
    name: str


@pytest.mark.parametrize("count", ["exact", "none"])
@pytest.mark.parametrize("query", ["", "page=300&limit=100", "cursor="])
def test_a_select_that_locks_rows_is_rejected(count: Literal["exact", "none"], query: str) -> None:
    pages = Paginator(
        AuthorOut, model=Author, count=count, mode="both", secret=SECRET, advise=False
    )
    statement = select(Author).with_for_update(skip_locked=True)
    engine = create_engine("sqlite://", poolclass=NullPool)
    words = r"a select without with_for_update\(\)"
    with Session(engine) as session, pytest.raises(InvalidOption, match=words):
        pages.sync.page(session, statement, pages.parse(query))


def test_remedies_name_existing_options_only() -> None:
    pages = Paginator(AuthorOut, model=Author, advise=False)
    statement = select(Author).group_by(Author.name)
    words = "GROUP BY but without the primary key"
    with (
        Session(create_engine("sqlite://", poolclass=NullPool)) as session,
        pytest.raises(InvalidOption, match=words) as refused,
    ):
        pages.sync.page(session, statement, pages.parse(""))
    assert "key=" not in str(refused.value)


def test_distinct_on_can_be_paged_as_an_alias() -> None:
    pages = Paginator(AuthorOut, model=Author, mode="both", secret=SECRET, advise=False)
    statement = distinct_on(select(Author).where(Author.id < 0), Author.name).order_by(Author.name)
    engine = create_engine(url("postgresql", 0), poolclass=NullPool)
    with engine.connect() as connection, Session(connection) as session:
        Author.metadata.create_all(connection)
        session.add_all(Author(id=-n, name=f"n{n % 3}", email=f"{-n}@x") for n in range(1, 7))
        session.flush()
        with pytest.raises(InvalidOption, match="DISTINCT ON") as refused:
            pages.sync.page(session, statement, pages.parse(""))
        assert "aliased(…, statement.subquery())" in str(refused.value)
        alias = aliased(Author, statement.subquery())
        for query in ("", "cursor="):
            page = pages.sync.page(session, select(alias), pages.parse(query))
            assert {row["name"] for row in page.data} == {"n0", "n1", "n2"}
