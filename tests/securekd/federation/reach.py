"""What can be reached from an object: everything that whoever holds it could get at, without a name of its own.

References are followed as Python's collector sees them, and besides: what numpy arrays are views of, what closures and
the frames of waiting generators hold, and the memory of tensors. Modules, classes, and the globals of functions end the
walk: everybody has them, and `module_globals` gives what they hold.
"""

import ctypes
import gc
import sys
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import (
    AsyncGeneratorType,
    BuiltinFunctionType,
    CodeType,
    CoroutineType,
    FrameType,
    FunctionType,
    GeneratorType,
    ModuleType,
)
from typing import Any

import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

LEAST_BYTES = 16
"""What is shorter is compared by memory only: equal content says nothing."""

_WAITING = (GeneratorType, CoroutineType, AsyncGeneratorType)


class Instrument:
    """What a test looks with: it reaches everybody, and the walk does not enter it."""


_ENDS = (Instrument, ModuleType, type, CodeType, str, int, float, complex, type(None), type(Ellipsis))


@dataclass(frozen=True, eq=False)
class Secret:
    """What nobody but one party may reach.

    Attributes:
        whose: the party's name.
        what: in a word.
        value: an array, or bytes.
    """

    whose: str
    what: str
    value: np.ndarray | bytes

    @property
    def content(self) -> bytes | None:
        """What a copy of it would hold; None where that says nothing."""
        content = self.value if isinstance(self.value, bytes) else self.value.tobytes()
        return content if len(content) >= LEAST_BYTES and len(set(content)) > 1 else None


def found(root: object, secrets: Iterable[Secret]) -> list[str]:
    """The secrets that can be reached from an object, each with the way to it."""
    looked_for = [(secret, secret.content) for secret in secrets]
    hits: dict[tuple[str, str], str] = {}
    for value, way in reached(root):
        memory, content = _memory(value), _content(value)
        if memory is None and content is None:
            continue
        for secret, copied in looked_for:
            if (secret.whose, secret.what) in hits:
                continue
            same = (
                memory is not None and isinstance(secret.value, np.ndarray) and np.shares_memory(memory, secret.value)
            )
            if same or (copied is not None and content is not None and copied in content):
                hits[secret.whose, secret.what] = f"{secret.whose}'s {secret.what}: {' > '.join(way())}"
    return list(hits.values())


def reached(root: object) -> Iterator[tuple[object, Any]]:
    """Every object that can be reached, nearest first, and a function that gives the types on the way to it."""
    parents: dict[int, tuple[object, int | None]] = {
        id(root): (root, None)
    }  # also keeps alive what was made on the way
    waiting = deque([root])

    def way_to(value: object) -> list[str]:
        steps, at = [], id(value)
        while True:
            one, parent = parents[at]
            steps.append(type(one).__qualname__)
            if parent is None:
                return steps[::-1]
            at = parent

    while waiting:
        value = waiting.popleft()
        yield value, lambda value=value: way_to(value)
        for held in _held(value):
            if id(held) not in parents and not isinstance(held, _ENDS):
                parents[id(held)] = held, id(value)
                waiting.append(held)


def module_globals(*packages: str) -> dict[str, Any]:
    """What the modules of some packages hold, and their classes, which the walk from an object does not enter."""
    held: dict[str, Any] = {}
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in packages:
            for key, value in vars(module).items():
                if isinstance(value, type) and value.__module__ == name:
                    held |= {f"{name}.{key}.{attribute}": part for attribute, part in vars(value).items()}
                elif key not in ("__builtins__", "__loader__", "__spec__"):
                    held[f"{name}.{key}"] = value
    return held


def _held(value: object) -> Iterator[object]:
    """What an object holds."""
    if isinstance(value, np.ndarray):
        yield value.base
        if value.dtype == object:
            yield from value.flat
    elif isinstance(value, FunctionType):
        yield from (value.__closure__ or (), value.__defaults__, value.__kwdefaults__, value.__dict__)
    elif isinstance(value, BuiltinFunctionType):
        yield value.__self__
    elif isinstance(value, FrameType):
        yield from (dict(value.f_locals), value.f_back)
    elif isinstance(value, _WAITING):
        yield from (one for one in gc.get_referents(value) if not isinstance(one, FrameType))
        frame = getattr(value, "gi_frame", None) or getattr(value, "cr_frame", None) or getattr(value, "ag_frame", None)
        if frame is not None:
            yield dict(frame.f_locals)  # not what it was called from: that is not its own
    elif isinstance(value, weakref.ref):
        yield value()
    elif isinstance(value, memoryview):
        yield value.obj
    else:
        yield from gc.get_referents(value)


def _memory(value: object) -> np.ndarray | None:
    """The memory of an array or a tensor, as an array."""
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, torch.Tensor) and value.device.type == "cpu":
        storage = value.untyped_storage()
        if storage.nbytes():
            return np.frombuffer((ctypes.c_char * storage.nbytes()).from_address(storage.data_ptr()), np.uint8)
    return None


def _shared(memory: np.ndarray | None, value: np.ndarray | bytes) -> bool:
    return memory is not None and isinstance(value, np.ndarray) and np.shares_memory(memory, value)


def _content(value: object) -> bytes | None:
    """What an object holds, as bytes."""
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    if isinstance(value, Ed25519PrivateKey):
        return value.private_bytes_raw()
    memory = _memory(value)
    return None if memory is None or memory.dtype == object else memory.tobytes()
