"""Responses equal ``model_dump(mode="json")``; models that differ are rejected at start-up."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, Flag, IntEnum
from functools import cached_property
from types import SimpleNamespace
from typing import Annotated, Any, Generic, Literal, NotRequired, TypeVar
from uuid import UUID

import pydantic.dataclasses
import pytest
from pydantic import (
    AfterValidator,
    AliasChoices,
    AliasGenerator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    EmailStr,
    Field,
    PlainSerializer,
    PrivateAttr,
    RootModel,
    SecretStr,
    SerializeAsAny,
    StringConstraints,
    WrapSerializer,
    computed_field,
    field_serializer,
    model_serializer,
    with_config,
)
from pydantic.alias_generators import to_camel
from sqlalchemy import ForeignKey, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
from sqlalchemy.pool import NullPool
from typing_extensions import TypedDict

from hasten.errors import InvalidOption
from hasten.fields import AllowedFields, FieldSelector, encode
from hasten.pagination import Paginator

T = TypeVar("T")

SECRET = "a secret of more than 16 bytes"


class Level(IntEnum):
    LOW = 1


class Colour(Enum):
    RED = "red"


class Rights(Flag):
    READ = 1
    WRITE = 2


class Tag(BaseModel):
    name: str
    weight: float = Field(default=0.5, serialization_alias="w")


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = Field(exclude_if=lambda lives: lives == 9)


class Dog(BaseModel):
    model_config = ConfigDict(ser_json_timedelta="float")
    kind: Literal["dog"] = "dog"
    age: timedelta


class Words(RootModel[list[str]]):
    pass


class Point:
    """A type with a custom JSON form."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.any_schema(serialization=core_schema.to_string_ser_schema())

    def __str__(self) -> str:
        return "a point"


class Conditional(BaseModel):
    id: int
    email: str = Field(exclude_if=lambda value: value.endswith("@internal"))
    note: Annotated[str | None, Field(exclude_if=lambda value: value is None)] = None


class Excluded(BaseModel):
    id: int
    secret: str = Field(exclude=True)
    more: Annotated[str, Field(exclude=True)] = "s"


class Aliased(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True)
    first_name: str
    last_name: str = Field(serialization_alias="surname")
    by_choice: int = Field(default=1, validation_alias=AliasChoices("a", "b"))
    tags: list[Tag] = Field(default=[], alias="allTags")


class ByAlias(BaseModel):
    model_config = ConfigDict(
        serialize_by_alias=True, alias_generator=AliasGenerator(serialization_alias=str.upper)
    )
    id: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def twice(self) -> int:
        return self.id * 2


class Serialized(BaseModel):
    id: int
    at: datetime
    name: str
    none: int | None = None

    @field_serializer("at")
    def in_seconds(self, at: datetime) -> int:
        return int(at.timestamp())

    @field_serializer("name", mode="wrap")
    def loud(self, name: str, handler: Callable[[str], str]) -> str:
        return handler(name).upper() + str(self.id)

    @field_serializer("none", when_used="json-unless-none")
    def never(self, none: int) -> str:
        return f"<{none}>"


def tagged(value: Any, handler: Callable[[Any], Any]) -> Any:
    return {"value": handler(value)}


class Annotations(BaseModel):
    plain: Annotated[int, PlainSerializer(str)]
    wrapped: Annotated[date, WrapSerializer(tagged)]
    python_only: Annotated[int, PlainSerializer(str, when_used="unless-none")]
    inside: list[Annotated[int, PlainSerializer(hex)]]
    secret: SecretStr
    email: EmailStr
    short: Annotated[str, StringConstraints(to_upper=True)]
    point: Point


class Formats(BaseModel):
    span: timedelta
    blob: bytes
    amount: Decimal
    ref: UUID
    clock: time
    real: float
    infinite: float = float("inf")
    level: Level
    colour: Colour
    rights: Rights
    anything: Any = None
    thing: object = None
    document: dict[str, Any] = {}
    numbers: dict[int, Decimal] = {}
    some: set[int] = set()
    pair: tuple[int, date] | None = None
    text: str | bytes = ""


class Configured(Formats):
    model_config = ConfigDict(
        ser_json_timedelta="float",
        ser_json_bytes="hex",
        use_enum_values=True,
        str_strip_whitespace=True,
    )


class Temporal(BaseModel):
    model_config = ConfigDict(ser_json_temporal="milliseconds")
    at: datetime
    day: date
    span: timedelta


with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)

    class Encoded(BaseModel):
        model_config = ConfigDict(json_encoders={datetime: lambda at: at.year})
        at: datetime


