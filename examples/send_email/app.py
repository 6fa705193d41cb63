"""The application: jobs, pages, fields, accounts, limits, compression and metrics.

It can be started without the tour: `uvicorn examples.send_email.app:app`. The modules `mail` and
`blog` say where they store their data.
"""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.routing import Route

from examples.send_email import accounts, blog, mail
from hasten.compression import CompressionMiddleware, CompressionStats
from hasten.fastapi import document_rate_limits
from hasten.prometheus import Metrics
from hasten.ratelimit import Limit, RateLimitMiddleware, RateLimitStats

compression, rate_limits = CompressionStats(), RateLimitStats()

# Each resource has one URL: the same URL with a slash at the end returns 404.
app = FastAPI(title="Mail and posts", redirect_slashes=False)
app.include_router(mail.router)
app.include_router(blog.router)
app.include_router(accounts.router)
app.add_middleware(
    RateLimitMiddleware,
    limits=[
        Limit("100/15m", path="/api/", message="Too many requests, please try again later"),
        Limit("5/h", path="/api/auth/login", methods=["POST"], skip_successful=True),
    ],
    # Believe X-Forwarded-For from this machine, with which the tour acts as several clients.
    trusted_proxies=["127.0.0.1"],
    stats=rate_limits,
)
app.add_middleware(CompressionMiddleware, stats=compression)
metrics = Metrics(mail.worker, compression=compression, rate_limits=rate_limits)
app.routes.append(Route("/metrics", metrics.asgi()))
document_rate_limits(app)


@app.exception_handler(RequestValidationError)
async def refuse(_: Request, error: RequestValidationError) -> JSONResponse:
    """Return 422 without the invalid input, because not every input can be encoded as JSON."""
    detail = [{key: each[key] for key in ("type", "loc", "msg")} for each in error.errors()]
    return JSONResponse({"detail": detail}, status_code=422)
