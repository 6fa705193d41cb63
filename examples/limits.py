"""Limit the requests of each client: `python examples/limits.py`.

curl -i http://127.0.0.1:8000/api/posts
curl -i -X POST 'http://127.0.0.1:8000/api/auth/login?password=wrong'  # six times
"""

import os
import secrets

import uvicorn
from fastapi import FastAPI
from fastapi.exceptions import HTTPException

from hasten.fastapi import RateLimited
from hasten.ratelimit import Limit, RateLimitMiddleware, exempt

app = FastAPI()
app.add_middleware(
    RateLimitMiddleware,
    limits=[
        Limit("100/15m", path="/api/", message="Too many requests, please try again later"),
        Limit("5/h", path="/api/auth/login", methods=["POST"], skip_successful=True),
    ],
    store="memory://",  # redis://… or sqlite:///… for several processes
)


@app.get("/api/posts")
async def posts() -> list[str]:
    return ["Hello"]


@app.post("/api/auth/login")
async def login(password: str) -> dict[str, str]:
    if not secrets.compare_digest(password, "correct horse"):
        raise HTTPException(401, "wrong password")
    return {"status": "logged in"}


@app.get("/report", dependencies=[RateLimited("3/m")])
async def report() -> str:
    return "this route has a limit of its own"


@app.get("/health")
@exempt
async def health() -> str:
    return "ok"


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "8000")))
