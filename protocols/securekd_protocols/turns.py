"""One call at a time: what a session promises to do once it must not do twice because two threads came at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from threading import RLock
from typing import Concatenate, NoReturn, ParamSpec, SupportsIndex, TypeVar

from securekd_protocols.errors import CopyRefused

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class TakesTurns:
    """Something of which there is one, and whose methods, where marked by `in_turn`, wait for each other.

    A copy could do once more what is done once, or would not know of what the other does: `copy.copy`, `copy.deepcopy`
    and `pickle` raise `CopyRefused`.
    """

    def __init__(self) -> None:
        self._turn = RLock()

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Refuse to be copied."""
        raise CopyRefused(
            f"a {type(self).__name__} was to be copied or pickled",
            "pass the object itself on; to go on in another process, save() it where it has that, then restore or load",
        )


_Part = TypeVar("_Part", bound=TakesTurns)


def in_turn(
    method: Callable[Concatenate[_Part, _Arguments], _Result],
) -> Callable[Concatenate[_Part, _Arguments], _Result]:
    """Have a method wait until no other thread is in a method of the same object that is marked so."""

    @wraps(method)
    def waiting(self: _Part, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        with self._turn:
            return method(self, *args, **kwargs)

    return waiting