class Computed(BaseModel):
    _factor: int = PrivateAttr(default=3)
    side: int

    @computed_field(alias="theArea", exclude_if=lambda value: value == 4)  # type: ignore[prop-decorator]
    @property
    def area(self) -> int:
        return self.side**2

    @computed_field  # type: ignore[prop-decorator]
    @cached_property
    def span(self) -> timedelta:
        return timedelta(hours=self.side * self._factor)

    @field_serializer("span")
    def hours(self, span: timedelta) -> str:
        return f"{span.total_seconds() / 3600} h"


class Place(TypedDict):
    town: str
    street: NotRequired[str]
    zip: NotRequired[int]


class Zoo(BaseModel):
    best: Cat | Dog = Field(discriminator="kind")
    all: list[Annotated[Cat | Dog, Field(discriminator="kind")]]
    by_name: dict[str, Cat | Dog]
    mixed: Cat | str
    words: Words
    any: SerializeAsAny[BaseModel]
    cats: list[Cat]
    none: list[Tag] | None = None
    gaps: list[Tag | None] = []
    pairs: list[list[Tag]] = []
    tag: Tag
    place: Place = {"town": "t"}
    places: list[Place] = []


class Box(BaseModel, Generic[T]):
    content: T
    more: list[T] = []


class WithPrivate(BaseModel):
    _cache: dict[str, int] = PrivateAttr(default_factory=dict)
    name: Annotated[str, BeforeValidator(lambda text: text.removeprefix("x"))]


AT = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)

FORMATS: Mapping[str, Any] = {
    "span": timedelta(days=1, milliseconds=5), "blob": b"bytes", "amount": Decimal("1.20"),
    "ref": UUID(int=7), "clock": time(1, 2), "real": 0.1, "level": Level.LOW,
    "colour": Colour.RED, "rights": Rights.READ | Rights.WRITE, "anything": {AT: {b"x"}},
    "thing": Tag(name="t"), "document": {"blob": b"x", "tag": Tag(name="t"), "span": timedelta(1)},
    "numbers": {1: Decimal(2)}, "some": {3}, "pair": (1, AT.date()), "text": b"x",
}  # fmt: skip

INSTANCES = [
    Conditional(id=1, email="a@internal"),
    Conditional(id=1, email="a@b", note="n"),
    Excluded(id=1, secret="s"),
    Aliased(firstName="a", lastName="b", allTags=[Tag(name="t")]),  # type: ignore[call-arg]
    ByAlias(id=2),
    Serialized(id=1, at=AT, name="ada"),
    Annotations(
        plain=1, wrapped=AT.date(), python_only=2, inside=[10], secret=SecretStr("s"),
        email="a@example.org", short="a", point=Point(),
    ),
    Formats(**FORMATS),
    Configured(**FORMATS),
    Temporal(at=AT, day=AT.date(), span=timedelta(1)),
    Encoded(at=AT),
    Computed(side=1),
    Computed(side=2),
    Zoo(
        best=Cat(lives=9), all=[Dog(age=timedelta(1)), Cat(lives=3)], by_name={"a": Cat(lives=9)},
        mixed="cat", words=Words(["a"]), any=Tag(name="t"), cats=[Cat(lives=9), Cat(lives=1)],
        gaps=[None, Tag(name="g")], pairs=[[Tag(name="p")]], tag=Tag(name="t", weight=1),
        places=[{"town": "u", "street": "s"}, {"town": "v", "zip": 7}],
    ),
    Box[Tag](content=Tag(name="t"), more=[Tag(name="u")]),
    Box[int](content=1),
    WithPrivate(name="xxname"),
]  # fmt: skip

NEEDS: Mapping[type[BaseModel], Mapping[str, Sequence[str]]] = {
    Computed: {"theArea": ("side",), "span": ("side",)},
    ByAlias: {"TWICE": ("id",)},
    Serialized: {"name": ("name", "id")},
}


def all_of(model: type[BaseModel]) -> FieldSelector[Any]:
    allowed = AllowedFields(model, needs=NEEDS.get(model))
    return FieldSelector(
        AllowedFields(model, needs=NEEDS.get(model), default=tuple(allowed.fields))
    )


def in_json(instance: BaseModel) -> Any:
    """JSON has no infinity, so it is null, as in pydantic."""
    dumped = instance.model_dump(mode="json", by_alias=True)
    found = json.loads(json.dumps(dumped).replace("Infinity", "null"))
    assert found == json.loads(instance.model_dump_json(by_alias=True))
    return found


every_instance = pytest.mark.parametrize(
    "instance", INSTANCES, ids=[f"{type(each).__name__}-{n}" for n, each in enumerate(INSTANCES)]
)


