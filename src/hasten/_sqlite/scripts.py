"""Loading SQL from .sql files in the folders of a package."""

from __future__ import annotations

from importlib import resources


def load_scripts(package: str, folder: str) -> dict[str, str]:
    """Return the contents of the .sql files in a folder of a package, by name without the suffix.

    The dict is sorted by name.
    """
    files = (resources.files(package) / folder).iterdir()
    scripts = [(file.name, file) for file in files if file.name.endswith(".sql")]
    return {name.removesuffix(".sql"): file.read_text("utf-8") for name, file in sorted(scripts)}
