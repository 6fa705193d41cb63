"""The JSON is that of the model, without validating the rows again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pydantic.dataclasses
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    EmailStr,
    Field,
    PlainSerializer,
    StringConstraints,
    TypeAdapter,
    computed_field,
    create_model,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)
from sqlalchemy import select
from sqlalchemy.orm import Session

from hasten.errors import InvalidOption
from hasten.fields import AllowedFields, FieldSelector, encode
from tests.fields.databases import Post, Role, Thing, User, engine
from tests.fields.models import FussyOut, ThingOut, UserOut
from tests.pagination.databases import statements_of

PLAIN_VALUES = {
    str: st.text(),
    int: st.integers(),
    bool: st.booleans(),
    float: st.floats(max_value=1e15, min_value=-1e15, allow_nan=False),
    Decimal: st.decimals(allow_nan=False),
    UUID: st.uuids(),
    date: st.dates(),
    time: st.times(),
    datetime: st.datetimes(
        timezones=st.sampled_from(
            [None, UTC, timezone(timedelta(hours=-3, minutes=-30)), ZoneInfo("Europe/Paris")]
        ),
        min_value=datetime(1920, 1, 1),  # noqa: DTZ001 - the zone is drawn beside it
    ),
    Role: st.sampled_from(Role),
}


@given(st.sampled_from(list(PLAIN_VALUES)).flatmap(
    lambda kind: st.tuples(st.just(kind), PLAIN_VALUES[kind])
))  # fmt: skip
def test_plain_values_are_written_as_pydantic_writes_them(given: tuple[Any, object]) -> None:
    kind, value = given
    assert encode(value) == TypeAdapter(kind).dump_json(value)


@given(st.floats())
def test_a_large_float_is_the_same_number(value: float) -> None:
    assert str(json.loads(encode(value))) == str(json.loads(TypeAdapter(float).dump_json(value)))


def read(
    database: str, fields: FieldSelector[Any], statement: Any, text: str | None = None
) -> bytes:
    query = [("fields", text)] if text is not None else []
    with Session(engine(database)) as session:
        return encode(fields.sync.many(session, statement, fields.parse(query)))


def of_entities(database: str, model: type[BaseModel], statement: Any) -> bytes:
    """Return the usual JSON: entities that are validated and dumped by the model."""
    with Session(engine(database)) as session:
        entities = session.scalars(statement).all()
        adapter = TypeAdapter(list[model])  # type: ignore[valid-type]
        return adapter.dump_json(
            adapter.validate_python(entities, from_attributes=True), by_alias=True
        )


class TestSameBytes:
    def test_every_type_is_written_as_its_model_writes_it(self, database: str) -> None:
        statement = select(Thing).order_by(Thing.id)
        fields = FieldSelector(ThingOut, model=Thing)
        assert read(database, fields, statement) == of_entities(database, ThingOut, statement)

    @pytest.mark.parametrize("name", list(ThingOut.model_fields))
    def test_each_type_alone_is_written_as_its_model_writes_it(self, name: str) -> None:
        statement = select(Thing).order_by(Thing.id)
        info = ThingOut.model_fields[name]
        expected = of_entities("sqlite", of(info.annotation, name), statement)
        assert read("sqlite", FieldSelector(ThingOut, model=Thing), statement, name) == expected

    def test_aliases_and_computed_fields_are_written_as_by_the_model(self, database: str) -> None:
        statement = select(User).order_by(User.id).limit(5)
        fields = FieldSelector(FussyOut, model=User, needs={"fullName": ("first", "last")})
        assert read(database, fields, statement) == of_entities(database, FussyOut, statement)

    def test_an_unselected_field_is_absent_and_a_null_is_null(self) -> None:
        fields = FieldSelector(UserOut, model=User, default=["id", "email"])
        body = read("sqlite", fields, select(User).where(User.id == 5))
        assert body == b'[{"id":5,"email":null}]'


class TestComputed:
    fields = FieldSelector(FussyOut, model=User, needs={"fullName": ("first", "last")})

    def test_a_computed_field_selects_its_columns_without_showing_them(self, database: str) -> None:
        with statements_of(engine(database)) as log:
            body = read(database, self.fields, select(User).where(User.id == 3), "fullName")
        assert body == b'[{"fullName":"first3 last3"}]'
        assert len(log) == 1
        assert "f_users.first" in log[0]
        assert "f_users.name" not in log[0]

    def test_a_function_can_compute_a_field(self, database: str) -> None:
        def initials(first: str, last: str) -> str:
            return first[:1] + last[:1]

        user = AllowedFields(["id", "initials"], needs={"initials": ("first", "last")})
        fields = FieldSelector(
            {"id": "id", "author": user}, model=Post, compute={"author.initials": initials}
        )
        statement = select(Post).where(Post.id == 1)
        body = read(database, fields, statement, "author(initials),id")
        assert body == b'[{"id":1,"author":{"initials":"fl"}}]'

    def test_a_computed_field_without_a_function_is_refused(self) -> None:
        user = AllowedFields(["id", "initials"], needs={"initials": ("first", "last")})
        with pytest.raises(InvalidOption, match=r"compute=\{'initials': function\}"):
            FieldSelector(user, model=User)

    def test_a_computed_field_that_reads_an_undeclared_field_raises_an_error(self) -> None:
        class Polite(FussyOut):
            title: str = "Dr"

            @computed_field  # type: ignore[prop-decorator]
            @property
            def address(self) -> str:
                return f"{self.title} {self.last}"

        needs = {"fullName": ("first", "last"), "address": ("last",)}
        source = AllowedFields(Polite, needs=needs).without("title")
        with pytest.raises(AttributeError, match="title"):
            read("sqlite", FieldSelector(source, model=User), select(User), "address")

    def test_a_serializer_gets_the_other_fields_it_needs(self, database: str) -> None:
        class Both(BaseModel):
            first: str
            last: str

            @field_serializer("last")
            def with_first(self, last: str) -> str:
                return f"{last}, {self.first}"

        fields = FieldSelector(Both, model=User, needs={"last": ("last", "first")})
        body = read(database, fields, select(User).where(User.id == 1), "last")
        assert body == b'[{"last":"last1, first1"}]'

    def test_a_model_without_the_needed_fields_is_refused(self) -> None:
        class Lacking(BaseModel):
            @computed_field  # type: ignore[prop-decorator]
            @property
            def full_name(self) -> str:
                return ""

        with pytest.raises(InvalidOption, match=r"declare it with Field\(exclude=True\)"):
            FieldSelector(Lacking, model=User, needs={"full_name": ["first"]})


class Checked(BaseModel):
    name: str

    @field_validator("name")
    @classmethod
    def title(cls, name: str) -> str:
        return name.title()


class CheckedFirst(Checked):
    id: int

    @field_serializer("*")
    def all_of_them(self, value: object) -> str:
        return f"<{value}>"


class Renamed(BaseModel):
    model_config = ConfigDict(alias_generator=str.upper, populate_by_name=True)
    name: Annotated[str, AfterValidator(str.upper)]
    id: int


class ReadOnly(BaseModel):
    model_config = ConfigDict(frozen=True)
    id: str = Field(coerce_numbers_to_str=True)
    name: Literal["user01"]


def of(annotation: Any, attribute: str = "name", **config: Any) -> type[BaseModel]:
    fields: dict[str, Any] = {attribute: (annotation, ...)}
    return create_model("Made", __config__=ConfigDict(**config), **fields)  # type: ignore[typeddict-item]


class TestOwnWay:
    """Models with serializers, and values that do not fit their annotations."""

    @pytest.mark.parametrize(
        "model",
        [
            Checked,
            CheckedFirst,
            Renamed,
            of(Annotated[str, AfterValidator(str.upper)]),
            of(Annotated[str, PlainSerializer(len)]),
            of(Annotated[str, StringConstraints(to_upper=True)]),
            of(Annotated[str, Field(max_length=50, pattern="u")]),
            of(str, str_to_upper=True),
            of(Annotated[str, Field(min_length=1)] | None),
            of(str | int),
            of(float, "id"),
            of(Decimal, "id"),
            of(float, "balance"),
            of(str, "role"),
            of(Any, "created"),
            of(object, "settings"),
            of(dict[str, Any], "settings"),
            of(Role, "role", use_enum_values=True),
            of(Annotated[EmailStr, Field()], "email"),
        ],
    )
    def test_a_custom_type_is_written_as_its_model_writes_it(self, model: type[BaseModel]) -> None:
        statement = select(User).where(User.id == 1)
        assert read("sqlite", FieldSelector(model, model=User), statement) == of_entities(
            "sqlite", model, statement
        )

    def test_an_invalid_value_raises_the_error_of_the_model(self) -> None:
        with pytest.raises(ValueError, match="Input should be a valid integer"):
            read("sqlite", FieldSelector(of(int), model=User), select(User))

    def test_a_frozen_model_with_validators_is_rejected(self) -> None:
        with pytest.raises(InvalidOption, match="frozen"):
            FieldSelector(ReadOnly, model=User)

    def test_only_those_fields_go_through_the_model(self) -> None:
        fields = FieldSelector(FussyOut, model=User, needs={"fullName": ("first", "last")})
        builder = fields._require_loaders().entity.builder
        assert {field.name for field in builder.through_model} == {"created", "fullName"}

    @pytest.mark.parametrize("decorate", [model_validator(mode="after"), model_serializer])
    def test_a_rule_for_a_whole_model_is_refused(self, decorate: Callable[..., Any]) -> None:
        def all_of_it(self: Any) -> Any:
            return self

        whole = type("Whole", (Checked,), {"all_of_it": decorate(all_of_it)})
        with pytest.raises(InvalidOption, match="without 'all_of_it'"):
            FieldSelector(whole, model=User)

    def test_a_rule_for_a_relation_is_refused(self) -> None:
        class Told(BaseModel):
            boss: Checked | None

            @field_serializer("boss")
            def short(self, boss: Checked) -> str:
                return boss.name

        with pytest.raises(InvalidOption, match=r"opaque=\('boss',\)"):
            FieldSelector(Told, model=User)


class TestOtherModels:
    def test_a_dataclass_of_pydantic(self, database: str) -> None:
        @pydantic.dataclasses.dataclass
        class Quiet:
            id: int
            role: Role

        @pydantic.dataclasses.dataclass
        class Loud:
            name: Annotated[str, AfterValidator(str.upper)]

        statement = select(User).where(User.id == 1)
        assert (
            read(database, FieldSelector(Quiet, model=User), statement)
            == b'[{"id":1,"role":"admin"}]'
        )
        with pytest.raises(
            InvalidOption,
            match="a BaseModel, because a dataclass cannot validate 'name' without all",
        ):
            FieldSelector(Loud, model=User)

    def test_a_msgspec_model_is_written_with_its_renamed_fields(self, database: str) -> None:
        class Camel(msgspec.Struct, rename="camel"):
            id: int
            created: datetime
            team_id: int | None

        fields = FieldSelector(Camel, model=User)
        body = read(database, fields, select(User).where(User.id == 4))
        assert msgspec.json.decode(body, type=list[Camel])[0].team_id is None
        assert list(json.loads(body)[0]) == ["id", "created", "teamId"]

    def test_dataclasses_and_names(self, database: str) -> None:
        @dataclasses.dataclass
        class Plain:
            id: int
            role: Role

        statement = select(User).where(User.id == 1)
        assert (
            read(database, FieldSelector(Plain, model=User), statement)
            == b'[{"id":1,"role":"admin"}]'
        )
        named = FieldSelector({"Id": "id", "who": "name"}, model=User)
        assert read(database, named, statement) == b'[{"Id":1,"who":"user01"}]'
