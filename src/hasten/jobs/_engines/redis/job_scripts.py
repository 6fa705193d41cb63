"""The Lua scripts of this engine: a file per verb in `lua/`, and shared parts in `lua/lib/`.

A first line "-- uses: name …" includes shared parts, each once, before the script.
"""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final

from hasten._redis.server import Script

_FOLDER: Final = resources.files(__package__) / "lua"
_USES: Final = "-- uses: "


def _read(file: Traversable, included: dict[str, str]) -> str:
    text = file.read_text("utf-8")
    first_line, _, _ = text.partition("\n")
    if first_line.startswith(_USES):
        for name in first_line.removeprefix(_USES).split():
            if name not in included:
                included[name] = ""  # reserved; moved below, behind the parts that it uses itself
                part = _read(_FOLDER / "lib" / f"{name}.lua", included)
                del included[name]
                included[name] = part
    return text


def _assemble(file: Traversable) -> str:
    included: dict[str, str] = {}
    verb = _read(file, included)
    return "\n".join([*included.values(), verb])


def _load() -> dict[str, Script]:
    scripts = {}
    for file in _FOLDER.iterdir():
        if file.name.endswith(".lua"):
            name = file.name.removesuffix(".lua")
            scripts[name] = Script.of(name, _assemble(file))
    return scripts


SCRIPTS: Final = _load()
