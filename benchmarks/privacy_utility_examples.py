"""Example-level privacy: 10 clients train with DP-SGD, and what they release is post-processing.

Clients, and the yardstick that holds all examples, train a softmax regression on the same kind of features by the
closed-form DP-SGD, with Poisson samples and noise from `calibrate_dp_sgd`; sizes and learning rates of both are tuned
on validation rows.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import product
from typing import Literal

import numpy as np
import torch
from privacy_utility_common import CLASSES, DELTA, Split, partition
from torch import nn

from securekd.learning.dp.closed_form import Features
from securekd.learning.dp.dp_sgd import DpSgdPlan, train_head
from securekd.learning.smoothing.noise_aware import learn
from securekd.learning.smoothing.smoother import centred
from securekd.numerics import log_softmax
from securekd.privacy.accountant import calibrate_dp_sgd, compose_epsilon
from securekd.privacy.events import DpSgdEvent
from securekd.randomness import Csprng

CLIENTS = 10
EPSILONS = (1.0, 2.0, 3.0, 4.0, 8.0)
CLIP = 1.0
Variance = Literal["zero", "spread", "rough"]
VARIANCES: tuple[Variance, ...] = ("zero", "spread", "rough")


@dataclass(frozen=True)
class Training:
    """One way to train a head by DP-SGD.

    Attributes:
        size: principal components of HOG that it sees, which come from the transfer set; 0 for HOG as it is.
        learning_rate: of SGD.
        sampling_rate: of Poisson samples.
        steps: number of them.
    """

    size: int
    learning_rate: float
    sampling_rate: float
    steps: int


CLIENT_GRID = tuple(Training(size, rate, 0.1, 100) for size, rate in product((100, 300), (1.0, 3.0, 10.0)))
PLAIN_CLIENT_GRID = tuple(Training(0, rate, 0.1, 100) for rate in (1.0, 3.0, 10.0, 30.0))
PLAIN_CENTRAL_GRID = tuple(Training(0, rate, 0.05, 200) for rate in (3.0, 10.0, 30.0, 100.0))
PLAIN_EPSILONS = (1.0, 2.0, 3.0)
CENTRAL_GRID = tuple(Training(size, rate, 0.05, 200) for size, rate in product((300, 690), (3.0, 10.0, 30.0)))


@cache
def noise_multiplier(sampling_rate: float, steps: int, epsilon: float) -> float:
    return calibrate_dp_sgd(sampling_rate, steps, epsilon, DELTA, "add_remove")


@cache
def ledger_epsilon(sampling_rate: float, steps: int, epsilon: float) -> float:
    """What the accountant makes of the calibrated event."""
    multiplier = noise_multiplier(sampling_rate, steps, epsilon)
    event = DpSgdEvent(sampling_rate=sampling_rate, noise_multiplier=multiplier, steps=steps)
    return compose_epsilon([event], "add_remove", DELTA)


def trained(rows: np.ndarray, labels: np.ndarray, training: Training, epsilon: float) -> nn.Sequential:
    """A head on features (n, p), from zero weights."""
    head = nn.Sequential(nn.Linear(rows.shape[1], CLASSES))
    for parameter in head.parameters():
        nn.init.zeros_(parameter)
    multiplier = noise_multiplier(training.sampling_rate, training.steps, epsilon)
    plan = DpSgdPlan(training.sampling_rate, training.steps, multiplier, CLIP)
    features, classes = Features.of(torch.tensor(rows), head), torch.tensor(labels)
    randomness = Csprng(os.urandom(32))
    train_head(head, features, classes, plan, randomness, learning_rate=training.learning_rate, momentum=0.0)
    return head


def inputs(split: Split, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Transfer, private and judged features, of mean square length 4."""
    parts = split.principal(size, 0.5) if size else (split.transfer, split.private, split.judged)
    one, two, three = (4.0 * part for part in parts)
    return one, two, three


