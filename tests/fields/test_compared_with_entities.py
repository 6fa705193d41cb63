"""Any selection of fields has the same values as entities of the ORM."""

from __future__ import annotations

import random
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from hasten.fields import FieldSelector, FieldSet
from hasten.fields._selector import MAX_RELATED
from tests.fields.databases import User, engine
from tests.fields.models import UserOut
from tests.pagination.databases import statements_of

Users = FieldSelector(UserOut, model=User, max_depth=4)
PATHS = list(Users.allowed.paths(4))


def of_entity(entity: Any, chosen: FieldSet) -> dict[str, object]:
    """Return the values of an entity with lazy loading."""
    made: dict[str, object] = {}
    for field, inner in chosen.members:
        value = getattr(entity, field.attribute)
        if inner is None:
            made[field.name] = value
        elif not field.many:
            made[field.name] = None if value is None else of_entity(value, inner)
        else:
            rows = sorted(value, key=lambda one: one.id)
            if field.attribute == "members":
                rows.sort(key=lambda one: one.name, reverse=True)
            made[field.name] = [of_entity(one, inner) for one in rows[:MAX_RELATED]]
            if len(rows) > MAX_RELATED:
                made[f"{field.name}_has_more"] = True
    return made


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.filterwarnings("ignore:Multiple rows returned with uselist=False")
def test_any_selection_equals_the_entities_in_few_statements(database: str, seed: int) -> None:
    dice = random.Random(seed)
    chosen = Users.parse([("fields", path) for path in dice.sample(PATHS, dice.randint(1, 12))])
    statement = select(User).order_by(User.id)
    if dice.random() < 0.7:
        statement = statement.limit(dice.randint(1, 12)).offset(dice.randint(0, 20))
    with Session(engine(database)) as session:
        expected = [of_entity(one, chosen) for one in session.scalars(statement)]
        with statements_of(engine(database)) as log:
            rows = Users.sync.many(session, statement, chosen)
    assert rows == expected
    assert [list(row) for row in rows] == [list(row) for row in expected]
    assert len(log) <= 1 + str(chosen).count("posts") + sum(
        str(chosen).count(name) for name in ("members", "badge", "tags")
    )
    assert not any(secret in text for text in log for secret in ("password", "secret", "draft"))
