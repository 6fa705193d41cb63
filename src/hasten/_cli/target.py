"""Find the queues that the command line names as `module:queue`."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, TracebackType

from hasten import _django
from hasten.errors import TargetError
from hasten.jobs import Queue, Task


def load(targets: Sequence[str]) -> list[Queue]:
    """Return the queues that targets name, each once. Raises `TargetError`.

    `module:queue` is one queue, `module:name.queue` an attribute of an attribute, and `module` all
    queues at the top level of the module. Installed modules come before modules in the working
    directory: a file redis.py there does not replace the package. If DJANGO_SETTINGS_MODULE is set,
    Django is set up first.
    """
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)
    _set_up_django()
    return list(dict.fromkeys(queue for target in targets for queue in _find(target)))


def load_one(target: str) -> Queue:
    """Return the only queue that target names. Raises `TargetError`, also for several queues."""
    queues = load([target])
    if len(queues) > 1:
        raise TargetError(f"{target} has {len(queues)} queues: name one of {_names(target)}")
    return queues[0]


def _set_up_django() -> None:
    settings = _django.settings_module()
    if settings is None:
        return
    try:
        _import(settings)
        _django.set_up()
    except TargetError as exc:
        raise TargetError(f"DJANGO_SETTINGS_MODULE={settings}: {exc}") from exc
    except (Exception, SystemExit) as exc:
        raise TargetError(
            f"DJANGO_SETTINGS_MODULE={settings}: Django could not be set up:\n\n{_format(exc)}"
        ) from exc


def _find(target: str) -> list[Queue]:
    name, _, attribute = target.partition(":")
    if name.endswith(".py") or "/" in name or "\\" in name:
        dotted = name.removesuffix(".py").replace("\\", "/").strip("./").replace("/", ".")
        instead = f"{dotted}:{attribute}" if attribute else dotted
        raise TargetError(f"{target} is the name of a file: write {instead}")
    if not all(part.isidentifier() for part in name.split(".")):
        raise TargetError(f"{target!r}: must have the form module:queue, such as app:mail")
    module = _import(name)
    if attribute:
        return [_queue_of(module, attribute)]
    queues = list(_queues_in(module).values())
    if not queues:
        raise TargetError(f"module {_shown(module)} has no Queue at module level")
    return queues


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is not None and f"{name}.".startswith(f"{exc.name}."):
            raise TargetError(
                f"no module named {exc.name!r} in {Path.cwd()} or on Python's search path"
            ) from exc
        raise TargetError(_import_failed(name, exc)) from exc
    except (Exception, SystemExit) as exc:
        raise TargetError(_import_failed(name, exc)) from exc


def _import_failed(name: str, error: BaseException) -> str:
    return f"module {name!r} could not be imported:\n\n{_format(error)}"


def _format(error: BaseException) -> str:
    lines = traceback.format_exception(type(error), error, _of_module(error.__traceback__))
    return "".join(lines).rstrip()


def _of_module(trace: TracebackType | None) -> TracebackType | None:
    """Leave out the frames above the module: those of hasten and of the import system."""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if (
            file not in {__file__, _django.__file__, importlib.__file__}
            and "importlib._bootstrap" not in file
        ):
            break
        trace = trace.tb_next
    return trace


def _queue_of(module: ModuleType, attribute: str) -> Queue:
    found: object = module
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise TargetError(
                f"module {_shown(module)} has no {attribute!r}; {_offer(module)}"
            ) from None
    if isinstance(found, Queue):
        return found
    kind = "a Task" if isinstance(found, Task) else f"of type {type(found).__name__}"
    raise TargetError(f"{module.__name__}:{attribute} is {kind}, not a Queue; {_offer(module)}")


def _shown(module: ModuleType) -> str:
    """Return the name, and the file if it is not in the working directory."""
    file = getattr(module, "__file__", None)
    if file is None or Path(file).is_relative_to(Path.cwd()):
        return repr(module.__name__)
    return f"{module.__name__!r} ({file})"


def _offer(module: ModuleType) -> str:
    names = ", ".join(f"{module.__name__}:{name}" for name in _queues_in(module))
    return f"its queues are {names}" if names else "it has no queues at module level"


def _names(module: str) -> str:
    return ", ".join(f"{module}:{name}" for name in _queues_in(sys.modules[module]))


def _queues_in(module: ModuleType) -> dict[str, Queue]:
    """Return the queues at the top level of a module by name, each under its first name."""
    first: dict[Queue, str] = {}
    for name, value in vars(module).items():
        if isinstance(value, Queue):
            first.setdefault(value, name)
    return {name: queue for queue, name in first.items()}
