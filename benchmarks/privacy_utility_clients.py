"""Client-level privacy: 250 clients release once, or update in rounds, through the shipped integer noise.

Every sum here is made of each client's own `Mechanism.release`, added up as integers. One of them also goes through a
whole masked session, which must open the same integers.
"""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import product
from typing import Literal

import numpy as np
import torch
from privacy_utility_common import CLASSES, DELTA, Split, as_labels, one_hot, partition

from securekd.federation.aggregation.masking import MaskingAggregator
from securekd.federation.aggregation.seam import Terms
from securekd.federation.aggregation.session import add_up
from securekd.learning.smoothing.noise_aware import learn
from securekd.learning.smoothing.smoother import spread
from securekd.learning.smoothing.teachers import prototype_scores, teacher_scores
from securekd.privacy.accountant import compose_epsilon
from securekd.privacy.mechanisms import Bounds, Mechanism, mechanism_named, refuse_unreachable
from securekd.privacy.release import Exposure, calibrated, release_event, unknown_shares
from securekd.randomness import Csprng

CLIENTS, THRESHOLD, COLLUDERS = 250, 245, 4
EPSILONS = (0.5, 1.0, 2.0, 4.0, 8.0)
ALPHAS: dict[str, float | None] = {"iid": None, "dirichlet": 0.3}
QUERIES = (100, 200, 400, 800)
MISTAKEN = (1.0, 8.0)  # at which arg max on all rows is shown


@dataclass(frozen=True)
class FedAvg:
    """One way to run DP-FedAvg (McMahan et al. 2018): a softmax regression on fixed public features.

    Attributes:
        features: the transfer set's principal components of HOG, or the smooth coordinates of its graph.
        size: number of features.
        rounds: of updates.
        local_steps: full-batch gradient steps of a client in a round.
        step: server's learning rate, in units of the clip.
        momentum: of the server.
    """

    features: Literal["principal", "graph"]
    size: int
    step: float
    rounds: int = 20
    local_steps: int = 1
    momentum: float = 0.0


GRID: dict[str, tuple[FedAvg, ...]] = {
    "fedavg": tuple(
        FedAvg("principal", size, step, momentum=momentum)
        for size, (step, momentum) in (
            *product((30,), ((0.3, 0.0), (1.0, 0.0), (0.3, 0.8))),
            *product((100,), ((1.0, 0.0), (3.0, 0.0), (10.0, 0.0))),
        )
    ),
    "fedavg_graph": tuple(FedAvg("graph", 30, step) for step in (0.3, 1.0, 3.0)),
}


@dataclass(frozen=True)
class Budget:
    """A mechanism that meets a target, and the ε that the ledger computes for it."""

    mechanism: Mechanism
    ledger_epsilon: float


@cache
def budget(bounds: Bounds, epsilon: float, rounds: int = 1) -> Budget:
    """Skellam noise for each client, so that the noise of the fewest honest survivors is enough."""
    exposure = Exposure("zero_out", unknown_shares(sums_only=True, threshold=THRESHOLD, colluders=COLLUDERS))
    share = bounds.l2 / (THRESHOLD - COLLUDERS) ** 0.5

    def mechanism(multiplier: float) -> Mechanism:
        return mechanism_named("skellam", bounds, sigma=multiplier * share)

    multiplier = calibrated(
        lambda m: [mechanism(m)], exposure, lowest=1e-3, epsilon=epsilon, delta=DELTA, rounds=rounds
    )
    chosen = mechanism(multiplier)
    refuse_unreachable(chosen, CLIENTS)
    event = release_event(chosen, exposure, "server")
    return Budget(chosen, compose_epsilon([event] * rounds, "zero_out", DELTA))


def released_sum(vectors: Iterable[np.ndarray], mechanism: Mechanism) -> np.ndarray:
    """Sum (d,) of every client's noisy integers, in the data's unit."""
    total: np.ndarray | int = 0
    for vector in vectors:
        total = total + mechanism.release(vector, Csprng(os.urandom(32)))
    return np.asarray(total, np.float64) * mechanism.step


def simulated_sum(vectors: Iterable[np.ndarray], mechanism: Mechanism) -> np.ndarray:
    """The same law to within rounding, in a fraction of the time: for tuning alone."""
    total = np.sum(list(vectors), axis=0)
    return np.asarray(total + Csprng(os.urandom(32)).normal(len(total)) * mechanism.sigma * CLIENTS**0.5)


