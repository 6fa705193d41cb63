"""The configuration of the Django app `hasten.django`."""

from __future__ import annotations

from django.apps import AppConfig


class HastenConfig(AppConfig):  # type: ignore[misc]  # Django has no types
    """The configuration of the Django app that adds the management command `hasten`."""

    name = "hasten.django"
    label = "hasten"
