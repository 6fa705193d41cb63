"""Import the queues that are named on the command line, such as `module:queue`."""

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


def load_queues(targets: Sequence[str]) -> list[Queue]:
    """Return the queues that targets name, each once. Raises `TargetError`.

    A target is one of:

    - `module:queue`: a queue, by the name of a variable at the top level of the module
    - `module:name.queue`: a queue that is an attribute of such a variable
    - `module`: all queues at the top level of the module

    Modules are also searched in the working directory, but after the installed ones: a file
    redis.py there does not hide the package redis. If DJANGO_SETTINGS_MODULE is set, Django is set
    up first.
    """
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)
    _set_up_django()
    return list(dict.fromkeys(queue for target in targets for queue in _find_queues(target)))


def load_queue(target: str) -> Queue:
    """Return the queue that target names. Raises `TargetError` unless there is exactly one."""
    queues = load_queues([target])
    if len(queues) > 1:
        names = _format_targets(sys.modules[target])
        raise TargetError(f"{target} has {len(queues)} queues: name one of {names}")
    return queues[0]


def _set_up_django() -> None:
    settings = _django.get_pending_settings_module()
    if settings is None:
        return
    try:
        _import_module(settings)
        _django.set_up()
    except TargetError as exc:
        raise TargetError(f"DJANGO_SETTINGS_MODULE={settings}: {exc}") from exc
    except (Exception, SystemExit) as exc:
        raise TargetError(
            f"DJANGO_SETTINGS_MODULE={settings}: Django could not be set up:\n\n"
            f"{_format_error(exc)}"
        ) from exc


def _find_queues(target: str) -> list[Queue]:
    name, _, attribute = target.partition(":")
    if name.endswith(".py") or "/" in name or "\\" in name:
        dotted = name.removesuffix(".py").replace("\\", "/").strip("./").replace("/", ".")
        instead = f"{dotted}:{attribute}" if attribute else dotted
        raise TargetError(f"{target} is the name of a file: write {instead}")
    if not all(part.isidentifier() for part in name.split(".")):
        raise TargetError(f"{target!r}: must have the form module:queue, such as app:mail")
    module = _import_module(name)
    if attribute:
        return [_get_queue(module, attribute)]
    queues = list(_queues_in(module).values())
    if not queues:
        raise TargetError(f"module {_describe_module(module)} has no Queue at module level")
    return queues


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is not None and f"{name}.".startswith(f"{exc.name}."):
            raise TargetError(
                f"no module named {exc.name!r} in {Path.cwd()} or on Python's search path"
            ) from exc
        raise TargetError(_describe_import_error(name, exc)) from exc
    except (Exception, SystemExit) as exc:
        raise TargetError(_describe_import_error(name, exc)) from exc


def _describe_import_error(name: str, error: BaseException) -> str:
    return f"module {name!r} could not be imported:\n\n{_format_error(error)}"


def _format_error(error: BaseException) -> str:
    """Return the traceback of an error, beginning with the first frame of the application."""
    trace = _without_import_frames(error.__traceback__)
    return "".join(traceback.format_exception(type(error), error, trace)).rstrip()


def _without_import_frames(trace: TracebackType | None) -> TracebackType | None:
    """Return the traceback without its first frames, which belong to hasten and to importlib."""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if (
            file not in {__file__, _django.__file__, importlib.__file__}
            and "importlib._bootstrap" not in file
        ):
            break
        trace = trace.tb_next
    return trace


def _get_queue(module: ModuleType, attribute: str) -> Queue:
    """Return the queue in a variable of the module, or in an attribute of one ("name.queue")."""
    found: object = module
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise TargetError(
                f"module {_describe_module(module)} has no {attribute!r}; "
                f"{_describe_queues(module)}"
            ) from None
    if isinstance(found, Queue):
        return found
    kind = "a Task" if isinstance(found, Task) else f"of type {type(found).__name__}"
    raise TargetError(
        f"{module.__name__}:{attribute} is {kind}, not a Queue; {_describe_queues(module)}"
    )


def _describe_module(module: ModuleType) -> str:
    """Return the name of a module, and its file unless that is in the working directory."""
    file = getattr(module, "__file__", None)
    if file is None or Path(file).is_relative_to(Path.cwd()):
        return repr(module.__name__)
    return f"{module.__name__!r} ({file})"


def _describe_queues(module: ModuleType) -> str:
    """Return the part of an error message that says which queues a module has."""
    targets = _format_targets(module)
    return f"its queues are {targets}" if targets else "it has no queues at module level"


def _format_targets(module: ModuleType) -> str:
    """Return the queues of a module as a user can name them: "app:mail, app:images"."""
    return ", ".join(f"{module.__name__}:{name}" for name in _queues_in(module))


def _queues_in(module: ModuleType) -> dict[str, Queue]:
    """Return the queues at the top level of a module by the name of their variable.

    A queue with several names is returned once, under the first one.
    """
    first: dict[Queue, str] = {}
    for name, value in vars(module).items():
        if isinstance(value, Queue):
            first.setdefault(value, name)
    return {name: queue for queue, name in first.items()}
