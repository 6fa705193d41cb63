"""The response models of the tests of fields."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, computed_field, field_serializer
from pydantic.alias_generators import to_camel

from tests.fields.databases import Role


class TagOut(BaseModel):
    id: int
    name: str


class PostOut(BaseModel):
    id: int
    title: str
    tags: list[TagOut] = []
    author: UserOut | None = None


class BadgeOut(BaseModel):
    text: str


class TeamOut(BaseModel):
    id: int
    name: str
    members: list[UserOut] = []


class UserOut(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    id: int
    name: str
    email: str | None
    created: datetime
    balance: Decimal
    role: Role
    ref: UUID
    settings: dict[str, Any]
    shouted: str
    team: TeamOut | None = None
    boss: UserOut | None = None
    posts: list[PostOut] = []
    badge: BadgeOut | None = None


class ThingOut(BaseModel):
    id: int
    text: str | None
    number: int | None
    real: float | None
    flag: bool | None
    moment: datetime | None
    local: datetime | None
    day: date | None
    clock: time | None
    span: timedelta | None
    amount: Decimal | None
    ref: UUID | None
    role: Role | None
    blob: bytes | None
    document: Any | None


class FussyOut(BaseModel):
    """A model with serializers of its own."""

    id: int
    name: str
    first: str = Field(exclude=True)
    last: str = Field(exclude=True)
    created: datetime

    @field_serializer("created")
    def in_seconds(self, created: datetime) -> int:
        return int(created.timestamp())

    @computed_field(alias="fullName")  # type: ignore[prop-decorator]
    @property
    def full_name(self) -> str:
        return f"{self.first} {self.last}"