Summing = Callable[[Iterable[np.ndarray], Mechanism], np.ndarray]


def matrix_bounds(rows: int) -> Bounds:
    """Of score matrices with Frobenius norm 1."""
    size = rows * CLASSES
    return Bounds(l2=1.0, l1=size**0.5, entry=1.0, dimension=size)


def vote_bounds(rows: int) -> Bounds:
    """Of centred votes on so many rows: entries C - 1 and -1, so a row's squares add up to C(C - 1)."""
    squares, sums = CLASSES * (CLASSES - 1), 2 * (CLASSES - 1)
    return Bounds((squares * rows) ** 0.5, float(sums * rows), CLASSES - 1.0, rows * CLASSES, whole=True)


def teachers(split: Split, parts: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Each client's scores (m, C) as float32, which saves memory and stays within the bound of 1."""
    return [
        teacher_scores(
            split.graph.coordinates, split.placed[p], split.labels[p], classes=CLASSES, norm=1 - 1e-6
        ).astype(np.float32)
        for p in parts
    ]


def votes_of(scores: Sequence[np.ndarray], labels: np.ndarray, parts: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Votes (m, C) of the same teachers, for classes that they hold; a client without examples casts none.

    One-hot rows, less their mean and times C, which are integers: centred votes have the same winner and 5% less noise.
    """
    votes = []
    for own, part in zip(scores, parts, strict=True):
        held = np.bincount(labels[part], minlength=CLASSES) > 0
        vote = one_hot(np.where(held, own, -np.inf).argmax(axis=1)).astype(np.int8)
        votes.append(CLASSES * vote - 1 if held.any() else np.zeros_like(vote))
    return votes


def measure(split: Split, kind: str, seed: int, epsilons: Sequence[float], tuned: dict) -> dict:
    """All client-level figures of one seed and partition: accuracies in percent, by method and ε."""
    parts = partition(split.labels, CLIENTS, ALPHAS[kind], seed)
    scores = teachers(split, parts)
    votes = votes_of(scores, split.labels, parts)
    found: dict = {"ledger": {}, "local": local(split, parts)}
    for epsilon in epsilons:
        key = f"{epsilon:g}"
        ours, record = noise_aware(split, scores, epsilon)
        gnmax = {q: gnmax_student(split, votes, q, epsilon, seed) for q in QUERIES}
        averaged = {name: FedAvg(**tuned[name][kind][key]) for name in GRID}
        found[key] = {
            "noise_aware": ours,
            "gnmax": gnmax[tuned["queries"][kind][key]],
            "gnmax_best_on_test": max(gnmax.values()),
            **({"noisy_votes": noisy_votes(split, votes, epsilon)} if epsilon in MISTAKEN else {}),
            **{name: fedavg(split, parts, settings, epsilon) for name, settings in averaged.items()},
            "gnmax_by_queries": {str(q): value for q, value in gnmax.items()},
            "student": record,
        }
        found["ledger"][key] = {
            "noise_aware": budget(matrix_bounds(len(split.transfer)), epsilon).ledger_epsilon,
            "gnmax": budget(vote_bounds(tuned["queries"][kind][key]), epsilon).ledger_epsilon,
            "noisy_votes": budget(vote_bounds(len(split.transfer)), epsilon).ledger_epsilon,
            **{name: budget(update_bounds(s.size), epsilon, s.rounds).ledger_epsilon for name, s in averaged.items()},
        }
        print(kind, seed, key, {k: v for k, v in found[key].items() if isinstance(v, float)}, flush=True)
    return found


def noise_aware(split: Split, scores: Sequence[np.ndarray], epsilon: float) -> tuple[float, dict]:
    """Accuracy of the noise-aware student of the clients' noisy sum, and what it chose."""
    mechanism = budget(matrix_bounds(len(split.transfer)), epsilon).mechanism
    released = released_sum((s.astype(np.float64).ravel() for s in scores), mechanism).reshape(-1, CLASSES)
    variance = len(scores) * mechanism.sigma**2
    student = learn(split.transfer, released, variance, bases=split.bases, kernel=split.kernel)
    chosen = student.denoised
    record = {"method": chosen.method, "basis": chosen.basis, "freedom": chosen.freedom, "penalty": student.penalty}
    return split.accuracy(split.mapped @ student.weights), record


def gnmax_student(
    split: Split, votes: Sequence[np.ndarray], queries: int, epsilon: float, seed: int, summing: Summing = released_sum
) -> float:
    """GNMax (Papernot et al. 2018) on `queries` rows, and a semi-supervised student of their labels.

    The student has what the noise-aware one has: labels spread over the same graph, from which the same kernel learns.
    """
    rows = np.random.default_rng([4, seed]).permutation(len(split.transfer))[:queries]
    mechanism = budget(vote_bounds(queries), epsilon).mechanism
    summed = summing((v[rows].astype(np.float64).ravel() for v in votes), mechanism).reshape(-1, CLASSES)
    return split.kernel_student(as_labels(spread_labels(split, rows, summed.argmax(axis=1))))


def spread_labels(split: Split, rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Hard labels of some rows, as one-hot labels (m, C) of all, by the same self-training as ours."""
    return one_hot(spread(split.bases[1], rows, one_hot(labels) - 1.0 / CLASSES).argmax(axis=1))


def noisy_votes(split: Split, votes: Sequence[np.ndarray], epsilon: float) -> float:
    """Votes on every row, each row's noisy winner taken at its word, and the same kernel machine."""
    mechanism = budget(vote_bounds(len(split.transfer)), epsilon).mechanism
    summed = released_sum((v.astype(np.float64).ravel() for v in votes), mechanism).reshape(-1, CLASSES)
    return split.kernel_student(as_labels(one_hot(summed.argmax(axis=1))))


def update_bounds(size: int) -> Bounds:
    """Of clipped updates of a softmax regression on `size` inputs and a constant, in units of the clip."""
    return Bounds(l2=1.0, l1=((size + 1) * CLASSES) ** 0.5, entry=1.0, dimension=(size + 1) * CLASSES)


def fedavg(
    split: Split, parts: Sequence[np.ndarray], settings: FedAvg, epsilon: float, summing: Summing = released_sum
) -> float:
    """Accuracy of DP-FedAvg with every client in every round, each update brought to the clip's length."""
    private, judged = _with_constant(*_public_coordinates(split, settings))
    x, y, mask = _padded(private, split.labels, parts)
    mechanism = budget(update_bounds(settings.size), epsilon, settings.rounds).mechanism
    weights = torch.zeros(settings.size + 1, CLASSES)
    velocity = torch.zeros_like(weights)
    for _ in range(settings.rounds):
        updates = _updates(weights, x, y, mask, settings.local_steps).flatten(1).double().numpy()
        lengths = np.linalg.norm(updates, axis=1, keepdims=True)
        clipped = updates * ((1 - 1e-9) / np.maximum(lengths, 1e-12))
        mean = summing(clipped, mechanism) / len(parts)
        velocity = settings.momentum * velocity + torch.tensor(mean).float().view_as(velocity)
        weights = weights + settings.step * velocity
    return split.accuracy(judged @ weights.numpy())


def _public_coordinates(split: Split, settings: FedAvg) -> tuple[np.ndarray, np.ndarray]:
    """Private and judged rows, of mean square length about 4."""
    if settings.features == "principal":
        _, private, judged = split.principal(settings.size, 0.5)
        return 4.0 * private, 4.0 * judged
    scale = 4.0 / settings.size**0.5
    return scale * split.placed[:, : settings.size], scale * split.placed_judged[:, : settings.size]


def _with_constant(*rows: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(np.column_stack([r, np.ones(len(r))]).astype(np.float32) for r in rows)


def _padded(
    rows: np.ndarray, labels: np.ndarray, parts: Sequence[np.ndarray]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    longest = max(map(len, parts))
    x = torch.zeros(len(parts), longest, rows.shape[1])
    y, mask = torch.zeros(len(parts), longest, CLASSES), torch.zeros(len(parts), longest, 1)
    for i, part in enumerate(parts):
        x[i, : len(part)], mask[i, : len(part)] = torch.tensor(rows[part]), 1.0 / max(len(part), 1)
        y[i, : len(part)] = torch.tensor(one_hot(labels[part])).float()
    return x, y, mask


def _updates(weights: torch.Tensor, x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor, steps: int) -> torch.Tensor:
    own = weights.expand(len(x), -1, -1)
    for _ in range(steps):
        own = own - 0.5 * x.mT @ (((x @ own).softmax(2) - y) * mask)
    return own - weights


def local(split: Split, parts: Sequence[np.ndarray]) -> dict:
    """Clients by themselves, without noise, mean accuracy: ridge on own rows; prototypes in the public graph."""
    ridge, semi = [], []
    for part in parts:
        if not len(part):
            continue
        x = split.private[part]
        dual = np.linalg.solve(x @ x.T + 0.02 * np.eye(len(x)), one_hot(split.labels[part]) - 1.0 / CLASSES)
        ridge.append(split.accuracy(split.judged @ (x.T @ dual).astype(np.float32)))
        held = np.bincount(split.labels[part], minlength=CLASSES) > 0
        scores = prototype_scores(split.placed_judged, split.placed[part], split.labels[part], CLASSES)
        semi.append(split.accuracy(np.where(held, scores, -np.inf)))
    return {"ridge": float(np.mean(ridge)), "semi_supervised": float(np.mean(semi))}


def yardsticks(split: Split) -> dict:
    """Without privacy: the same kernel machine on all private rows, and on the transfer set's true labels."""
    mapped = split.kernel.map(split.private)
    targets = one_hot(split.labels) - 1.0 / CLASSES
    weights = np.linalg.solve(mapped.T @ mapped + 0.1 * np.eye(mapped.shape[1]), mapped.T @ targets)
    return {
        "central": split.accuracy(split.mapped @ weights),
        "true_labels": split.kernel_student(as_labels(one_hot(split.transfer_labels))),
    }


def masked_session(split: Split, seed: int) -> dict:
    """One sum at ε = 1 through a whole masked session, compared with plain addition of the same integers."""
    mechanism = budget(matrix_bounds(len(split.transfer)), 1.0).mechanism
    scores = teachers(split, partition(split.labels, CLIENTS, 0.3, seed))
    releases = {
        str(i): mechanism.release(s.astype(np.float64).ravel(), Csprng(os.urandom(32))) for i, s in enumerate(scores)
    }
    variance = int((mechanism.sigma / mechanism.step) ** 2)
    values = len(next(iter(releases.values())))
    terms = Terms(CLIENTS, values, mechanism.magnitude, THRESHOLD, COLLUDERS, b"benchmark", 1, variance)
    started = time.process_time()
    result = add_up(MaskingAggregator(), releases, terms)
    return {
        "identical": bool(np.array_equal(result.total, sum(releases.values()))),
        "survivors": len(result.survivors),
        "cpu_seconds": time.process_time() - started,
        "upload_bytes_per_client": sum(sum(by.values()) for by in result.upload.values()) / CLIENTS,
    }


def tune(split: Split, epsilons: Sequence[float]) -> dict:
    """Queries of GNMax and settings of DP-FedAvg with the best accuracy on validation rows, at no privacy cost."""
    found: dict = {"queries": {}, "validation": {}}
    for kind, alpha in ALPHAS.items():
        parts = partition(split.labels, CLIENTS, alpha, 10_000)
        votes = votes_of(teachers(split, parts), split.labels, parts)
        for epsilon in epsilons:
            key = f"{epsilon:g}"
            gnmax = {
                q: float(np.mean([gnmax_student(split, votes, q, epsilon, s, simulated_sum) for s in (1, 2, 3)]))
                for q in QUERIES
            }
            queries = max(gnmax, key=lambda q: gnmax[q])
            found["queries"].setdefault(kind, {})[key] = queries
            best = found["validation"].setdefault(kind, {}).setdefault(key, {"gnmax": gnmax[queries]})
            for name, grid in GRID.items():
                averaged = {s: fedavg(split, parts, s, epsilon, simulated_sum) for s in grid}
                settings = max(averaged, key=lambda s: averaged[s])
                found.setdefault(name, {}).setdefault(kind, {})[key] = asdict(settings)
                best[name] = averaged[settings]
                print(kind, key, settings, [round(a, 2) for a in averaged.values()], flush=True)
            print(kind, key, {q: round(a, 2) for q, a in gnmax.items()}, flush=True)
    return found
