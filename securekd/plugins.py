"""The seam for parts of your own: a setting that reads `module:attribute` names a Python object."""

import importlib
from typing import Any

from securekd.errors import SettingError


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
