"""FastAPI integration: pages, field selection and rate limits with OpenAPI, and a lifespan.

    Posts = Paginate(PostOut, model=Post, sort=("created_at",), default_sort="-created_at")

    @app.get("/api/posts", responses=Posts.responses, dependencies=[RateLimited("30/m")])
    async def posts(db: DB, q: Annotated[PageParams, Depends(Posts.params)]) -> Page[PostOut]:
        return await Posts.page(db, select(Post), q)

An invalid parameter is rejected with an error response in FastAPI's own format. The page or row
that a handler returns is a Starlette response, so FastAPI does not validate it again. It is encoded
only when it is sent, so a handler may change it before.
"""

from hasten import _extras

_extras.require("fastapi", extra="fastapi")

from hasten.fastapi._limits import (  # noqa: E402
    RateLimited,
    document_rate_limits,
)
from hasten.fastapi._pages import Fields, Paginate, http_errors  # noqa: E402
from hasten.fastapi._startup import lifespan  # noqa: E402
from hasten.fields import FieldSet, Partial  # noqa: E402
from hasten.pagination import CursorPage, Page, PageParams  # noqa: E402

__all__ = [
    "CursorPage",
    "FieldSet",
    "Fields",
    "Page",
    "PageParams",
    "Paginate",
    "Partial",
    "RateLimited",
    "document_rate_limits",
    "http_errors",
    "lifespan",
]