def logits(head: nn.Module, rows: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return np.asarray(head(torch.tensor(rows)).double().numpy())


def averaged(heads: Sequence[nn.Sequential]) -> nn.Sequential:
    """The head with the mean weights, which is also the mean of their logits."""
    mean = nn.Sequential(nn.Linear(heads[0][0].in_features, CLASSES))
    states = [h.state_dict() for h in heads]
    mean.load_state_dict({name: torch.stack([s[name] for s in states]).mean(0) for name in states[0]})
    return mean


def student(split: Split, teachers: Iterable[np.ndarray], rule: Variance) -> float:
    """Accuracy of the noise-aware student of the teachers' mean probabilities on the transfer set."""
    scores = np.stack([centred(np.exp(log_softmax(t))) for t in teachers])
    mean = scores.mean(axis=0)
    learnt = learn(split.transfer, mean, _variance(split, scores, rule), bases=split.bases, kernel=split.kernel)
    return split.accuracy(split.mapped @ learnt.weights)


def _variance(split: Split, scores: np.ndarray, rule: Variance) -> float:
    """Of an entry of the mean: 0; what teachers differ by; or what is rough on the graph of the public rows."""
    if rule == "zero":
        return 0.0
    if rule == "spread":
        return float(scores.var(axis=0, ddof=1).mean()) / len(scores)
    vectors, mean = split.bases[1].vectors, scores.mean(axis=0)
    rough = np.square(mean - vectors @ (vectors.T @ mean)).sum()
    return float(rough) / ((len(mean) - vectors.shape[1]) * (CLASSES - 1))


def measure(split: Split, seed: int, epsilons: Sequence[float], tuned: dict) -> dict:
    """All example-level figures of one seed: accuracies in percent, by method and ε."""
    parts = partition(split.labels, CLIENTS, None, seed)
    found: dict = {"ledger": {}}
    for epsilon in epsilons:
        key = f"{epsilon:g}"
        own, central = Training(**tuned["client"][key]), Training(**tuned["central"][key])
        transfer, private, judged = inputs(split, own.size)
        heads = [trained(private[p], split.labels[p], own, epsilon) for p in parts]
        all_transfer, all_private, all_judged = inputs(split, central.size)
        yardstick = trained(all_private, split.labels, central, epsilon)
        found[key] = {
            "student": student(split, [logits(h, transfer) for h in heads], tuned["variance"]),
            "central": split.accuracy(logits(yardstick, all_judged)),
            "clients_mean": float(np.mean([split.accuracy(logits(h, judged)) for h in heads])),
            "averaged_weights": split.accuracy(logits(averaged(heads), judged)),
            **({"central_student": student(split, [logits(yardstick, all_transfer)], "rough")} if epsilon < 2 else {}),
        }
        found["ledger"][key] = {
            "client": ledger_epsilon(own.sampling_rate, own.steps, epsilon),
            "central": ledger_epsilon(central.sampling_rate, central.steps, epsilon),
        }
        print("examples", seed, key, found[key], flush=True)
    return found


def tune(
    split: Split,
    epsilons: Sequence[float],
    clients: Sequence[Training] = CLIENT_GRID,
    centre: Sequence[Training] = CENTRAL_GRID,
) -> dict:
    """For each ε the training with the best accuracy on validation rows, of a client and of all data; the variance."""
    parts = partition(split.labels, CLIENTS, None, 10_000)
    found: dict = {"client": {}, "central": {}, "validation": {}}
    everything = np.arange(len(split.labels))
    for epsilon in epsilons:
        key = f"{epsilon:g}"
        best = found["validation"].setdefault(key, {})
        for who, grid, groups in (("client", clients, parts[:2]), ("central", centre, [everything])):
            accuracies = {t: _accuracy(split, groups, t, epsilon) for t in grid}
            training = max(accuracies, key=lambda t: accuracies[t])
            found[who][key], best[who] = asdict(training), accuracies[training]
            print(who, key, training, [round(a, 2) for a in accuracies.values()], flush=True)
    own = Training(**found["client"]["1"])
    transfer, private, _ = inputs(split, own.size)
    heads = [trained(private[p], split.labels[p], own, 1.0) for p in parts]
    rules = {rule: student(split, [logits(h, transfer) for h in heads], rule) for rule in VARIANCES}
    print(rules, flush=True)
    return found | {"variance": max(rules, key=lambda r: rules[r]), "variances": rules}


def _accuracy(split: Split, groups: Sequence[np.ndarray], training: Training, epsilon: float) -> float:
    _, private, judged = inputs(split, training.size)
    heads = [trained(private[g], split.labels[g], training, epsilon) for g in groups]
    return float(np.mean([split.accuracy(logits(h, judged)) for h in heads]))
