"""Log in. Each guess costs the server as much as it costs the client, so guesses are limited too.

Of all users only the first has a password, which is not much of a secret.
"""

import asyncio
import hashlib
import hmac
from typing import Final

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel, EmailStr, Field
from sqlalchemy import select

from examples.send_email.blog import DB
from examples.send_email.tables import User

router = APIRouter(prefix="/api/auth")

NOBODY: Final = f"$scrypt${'00' * 16}${'00' * 32}"
"""Compared with where there is no such user, so that nobody learns that by the time it takes."""


class Login(BaseModel):
    email: EmailStr
    password: str = Field(max_length=1000)


@router.post("/login", responses={401: {"description": "It is not the password of that user."}})
async def login(db: DB, given: Login) -> dict[str, str]:
    stored = await db.scalar(select(User.password_hash).where(User.email == given.email))
    if not await asyncio.to_thread(is_password, given.password, stored or NOBODY):
        raise HTTPException(401, "wrong e-mail address or password")
    return {"status": "logged in"}


def hash_password(password: str, salt: bytes) -> str:
    derived = hashlib.scrypt(
        password.encode("utf-8", "surrogatepass"), salt=salt, n=2**14, r=8, p=1, dklen=32
    )
    return f"$scrypt${salt.hex()}${derived.hex()}"


def is_password(password: str, stored: str) -> bool:
    try:
        salt = bytes.fromhex(stored.split("$")[2])
    except ValueError:  # made up, as those of most users here
        return False
    return hmac.compare_digest(hash_password(password, salt), stored)
