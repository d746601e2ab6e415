"""What both halves of the privacy-utility benchmark on MNIST share: data, features, partitions, student, figures."""

import io
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from securekd.learning.smoothing.denoising import Denoised, Recipe
from securekd.learning.smoothing.noise_aware import Kernel, public_kernel, teach
from securekd.learning.smoothing.smoother import Basis, public_bases
from securekd.learning.smoothing.teachers import PublicGraph, public_graph
from securekd.models.hog import Hog

CLASSES, DELTA = 10, 1e-5
TRANSFER, VALIDATION = 10_000, 5_000


@dataclass(frozen=True, eq=False)
class Mnist:
    """HOG features (n, 696) float32 and labels, of the training files and the official test set."""

    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


@dataclass(frozen=True, eq=False)
class Split:
    """One seed's public transfer rows, private rows, and the rows that figures are taken on."""

    transfer: np.ndarray
    transfer_labels: np.ndarray  # for yardsticks only
    private: np.ndarray
    labels: np.ndarray
    judged: np.ndarray
    judged_labels: np.ndarray

    @cached_property
    def bases(self) -> tuple[Basis, ...]:
        return public_bases(self.transfer.astype(np.float64))

    @cached_property
    def kernel(self) -> Kernel:
        return public_kernel(self.transfer.astype(np.float64))

    @cached_property
    def mapped(self) -> np.ndarray:
        """The judged rows in the kernel's features."""
        return self.kernel.map(self.judged.astype(np.float64))

    @cached_property
    def graph(self) -> PublicGraph:
        return public_graph(self.transfer)

    @cached_property
    def placed(self) -> np.ndarray:
        """Private rows in the graph's coordinates: each client computes its own."""
        return self.graph.place(self.private)

    @cached_property
    def _components(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        mean = self.transfer.mean(axis=0)
        return mean, *np.linalg.eigh(np.cov(self.transfer - mean, rowvar=False))

    @cached_property
    def placed_judged(self) -> np.ndarray:
        """The judged rows in the graph's coordinates."""
        return self.graph.place(self.judged)

    def accuracy(self, scores: np.ndarray) -> float:
        """Of scores on the judged rows, in percent."""
        return 100.0 * float((scores.argmax(axis=1) == self.judged_labels).mean())

    def kernel_student(self, denoised: Denoised) -> float:
        """Accuracy of the kernel machine that learns these labels of the transfer set."""
        return self.accuracy(self.mapped @ teach(self.kernel, denoised).weights)

    def principal(self, size: int, whitening: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Transfer, private and judged rows on the transfer set's principal components, of mean square length 1."""
        mean, values, axes = self._components
        axes = axes[:, ::-1][:, :size] / np.maximum(values[::-1][:size], 1e-8) ** (whitening / 2)
        axes = axes / np.sqrt(np.square((self.transfer - mean) @ axes).sum(axis=1).mean())
        one, two, three = ((rows - mean) @ axes for rows in (self.transfer, self.private, self.judged))
        return one.astype(np.float32), two.astype(np.float32), three.astype(np.float32)


def load(folder: Path | None = None) -> Mnist:
    """MNIST from Parquet files: $SECUREKD_DATA/mnist, or shared/data/mnist beside the repository."""
    root = folder or Path(os.environ.get("SECUREKD_DATA", Path(__file__).parents[2] / "shared" / "data")) / "mnist"
    (train, train_labels), (test, test_labels) = (_features(root / f"{name}.parquet") for name in ("train", "test"))
    return Mnist(train, train_labels, test, test_labels)


def _features(path: Path) -> tuple[np.ndarray, np.ndarray]:
    import pyarrow.parquet as pq
    from PIL import Image

    columns = pq.read_table(path).to_pydict()
    pixels = np.stack([np.array(Image.open(io.BytesIO(image["bytes"]))) for image in columns["image"]])
    with torch.inference_mode():
        parts = [Hog()(torch.tensor(pixels[i : i + 500])[:, None].float() / 255) for i in range(0, len(pixels), 500)]
    return torch.cat(parts).numpy(), np.array(columns["label"], np.int64)


def final_split(data: Mnist, seed: int) -> Split:
    """10,000 transfer and 50,000 private rows of the training files; figures on the official test set."""
    order = np.random.default_rng([2, seed]).permutation(len(data.train))
    transfer, private = order[:TRANSFER], order[TRANSFER:]
    return _split(data, transfer, private, data.test, data.test_labels)


def tuning_split(data: Mnist) -> Split:
    """The same without the test set: 5,000 rows of the training files are held out to judge."""
    order = np.random.default_rng([1, 0]).permutation(len(data.train))
    held, transfer, private = order[:VALIDATION], order[VALIDATION:][:TRANSFER], order[VALIDATION + TRANSFER :]
    return _split(data, transfer, private, data.train[held], data.train_labels[held])


def _split(data: Mnist, transfer: np.ndarray, private: np.ndarray, judged: np.ndarray, labels: np.ndarray) -> Split:
    return Split(
        data.train[transfer],
        data.train_labels[transfer],
        data.train[private],
        data.train_labels[private],
        judged,
        labels,
    )


def partition(labels: np.ndarray, clients: int, alpha: float | None, seed: int) -> list[np.ndarray]:
    """Rows of each client: evenly dealt (None), or each class by a Dirichlet draw over clients (Hsu et al. 2019)."""
    rng = np.random.default_rng([3, seed])
    if alpha is None:
        return np.array_split(rng.permutation(len(labels)), clients)
    parts: list[list[np.ndarray]] = [[] for _ in range(clients)]
    for c in range(CLASSES):
        rows = rng.permutation(np.flatnonzero(labels == c))
        cuts = (np.cumsum(rng.dirichlet(np.full(clients, alpha)))[:-1] * len(rows)).astype(int)
        for part, piece in zip(parts, np.split(rows, cuts), strict=True):
            part.append(piece)
    return [np.concatenate(part) for part in parts]


def as_labels(probabilities: np.ndarray) -> Denoised:
    """Probabilities (m, C) that came about without `denoise`, as `teach` takes them."""
    log = np.log(np.maximum(probabilities, 1e-12))
    return Denoised(probabilities, log, Recipe("ridge"), "none", 0.0, 0.0, 0.0, 0.0, {})


def one_hot(labels: np.ndarray) -> np.ndarray:
    return np.eye(CLASSES)[labels]
