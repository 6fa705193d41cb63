"""Create the users and posts of the blog. They are the same at each start."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from examples.send_email.tables import Base, Post, User

USERS: Final = 1_000
POSTS: Final = 100_000

FIRST_DAY: Final = datetime(2026, 1, 1, tzinfo=UTC)
NAMES: Final = "Ada Blaise Chien Dorothy Edsger Frances Grace Hedy Ivan Jean".split()
MOODS: Final = "Boring Careful Early Honest Late Plain Quick Quiet Small Warm".split()
THEMES: Final = (
    "answers caches deploys errors indexes letters migrations pages queues tests".split()
)
SENTENCE: Final = "It was slow, we looked at why, and it turned out to be something else. "


async def seed(engine: AsyncEngine) -> None:
    """Create the tables and fill them. Takes about a second."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(insert(User), list(users()))
        await connection.execute(insert(Post), list(posts()))


FIRST_HASH: Final = (
    "$scrypt$00112233445566778899aabbccddeeff"
    "$f5206d570fcd120bd1f23a8cd186bd87c04ac1db00e9ac1efca589774ae6ecb8"
)
"""The hash of "correct horse", the password of the first user."""


def users() -> Iterator[dict[str, Any]]:
    for number in range(USERS):
        name = f"{NAMES[number % 10]} {number // 10 + 1}"
        yield {
            "name": name,
            "email": f"{name.replace(' ', '.').lower()}@example.org",
            "password_hash": f"$scrypt$never-to-be-seen${number:032x}" if number else FIRST_HASH,
            "about": f"{name} writes about {THEMES[number // 10 % 10]}. {SENTENCE * 4}".rstrip(),
            "joined_at": FIRST_DAY + timedelta(hours=number),
        }


def posts() -> Iterator[dict[str, Any]]:
    for number in range(POSTS):
        subject = f"{MOODS[number * 7 % 10]} {THEMES[number // 10 % 10]}"
        yield {
            "title": f"{subject}, part {number // 100 + 1}",
            "text": (SENTENCE * (number % 5 + 1)).rstrip(),
            # Three posts each have the same time, so that pages also have to order by the id.
            "created_at": FIRST_DAY + timedelta(minutes=number // 3),
            "author_id": number * 13 % USERS + 1,
        }
