"""The interface of a contestant: FastAPI applications, and how to request and read their pages."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Final, TypeAlias
from urllib.parse import urlencode

from benchmarks import contestants
from benchmarks.asgi import Application
from benchmarks.contestants import Contestants
from benchmarks.pagination.database import Database

Json: TypeAlias = Any
Rows: TypeAlias = list[dict[str, Any]]

OURS: Final = "hasten"
RIVAL: Final = "fastapi_pagination"
BY_HAND: Final = "handwritten"
FLOOR: Final = "raw"

LIMIT: Final = 20
MAX_LIMIT: Final = 1_000
FIELDS: Final = ("id", "name", "email")
SHARED_PACKAGES: Final = ("fastapi", "pydantic", "sqlalchemy", "asyncpg")


class Contestant(contestants.Contestant, ABC):
    """A library that serves pages. Of these paths, it serves those that it supports:

    - ``/TABLE/COUNT?page=&limit=``: a page of a table, newest first. COUNT is the kind of total.
    - ``/walk/ORDER?cursor=&limit=``: a page after a cursor, with the columns `dataset.MARKS`.
    - ``/few/exact?page=&limit=&fields=`` and ``/one/ID?fields=``: some columns of posts.
    """

    packages: ClassVar[tuple[str, ...]] = ()  # in addition to `SHARED_PACKAGES`
    counts: ClassVar[frozenset[str]] = frozenset()
    orders: ClassVar[frozenset[str]] = frozenset()
    has_fields: ClassVar[bool] = False

    @abstractmethod
    async def build(self, database: Database) -> Application: ...

    # Requests and responses: names differ, the data does not --------------------------------------

    limit_parameter: ClassVar[str] = "limit"

    def page_path(self, table: str, count: str, number: int = 1) -> str:
        return f"/{table}/{count}?page={number}&{self.limit_parameter}={LIMIT}"

    def few_path(self, number: int = 1) -> str:
        return f"/few?page={number}&limit={LIMIT}&fields={','.join(FIELDS)}"

    def one_path(self, id_: int) -> str:
        return f"/one/{id_}?fields={','.join(FIELDS)}"

    def slice_path(self, order: str, cursor: str | None, limit: int) -> str:
        query = {self.limit_parameter: str(limit)}
        if cursor is not None:
            query["cursor"] = cursor
        return f"/walk/{order}?{urlencode(query)}"

    def read_page(self, body: bytes) -> tuple[Rows, int | None]:
        """Return the rows and the total in a response."""
        answer: Json = json.loads(body)
        return answer["data"], answer["pagination"].get("total")

    def read_slice(self, body: bytes) -> tuple[Rows, str | None]:
        """Return the rows in a response, and the cursor of the next page."""
        answer: Json = json.loads(body)
        return answer["data"], answer["pagination"].get("next_cursor")


CONTESTANTS: Final[Contestants[Contestant]] = Contestants(
    "benchmarks.pagination.contestants", OURS, RIVAL, BY_HAND, FLOOR
)
