"""The seam for parts of your own: a setting that reads `module:attribute` names a Python object."""

import importlib
import re
from collections.abc import Callable, Collection, Mapping
from contextvars import ContextVar
from typing import Any, TypeVar

from securekd.errors import FolderError, SettingError

PLUGIN = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
"""How `module:attribute` is written where other settings may hold a colon too."""

Part = TypeVar("Part")

# The modules whose import by `load_plugin` is under way in this thread.
_IMPORTING: ContextVar[frozenset[str]] = ContextVar("_IMPORTING", default=frozenset())


def is_plugin(name: str) -> bool:
    """Whether a setting names an object of the user's instead of one of ours."""
    return ":" in name


def is_of_main(name: str) -> bool:
    """Whether a setting names an object of the program that calls, which no other process has."""
    return name.startswith("__main__:")


def refuse_unnamed(named: Collection[str], trusted: Collection[str], folder: object) -> None:
    """Refuse a folder whose settings name code that nobody who reads it has named: folders come from anybody.

    Args:
        named: the plug-ins in the folder's settings.
        trusted: those that the caller names.
        folder: for the error.

    Raises:
        FolderError: with the first one.
    """
    unnamed = sorted(set(named) - set(trusted))
    if unnamed:
        raise FolderError(
            f"{folder} names code, {unnamed[0]!r}: read that code, and if you trust it, say so with "
            f"--plugin {unnamed[0]} (in Python, plugins=[{unnamed[0]!r}])"
        )


def load_plugin(name: str) -> Any:
    """Import the object behind `module:attribute`.

    Raises:
        SettingError: if there is no such module, or no such attribute in it, or if the module's import leads here
            again: it is a script that carries out, whenever it is imported, what names it.
    """
    module, _, attribute = name.partition(":")
    if module in _IMPORTING.get():
        raise SettingError(
            f"{module} is a script that begins anew when it is imported for {name!r}: put what it runs under "
            f'`if __name__ == "__main__":`, call it __main__:{attribute}, or put {attribute} into a module of its own'
        )
    under_way = _IMPORTING.set(_IMPORTING.get() | {module})
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingError(
            f"cannot load {name!r}: {error}; write it as module:attribute, with the module importable"
        ) from error
    finally:
        _IMPORTING.reset(under_way)


def named(what: str, name: str, own: Mapping[str, Callable[[], Part]]) -> Part:
    """The part that a setting names: one of our own by its word, or the user's `module:attribute`.

    Args:
        what: the kind of part, for the error.
        name: the setting's value.
        own: how to make each of ours.

    Raises:
        SettingError: if there is none of that name.
    """
    if is_plugin(name):
        plugged = load_plugin(name)
        return plugged() if isinstance(plugged, type) else plugged  # type: ignore[no-any-return]
    if name not in own:
        raise SettingError(f"no {what} is called {name!r}; take {', '.join(own)}, or module:attribute")
    return own[name]()
