"""What Django has to know of the application."""

from __future__ import annotations

from django.apps import AppConfig


class HastenConfig(AppConfig):  # type: ignore[misc]  # Django has no types
    name = "hasten.django"
    label = "hasten"
