"""Fields of a model can be requested; all other names are rejected."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, NotRequired, Optional, TypedDict

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, computed_field
from pydantic.alias_generators import to_camel
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column

from hasten.errors import InvalidOption, InvalidParameter
from hasten.fields import AllowedFields, FieldSet


class Team(BaseModel):
    id: int
    title: str
    members: list[User] = []


class User(BaseModel):
    id: int
    name: str
    email: str
    bio: str | None = None
    team: Team | None = None
    password_hash: str = pydantic.Field(exclude=True)


class Comment(BaseModel):
    id: int
    body: str
    author: User


class Post(BaseModel):
    id: int
    title: str
    author: User
    comments: Sequence[Comment]


USERS = AllowedFields(User, default=["id", "name", "email"])
POSTS = AllowedFields(Post)


def refusal(allowed: AllowedFields, *texts: str) -> InvalidParameter:
    with pytest.raises(InvalidParameter) as info:
        allowed.parse(texts)
    assert info.value.status == 422
    return info.value


class TestChoosing:
    def test_no_parameter_selects_the_default_fields(self) -> None:
        assert USERS.parse([]).names == ("id", "name", "email")
        assert str(POSTS.parse([])) == "id,title"

    def test_an_empty_parameter_is_refused(self) -> None:
        assert refusal(USERS, "").code == "empty_name"

    def test_an_unknown_name_is_refused_with_the_allowed_ones(self) -> None:
        assert refusal(USERS, "id,nope,name,nor_this").problem() == {
            "type": "about:blank",
            "title": "Unprocessable Content",
            "status": 422,
            "detail": "fields: no such field: 'nope', 'nor_this'; "
            "allowed fields are id, name, email, bio, team",
            "code": "unknown_name",
            "parameter": "fields",
            "allowed": ["id", "name", "email", "bio", "team"],
        }

    def test_a_refusal_lists_at_most_fifty_names_and_ten_mistakes(self) -> None:
        many = AllowedFields([f"f{n}" for n in range(60)])
        error = refusal(many, ",".join(f"x{n}" for n in range(11)))
        assert error.allowed == tuple(f"f{n}" for n in range(50))
        assert "'x9' and more; allowed fields are f0, f1," in str(error)
        assert str(error).endswith("f49, …")

    @pytest.mark.parametrize(
        "text", ["{}", "id,{}", "{}(id)", "team({})", "team.{}.id", "team(members({}))"]
    )
    def test_a_hidden_name_is_refused_like_an_unknown_one(self, text: str) -> None:
        hidden, absent = (
            refusal(USERS, text.format(name)) for name in ("password_hash", "passwodr_hash")
        )
        said = [str(error.problem()).encode() for error in (hidden, absent)]
        assert said[0].replace(b"password_hash", b"passwodr_hash") == said[1]
        assert hidden.code == "unknown_name"

    def test_the_order_of_names_does_not_matter(self) -> None:
        """The order of the model is used, so that caches and ETags agree."""
        one = USERS.parse(["email,id"])
        assert one.names == ("id", "email")
        for texts in (["id,email"], ["email", "id"], ["email, id ,email"], ["email,id", "id"]):
            assert USERS.parse(texts) == one
            assert hash(USERS.parse(texts)) == hash(one)

    def test_a_star_is_an_unknown_name_by_default(self) -> None:
        assert refusal(USERS, "*").code == "unknown_name"
        assert refusal(POSTS, "author(*)").code == "unknown_name"

    def test_a_star_selects_all_plain_fields_if_allowed(self) -> None:
        posts = AllowedFields(Post, wildcard=True)
        assert str(posts.parse(["*"])) == "id,title"
        assert str(posts.parse(["*,author.*"])) == "id,title,author(id,name,email,bio)"
        assert refusal(posts, "*.id").code == "unknown_name"
        assert refusal(posts, "*(id)").code == "unknown_name"

    def test_a_relation_named_alone_has_its_default_fields(self) -> None:
        assert str(POSTS.parse(["author"])) == "author(id,name,email,bio)"

    def test_a_relation_named_alone_and_with_fields_has_both(self) -> None:
        assert str(POSTS.parse(["author,author.team.id"])) == ("author(id,name,email,bio,team(id))")

    def test_dots_and_parentheses_select_the_same_fields(self) -> None:
        assert POSTS.parse(["author(name)"]) == POSTS.parse(["author.name"])
        asked = POSTS.parse(["comments(id,author.name),title"])
        assert str(asked) == "title,comments(id,author(name))"
        [(comments, within)] = asked.relations.items()
        assert (comments.attribute, comments.many, within.names) == (
            "comments",
            True,
            ("id", "author"),
        )
        [(author, _)] = within.relations.items()
        assert (author.attribute, author.many) == ("author", False)

    @pytest.mark.parametrize("text", ["author.name.x", "author(name(x))", "id,author(id,name.x)"])
    def test_a_plain_field_has_no_fields_of_its_own(self, text: str) -> None:
        error = refusal(POSTS, text)
        assert error.code == "not_expandable"
        assert str(error) == (
            "fields='author.name': this field has no nested fields; "
            "request it without names after it"
        )

    def test_the_parameter_may_have_another_name(self) -> None:
        for text in ("nope", "id.x", "", "(", "a.b.c.d"):
            with pytest.raises(InvalidParameter, match=r"^fields\[posts\]") as info:
                POSTS.parse([text], parameter="fields[posts]")
            assert info.value.parameter == "fields[posts]"

    def test_the_maximum_depth_and_number_of_names_can_be_changed(self) -> None:
        with pytest.raises(InvalidParameter):
            POSTS.parse(["author.name"], max_depth=1)
        with pytest.raises(InvalidParameter):
            POSTS.parse(["id,id"], max_names=1)
        assert str(POSTS.parse(["author.team.members.name"], max_depth=4))

    def test_cyclic_models_end_at_the_maximum_depth(self) -> None:
        assert str(USERS.parse(["team(members(name))"])) == "team(members(name))"
        assert refusal(USERS, "team(members(team(title)))").code == "too_deep"

    def test_the_default_fields_of_a_relation_count_for_the_depth(self) -> None:
        """Otherwise the short form would select more than the long one may."""
        assert str(USERS.parse(["team.members"])) == "team(members(id,name,email))"
        for text in ("team.members.team", "team.members.team.id", "team(members(team,team.id))"):
            assert refusal(USERS, text).code == "too_deep"

    @pytest.mark.parametrize(
        "name", ["id;drop table users", "'", '"', "--", "\0", "__class__", "_sa_instance_state"]
    )
    def test_special_names_are_unknown_names(self, name: str) -> None:
        assert refusal(USERS, name).code == "unknown_name"
        assert refusal(USERS, f"id,{name}").allowed == ("id", "name", "email", "bio", "team")

    def test_only_the_named_fields_are_selected(self) -> None:
        assert "bio" not in USERS.parse(["id"]).names
        assert USERS.parse(["bio"]).names == ("bio",)

    def test_equal_selections_are_one_key_of_a_cache(self) -> None:
        shapes = {USERS.parse([text]) for text in ("id,name", "name,id", "id", "id,id")}
        assert len(shapes) == 2


class TestPydantic:
    def test_an_alias_is_the_public_name(self) -> None:
        class Out(BaseModel):
            model_config = pydantic.ConfigDict(alias_generator=to_camel)
            created_at: datetime
            is_open: bool = pydantic.Field(serialization_alias="open")
            name: str = pydantic.Field(alias="title")
            text: str = pydantic.Field(validation_alias="Text", serialization_alias="body")

        allowed = AllowedFields(Out)
        assert [(field.name, field.needs) for field in allowed.fields.values()] == [
            ("createdAt", ("created_at",)),
            ("open", ("is_open",)),
            ("title", ("name",)),
            ("body", ("text",)),
        ]
        assert refusal(allowed, "created_at").code == "unknown_name"

    def test_a_computed_field_selects_the_fields_it_needs(self) -> None:
        class Out(BaseModel):
            id: int
            first: str = pydantic.Field(exclude=True)
            last: str = pydantic.Field(exclude=True)

            @computed_field(alias="fullName")
            def full_name(self) -> str:
                return f"{self.first} {self.last}"

        allowed = AllowedFields(Out, needs={"fullName": ("first", "last")})
        asked = allowed.parse(["fullName"])
        assert (asked.names, asked.needs) == (("fullName",), ("first", "last"))
        assert allowed.fields["fullName"].is_computed
        assert not allowed.fields["id"].is_computed
        with pytest.raises(InvalidOption, match=r"that the computed field 'fullName' needs"):
            AllowedFields(Out)

    def test_a_field_that_several_need_is_selected_once(self) -> None:
        allowed = AllowedFields(
            {"id": "id", "name": "name", "label": "label"}, needs={"label": ("name", "id", "x")}
        )
        assert allowed.parse(["label,id,name"]).needs == ("id", "name", "x")

    def test_a_dataclass_of_pydantic(self) -> None:
        @pydantic.dataclasses.dataclass
        class Out:
            id: int
            created_at: Annotated[str, pydantic.Field(serialization_alias="createdAt")]

        assert list(AllowedFields(Out).fields) == ["id", "createdAt"]

    def test_a_root_model_is_one_value(self) -> None:
        class Tags(pydantic.RootModel[list[str]]):
            pass

        class Out(BaseModel):
            tags: Tags

        assert AllowedFields(Out).fields["tags"].relation is None

    def test_an_annotation_that_cannot_be_resolved_is_explained(self) -> None:
        class Out(BaseModel):
            other: Nowhere  # type: ignore[name-defined]  # noqa: F821

        with pytest.raises(
            InvalidOption, match=r"schema='.*Out': must be a model whose annotations can be"
        ):
            AllowedFields(Out)


class Author(msgspec.Struct, rename="camel"):
    id: int
    full_name: str


class Article(msgspec.Struct, rename={"created": "createdAt"}):
    id: int
    created: datetime
    author: Author | None
    others: list[Author]


@dataclass
class Tag:
    label: str


@dataclass
class Thing:
    id: int
    tag: Optional[Tag]  # noqa: UP045
    tags: tuple[Tag, ...]
    pair: tuple[Tag, Tag]
    either: Tag | Author
    words: list[str]
    by_name: dict[str, Tag]
    nothing: tuple[()]
    anything: Any
    noted: Annotated[list[Annotated[Tag, "x"]], "y"]
    plain: list  # type: ignore[type-arg]
    nested: list[list[Tag]] | None


@attrs.define
class Place:
    id: int
    tag: Tag


class Row(TypedDict):
    id: int
    tag: NotRequired[Tag]


class TestOtherModels:
    def test_a_renamed_field_of_msgspec_has_its_public_name(self) -> None:
        allowed = AllowedFields(Article)
        assert str(allowed.parse(["createdAt,author,others(fullName)"])) == (
            "createdAt,author(id,fullName),others(fullName)"
        )
        assert allowed.fields["createdAt"].attribute == "created"
        assert allowed.fields["others"].many
        assert not allowed.fields["author"].many

    def test_an_annotation_decides_what_is_a_relation(self) -> None:
        fields = AllowedFields(Thing).fields
        leads = {name: field.many for name, field in fields.items() if field.relation}
        assert leads == {"tag": False, "tags": True, "noted": True, "nested": True}

    @pytest.mark.parametrize("model", [Place, Row])
    def test_attrs_and_typed_dicts(self, model: type) -> None:
        assert str(AllowedFields(model).parse(["id,tag"])) == "id,tag(label)"


class Base(DeclarativeBase):
    pass


class Secret(Base):
    __tablename__ = "secret"
    id: Mapped[int] = mapped_column(primary_key=True)
    password_hash: Mapped[str]


class DataSecret(MappedAsDataclass, Base):
    __tablename__ = "data_secret"
    id: Mapped[int] = mapped_column(primary_key=True)
    password_hash: Mapped[str]


class TestTables:
    @pytest.mark.parametrize("table", [Secret, DataSecret])
    def test_a_mapped_table_is_refused_as_a_source(self, table: type) -> None:
        """Also a dataclass, or one in a field of another model."""
        with pytest.raises(InvalidOption, match="a mapped table would show all of its columns"):
            AllowedFields(table)
        with pytest.raises(InvalidOption, match="a mapped table would show all of its columns"):
            AllowedFields(dataclasses.make_dataclass("Out", [("owner", table)]))

    @pytest.mark.parametrize(
        "schema",
        [Secret.__table__, Secret.__table__.columns, [Secret.id], "id", int, None, {"a": 1}],
    )
    def test_a_source_without_named_fields_is_refused(self, schema: object) -> None:
        with pytest.raises(InvalidOption, match="schema"):
            AllowedFields(schema)


class TestWrittenDown:
    def test_names_without_a_model(self) -> None:
        assert str(AllowedFields(["id", "name"]).parse(["name,id"])) == "id,name"

    def test_a_mapping_names_the_attribute_of_each_field(self) -> None:
        allowed = AllowedFields({"id": "id", "createdAt": "created_at"})
        assert allowed.parse(["createdAt"]).needs == ("created_at",)

    def test_a_mapping_can_hold_relations(self) -> None:
        allowed = AllowedFields({"id": "id", "author": USERS, "tags": [Tag], "more": [USERS]})
        assert str(allowed.parse(["author,tags,more(id)"])) == (
            "author(id,name,email),tags(label),more(id)"
        )
        many = [field.many for field in allowed.fields.values()]
        assert many == [False, False, True, True]


class TestOptions:
    def test_a_default_may_contain_relations(self) -> None:
        posts = AllowedFields(Post, default=["id", "author(name)"])
        assert str(posts.default) == "id,author(name)"
        assert str(AllowedFields(Post, default="title,id").default) == "id,title"

    def test_expand_gives_a_relation_its_own_fields(self) -> None:
        posts = AllowedFields(Post, expand={"author": USERS})
        assert str(posts.parse(["author"])) == "author(id,name,email)"

    def test_expand_removes_a_field_on_every_path(self) -> None:
        """The author of a comment has as few fields as the author of a post."""
        posts = AllowedFields(Post, expand={"author": USERS.without("email", "team")})
        for text in ("author.email", "comments.author.email", "comments(author(email))"):
            assert refusal(posts, text).code == "unknown_name"

    def test_an_opaque_model_is_one_value(self) -> None:
        posts = AllowedFields(Post, opaque=["author"])
        assert posts.parse(["author"]).needs == ("author",)
        assert refusal(posts, "author.id").code == "not_expandable"

    @pytest.mark.parametrize(
        ("schema", "options", "option"),
        [
            (User, {"default": ["nope"]}, "default"),
            (User, {"default": [""]}, "default"),
            (User, {"needs": {"nope": ["id"]}}, "needs"),
            (User, {"needs": {"name": "id"}}, "needs"),
            (User, {"expand": {"nope": USERS}}, "expand"),
            (User, {"expand": {"team": Team}}, "expand"),
            (User, {"opaque": ["nope"]}, "opaque"),
            (["a.b"], {}, "fields"),
            ([""], {}, "fields"),
            (["*"], {}, "fields"),
            ([" a"], {}, "fields"),
            (["a", "a"], {}, "fields"),
        ],
    )
    def test_wrong_options_are_rejected_at_start_up(
        self, schema: object, options: dict[str, Any], option: str
    ) -> None:
        with pytest.raises(InvalidOption, match=f"^{option}"):
            AllowedFields(schema, **options)


class TestRoles:
    def test_a_removed_field_is_unknown(self) -> None:
        guests = USERS.without("email", "bio")
        assert guests.default.names == ("id", "name")
        error = refusal(guests, "email")
        assert str(error).replace("email", "nope") == str(refusal(guests, "nope"))
        assert USERS.parse(["email"]).names == ("email",)

    def test_a_removed_field_is_unknown_on_every_path(self) -> None:
        """Related models may lead back to the model of the field."""
        guests = USERS.without("email")
        assert refusal(guests, "team.members.email").code == "unknown_name"
        assert str(guests.parse(["team.members"])) == "team(members(id,name))"

    def test_a_field_within_a_relation_can_be_removed(self) -> None:
        posts = POSTS.without("author.email", "author.team")
        assert refusal(posts, "author.email").allowed == ("id", "name", "bio")
        assert refusal(posts, "comments.author.email").code == "unknown_name"
        assert str(posts.parse(["author"])) == "author(id,name,bio)"

    def test_a_removed_field_leaves_the_default(self) -> None:
        posts = AllowedFields(Post, default=["id", "author(name,email)"])
        assert str(posts.without("author.email").default) == "id,author(name)"
        assert str(posts.without("author").default) == "id"

    @pytest.mark.parametrize("path", ["nope", "id.nope", "team.nope", "nope.id", ""])
    def test_an_unknown_field_cannot_be_removed(self, path: str) -> None:
        with pytest.raises(InvalidOption, match=r"^without="):
            USERS.without(path)


class TestPaths:
    def test_paths_lists_everything_that_can_be_selected(self) -> None:
        assert list(AllowedFields(Article).paths()) == [
            "id", "createdAt", "author", "author.id", "author.fullName", "others", "others.id",
            "others.fullName",
        ]  # fmt: skip
        assert list(USERS.paths(1)) == ["id", "name", "email", "bio"]

    @given(st.sampled_from([*POSTS.paths(3)]))
    def test_every_listed_path_can_be_selected(self, path: str) -> None:
        assert POSTS.parse([path]).names == (path.partition(".")[0],)


@given(
    st.lists(
        st.text(alphabet="ab,.()* \0")
        | st.lists(st.sampled_from([*POSTS.paths(4), "x", "*", "author(", ")"])).map(",".join),
        max_size=3,
    )
)
def test_any_text_is_parsed_or_rejected(texts: list[str]) -> None:
    try:
        asked = POSTS.parse(texts)
    except InvalidParameter as refused:
        error = refused
    else:
        assert POSTS.parse([str(asked)]) == asked
        assert all(shown(asked))
        return
    assert error.status == 422
    assert len(str(error).encode()) < 3000


def shown(asked: FieldSet) -> list[bool]:
    inner = [each for within in asked.relations.values() for each in shown(within)]
    return [bool(asked.names), "password_hash" not in asked.names + asked.needs, *inner]
