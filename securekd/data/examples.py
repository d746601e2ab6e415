"""`Examples` and `FederatedData`: what every later step sees of the data, as read-only arrays."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Modality = Literal["image", "tabular", "text"]
Array = np.ndarray[Any, np.dtype[Any]]

INPUT_TYPES: dict[Modality, tuple[str, int]] = {
    "image": ("float32", 4),
    "tabular": ("float32", 2),
    "text": ("int64", 2),
}
"""For each modality the type of its inputs and their number of dimensions."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Encoded rows. All arrays are made read-only.

    Attributes:
        modality: what the inputs are.
        inputs: images float32 (N, C, H, W) in [0, 1]; tables float32 (N, F) in [0, 1]; texts int64 (N, L) token ids,
            where 0 pads.
        labels: int64 (N,), the index of each row's class; None where there are none, or where they are not to be used.
        ids: int64 (N,), the row's number in its source, unique over all splits (where splits come from several sources,
            a later source's rows are numbered on from an earlier one's).
    """

    modality: Modality
    inputs: Array
    labels: Array | None
    ids: Array

    def __post_init__(self) -> None:
        dtype, dimensions = INPUT_TYPES[self.modality]
        if self.inputs.dtype != np.dtype(dtype) or self.inputs.ndim != dimensions:
            raise ValueError(
                f"{self.modality} inputs are {dtype} with {dimensions} dimensions, "
                f"not {self.inputs.dtype} {self.inputs.shape}"
            )
        for name in ("inputs", "labels", "ids"):
            array = getattr(self, name)
            if array is None:
                continue
            if len(array) != len(self.inputs) or (name != "inputs" and array.dtype != np.int64):
                raise ValueError(f"{name} are int64, one for each of the {len(self.inputs)} rows")
            object.__setattr__(self, name, read_only(array))

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, index: Any) -> "Examples":
        """The rows that an index array, a mask or a slice chooses."""
        labels = None if self.labels is None else self.labels[index]
        return Examples(self.modality, self.inputs[index], labels, self.ids[index])


@dataclass(frozen=True, eq=False)
class FederatedData:
    """The data of one federation: private shares, the public transfer set, the test set.

    Attributes:
        modality: what the inputs are.
        classes: names of the classes; a label is an index into them.
        input_shape: shape of one input: (C, H, W), (F,) or (L,).
        vocabulary: for text the number of token ids, padding included; otherwise None.
        clients: the private examples of each client.
        client_names: a name for each client: its institution (partition by column), or client-01, client-02...
        transfer: the public transfer set; its labels are None unless `data.transfer_labels`.
        test: the test set.
        transfer_digest: SHA-256 over the transfer set's inputs in their order and over the class map.
        notes: what was passed over when the data were read and split, a line each.
        pieces: for text the bytes of each token id, a character for each; otherwise empty.
    """

    modality: Modality
    classes: tuple[str, ...]
    input_shape: tuple[int, ...]
    vocabulary: int | None
    clients: tuple[Examples, ...]
    client_names: tuple[str, ...]
    transfer: Examples
    test: Examples
    transfer_digest: bytes
    notes: tuple[str, ...] = ()
    pieces: tuple[str, ...] = ()


def transfer_digest(transfer: Examples, classes: tuple[str, ...]) -> bytes:
    """SHA-256 over modality, shape, class map and inputs in order: equal only where parties mean the same rows."""
    inputs = np.ascontiguousarray(transfer.inputs, dtype=transfer.inputs.dtype.newbyteorder("<"))
    head = {"modality": transfer.modality, "type": inputs.dtype.str, "shape": inputs.shape, "classes": classes}
    header = json.dumps(head, sort_keys=True).encode()
    digest = hashlib.sha256(b"securekd/transfer-set/1" + len(header).to_bytes(8, "big") + header)
    digest.update(inputs.data)
    return digest.digest()


def read_only(array: Array) -> Array:
    """A view of an array that cannot be written through."""
    view = array.view()
    view.flags.writeable = False
    return view
