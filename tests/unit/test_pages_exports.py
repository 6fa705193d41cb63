"""Exports of `hasten.pagination` and `hasten.fields` can be imported, and hide no module."""

from __future__ import annotations

import pkgutil
from types import ModuleType

import pytest

import hasten.fields
import hasten.pagination


@pytest.mark.parametrize("package", [hasten.pagination, hasten.fields])
def test_no_exported_name_is_that_of_a_module(package: ModuleType) -> None:
    modules = {found.name for found in pkgutil.iter_modules(package.__path__)}
    assert not modules & set(package.__all__)
    assert all(hasattr(package, name) for name in package.__all__)
