"""A web application that sends mail in the background, and answers in pages.

It runs alone, too: ``uvicorn examples.send_email.app:app``. Where it keeps what it has to keep is
said in `mail` and in `blog`.
"""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from examples.send_email import blog, mail
from hasten.compression import CompressionMiddleware

# One address for each thing: with a slash at its end it is another one, and not there.
app = FastAPI(title="Mail and posts", redirect_slashes=False)
app.include_router(mail.router)
app.include_router(blog.router)
app.add_middleware(CompressionMiddleware)


@app.exception_handler(RequestValidationError)
async def refuse(_: Request, error: RequestValidationError) -> JSONResponse:
    """Say what is wrong without repeating what was sent: not all of it can be sent back."""
    detail = [{key: each[key] for key in ("type", "loc", "msg")} for each in error.errors()]
    return JSONResponse({"detail": detail}, status_code=422)
