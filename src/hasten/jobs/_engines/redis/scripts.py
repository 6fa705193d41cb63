"""The Lua of this engine: a file per verb in `lua/`, and what they share in `lua/lib/`.

A line "-- uses: name …" at the head of a file asks for shared parts, which come first, each once.
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
                included[name] = ""  # taken, and placed below once what it uses itself is there
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
