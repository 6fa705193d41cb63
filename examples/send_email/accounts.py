"""Log in. Checking a password is expensive on purpose, so logins are limited, too.

Only the first user has a password: see `seed`.
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
"""Is compared if there is no such user: the time of a response must not show which users exist."""


class Login(BaseModel):
    email: EmailStr
    password: str = Field(max_length=1000)


@router.post(
    "/login", responses={401: {"description": "The e-mail address or the password is wrong."}}
)
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
    except ValueError:  # a placeholder, as most users here have
        return False
    return hmac.compare_digest(hash_password(password, salt), stored)
