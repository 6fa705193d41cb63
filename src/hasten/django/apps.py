"""The configuration of the Django application `hasten.django`."""

from __future__ import annotations

from django.apps import AppConfig


class HastenConfig(AppConfig):  # type: ignore[misc]  # Django has no types
    """Registers the management command `hasten`."""

    name = "hasten.django"
    label = "hasten"