@every_instance
def test_an_instance_is_written_as_model_dump_writes_it(instance: BaseModel) -> None:
    fields = all_of(type(instance))
    row = fields.from_item(instance, fields.allowed.default)
    assert json.loads(encode(row)) == in_json(instance)
    assert list(row) == list(instance.model_dump(mode="json", by_alias=True))


@every_instance
def test_a_field_alone_has_the_same_value(instance: BaseModel) -> None:
    fields = all_of(type(instance))
    together = in_json(instance)
    for name in fields.allowed.fields:
        row = json.loads(encode(fields.from_item(instance, fields.parse([("fields", name)]))))
        expected = {name: together[name]} if name in together else {}
        assert row == expected or fields.allowed.fields[name].relation is not None


@every_instance
def test_an_object_with_the_same_attributes_is_written_alike(instance: BaseModel) -> None:
    if isinstance(instance, WithPrivate):
        return  # the validator behaves differently the second time
    fields = all_of(type(instance))
    copied = SimpleNamespace(**dict(instance))
    assert json.loads(encode(fields.from_item(copied, fields.allowed.default))) == in_json(instance)


def test_a_page_of_a_list_has_the_same_rows() -> None:
    instances = [Conditional(id=n, email="a@internal" if n % 2 else "a@b") for n in range(4)]
    pages = Paginator(Conditional, unique=("id",))
    page = pages.from_items(instances, pages.parse(""))
    assert page.data == [each.model_dump(mode="json") for each in instances]


# Rows of a database -------------------------------------------------------------------------------


class Base(DeclarativeBase):
    pass


class Owner(Base):
    __tablename__ = "d_owners"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]
    pets: Mapped[list[Pet]] = relationship(order_by="Pet.id")


class Pet(Base):
    __tablename__ = "d_pets"
    id: Mapped[int] = mapped_column(primary_key=True)
    lives: Mapped[int]
    owner_id: Mapped[int] = mapped_column(ForeignKey("d_owners.id"))
    owner: Mapped[Owner] = relationship(back_populates="pets")


class OnlyOwner(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: int
    email: str = Field(exclude_if=lambda value: value.endswith("@internal"))


class PetOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: int
    lives: int = Field(exclude_if=lambda lives: lives == 9)
    owner: OnlyOwner


def test_rows_of_a_database_are_written_as_entities_are() -> None:
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(Owner(id=n, email="a@internal" if n % 2 else "a@b") for n in (1, 2))
        session.add_all(Pet(id=n, lives=n, owner_id=n % 2 + 1) for n in (8, 9))
        session.flush()
        pages = Paginator(PetOut, model=Pet, advise=False)
        rows = pages.sync.page(session, select(Pet), pages.parse("")).data
        entities = session.scalars(select(Pet).order_by(Pet.id)).all()
        expected = [PetOut.model_validate(each).model_dump(mode="json") for each in entities]
        assert rows == expected == [
            {"id": 8, "lives": 8, "owner": {"id": 1}},
            {"id": 9, "owner": {"id": 2, "email": "a@b"}},
        ]  # fmt: skip
    engine.dispose()


class TestInCursors:
    """Clients can read the values in a cursor."""

    def test_a_field_that_a_row_may_hide_is_not_sorted_by(self) -> None:
        keyed: list[dict[str, Any]] = [
            {"unique": ("id",), "sort": ("email",)},
            {"unique": ("id",), "default_sort": "email"},
            {"unique": ("email",)},
        ]
        for options in keyed:
            with pytest.raises(InvalidOption, match="clients can read the sort values in a cursor"):
                Paginator(Conditional, mode="cursor", secret=SECRET, **options)

    def test_a_field_that_a_row_may_hide_is_not_in_cursors_of_a_sorted_select(self) -> None:
        pages = Paginator(OnlyOwner, model=Owner, mode="cursor", secret=SECRET, advise=False)
        engine = create_engine("sqlite://", poolclass=NullPool)
        with Session(engine) as session, pytest.raises(InvalidOption, match="a cursor"):
            pages.sync.page(session, select(Owner).order_by(Owner.email), pages.parse(""))


# What is refused ----------------------------------------------------------------------------------


class Whole(BaseModel):
    id: int

    @model_serializer
    def dump(self) -> dict[str, int]:
        return {"other": self.id}


class Wrapped(BaseModel):
    id: int

    @model_serializer(mode="wrap")
    def dump(self, handler: Callable[[Any], Any]) -> Any:
        return handler(self)


class Extra(BaseModel):
    model_config = ConfigDict(extra="allow")
    id: int


class Infinite(BaseModel):
    model_config = ConfigDict(ser_json_inf_nan="strings")
    id: float


class Polymorphic(BaseModel):
    model_config = ConfigDict(polymorphic_serialization=True)
    id: int


class PostInit(BaseModel):
    id: int

    def model_post_init(self, context: Any, /) -> None:
        self.id += 1


class OwnSchema(BaseModel):
    id: int

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        return handler(source)


def holding(annotation: Any) -> type[BaseModel]:
    return pydantic.create_model("Holding", tag=annotation)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Whole, "without 'dump'"),
        (Wrapped, "without 'dump'"),
        (holding(Whole), "without 'dump'"),
        (holding(list[Wrapped] | None), "without 'dump'"),
        (Extra, "set extra='ignore'"),
        (holding(Extra), "set extra='ignore'"),
        (Infinite, "written as null"),
        (Polymorphic, "without polymorphic_serialization"),
        (PostInit, "without 'model_post_init'"),
        (OwnSchema, "without '__get_pydantic_core_schema__'"),
        (Words, "which a RootModel does not have"),
        (holding(Annotated[Tag, PlainSerializer(str)]), r"opaque=\('tag',\)"),
        (holding(Annotated[Tag, WrapSerializer(tagged)] | None), r"opaque=\('tag',\)"),
        (holding(list[Annotated[Tag, PlainSerializer(str)]]), r"opaque=\('tag',\)"),
        (holding(SerializeAsAny[Tag]), r"opaque=\('tag',\)"),
        (holding(list[SerializeAsAny[Tag]]), r"opaque=\('tag',\)"),
        (holding(Annotated[Tag, AfterValidator(lambda tag: tag)]), r"opaque=\('tag',\)"),
        (holding(Annotated[Tag, Field(exclude_if=bool)]), r"opaque=\('tag',\)"),
    ],
)
def test_rules_inapplicable_to_fields_are_rejected(model: type[BaseModel], words: str) -> None:
    for make in (FieldSelector, lambda source: Paginator(source, unique=())):
        with pytest.raises(InvalidOption, match=words):
            make(model)


