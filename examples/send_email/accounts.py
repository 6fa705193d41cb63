"""The login, which has its own rate limit, because checking a password is slow on purpose.

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

UNKNOWN_USER_HASH: Final = f"$scrypt${'00' * 16}${'00' * 32}"
"""Checked if there is no such user, so that the response time does not show which users exist."""


class Login(BaseModel):
    email: EmailStr
    password: str = Field(max_length=1000)


@router.post(
    "/login", responses={401: {"description": "The e-mail address or the password is wrong."}}
)
async def login(db: DB, login_data: Login) -> dict[str, str]:
    stored = await db.scalar(select(User.password_hash).where(User.email == login_data.email))
    if not await asyncio.to_thread(is_password, login_data.password, stored or UNKNOWN_USER_HASH):
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
    except ValueError:  # a placeholder: most users of the demo have no password
        return False
    return hmac.compare_digest(hash_password(password, salt), stored)
