"""The seam for parts of your own: a setting that reads `module:attribute` names a Python object."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from securekd.errors import SettingError

Part = TypeVar("Part")


def is_plugin(name: str) -> bool:
    """Whether a setting names an object of the user's instead of one of ours."""
    return ":" in name


def load_plugin(name: str) -> Any:
    """Import the object behind `module:attribute`.

    Raises:
        SettingError: if there is no such module, or no such attribute in it.
    """
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingError(
            f"cannot load {name!r}: {error}; write it as module:attribute, with the module importable"
        ) from error


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