@pytest.mark.parametrize(
    "annotation",
    [
        Annotated[Tag, PlainSerializer(lambda tag: tag.name)],
        Annotated[Tag | None, Field(exclude_if=lambda tag: tag.name == "t")],
        SerializeAsAny[Tag],
        Whole,
        Extra,
    ],
)
def test_rules_of_an_opaque_model_apply(annotation: Any) -> None:
    class Heavy(Tag):
        mass: int = 7

    model = pydantic.create_model("Holding", tag=annotation)
    fields = FieldSelector(model, opaque=("tag",))
    values = (Whole(id=1), Extra(id=1, more_suffix="x"), Heavy(name="t"))  # type: ignore[call-arg]
    for value in values:
        try:
            instance = model(tag=value)
        except pydantic.ValidationError:
            continue
        dumped = instance.model_dump(mode="json", by_alias=True)
        assert fields.from_item(instance, fields.parse("")) == dumped


@dataclasses.dataclass
class ExcludedByDefault:
    id: int
    secret: str = Field(default="s", exclude=True)


@dataclasses.dataclass
class ExcludedByAnnotation:
    id: Annotated[int, Field(exclude_if=bool)]


@dataclasses.dataclass
class Masked:
    token: SecretStr | None


@dataclasses.dataclass
class OfWords:
    words: dict[str, Words]


class SerializedKey(TypedDict):
    id: Annotated[int, PlainSerializer(str)]


@with_config(ConfigDict(ser_json_timedelta="float"))
class ConfiguredKey(TypedDict):
    span: timedelta


@with_config(ConfigDict(alias_generator=to_camel))
class AliasedKey(TypedDict):
    first_name: str


@dataclasses.dataclass
class Upper:
    name: Annotated[str, StringConstraints(to_upper=True)]


@pydantic.dataclasses.dataclass
class Loud:
    name: str = Field(exclude_if=bool)


@pytest.mark.parametrize(
    "model",
    [
        ExcludedByDefault, ExcludedByAnnotation, Masked, OfWords, SerializedKey, ConfiguredKey,
        AliasedKey, Upper, Loud,
    ],
)  # fmt: skip
def test_options_of_pydantic_in_other_classes_are_rejected(model: type) -> None:
    with pytest.raises(InvalidOption, match=r"a (pydantic )?BaseModel"):
        FieldSelector(model)
    with pytest.raises(InvalidOption, match=r"a (pydantic )?BaseModel"):
        FieldSelector(holding(model))


def test_constraints_do_not_change_values() -> None:
    @dataclasses.dataclass
    class Short:
        name: Annotated[str, StringConstraints(max_length=9), Field(min_length=1)]
        tag: Annotated[Tag | None, Field(description="one")] = None

    fields = FieldSelector(Short)
    assert fields.from_item(Short("ada"), fields.parse("")) == {"name": "ada"}
