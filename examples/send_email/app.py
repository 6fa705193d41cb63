"""A web application that sends mail in the background, answers in pages, and has its limits.

It runs alone, too: ``uvicorn examples.send_email.app:app``. Where it keeps what it has to keep is
said in `mail` and in `blog`.
"""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from examples.send_email import accounts, blog, mail
from hasten.compression import CompressionMiddleware
from hasten.fastapi import document_rate_limits
from hasten.ratelimit import Limit, RateLimitMiddleware

# One address for each thing: with a slash at its end it is another one, and not there.
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
    # Whoever runs it on this machine may speak for clients: the tour is one after the other.
    trusted_proxies=["127.0.0.1"],
)
app.add_middleware(CompressionMiddleware)
document_rate_limits(app)


@app.exception_handler(RequestValidationError)
async def refuse(_: Request, error: RequestValidationError) -> JSONResponse:
    """Say what is wrong without repeating what was sent: not all of it can be sent back."""
    detail = [{key: each[key] for key in ("type", "loc", "msg")} for each in error.errors()]
    return JSONResponse({"detail": detail}, status_code=422)
