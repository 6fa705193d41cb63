"""Import docs/generate.py, which writes the reference pages, as a module."""

from __future__ import annotations

import functools
import importlib.util
from types import ModuleType

from tests.docs.markdown import ROOT


@functools.cache
def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
