"""The Lua scripts of this engine: one file per operation in `lua/`, shared code in `lua/lib/`.

If the first line of a file is "-- uses: NAME …", the shared files with these names, and those that
they use, are placed before it in the assembled script, each once.
"""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final

from hasten._redis.server import Script

_FOLDER: Final = resources.files(__package__) / "lua"
_USES: Final = "-- uses: "


def _read_with_includes(file: Traversable, included: dict[str, str]) -> str:
    """Return the text of a file, and add the texts of the shared files that it uses to included."""
    text = file.read_text("utf-8")
    first_line, _, _ = text.partition("\n")
    if first_line.startswith(_USES):
        for name in first_line.removeprefix(_USES).split():
            if name not in included:
                included[name] = ""  # not twice; below it moves behind the files that it uses
                part = _read_with_includes(_FOLDER / "lib" / f"{name}.lua", included)
                del included[name]
                included[name] = part
    return text


def _assemble_script(file: Traversable) -> str:
    """Return the complete text of a script: the shared files that it uses, then the file itself."""
    included: dict[str, str] = {}
    verb = _read_with_includes(file, included)
    return "\n".join([*included.values(), verb])


def _load_scripts() -> dict[str, Script]:
    """Assemble all scripts in `lua/`, by name."""
    scripts = {}
    for file in _FOLDER.iterdir():
        if file.name.endswith(".lua"):
            name = file.name.removesuffix(".lua")
            scripts[name] = Script.of(name, _assemble_script(file))
    return scripts


SCRIPTS: Final = _load_scripts()
