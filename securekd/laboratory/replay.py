"""The release path played again and again, with the worst client there can be and without it, under the best attack.

A run holds one release of each client in each round, too few trials to bound a client-level ε. So the auditor draws
the releases anew, through the code that made those of the run: the clip, the mechanism, the integer sum. In one world
the target sends the longest vector that the clip lets through, in the other zeros (or its opposite, under
replace-one). The adversary knows all vectors and the noise of every colluder, and takes the inner product of what is
left with the difference of the worlds. For normal noise that is the optimal test (Neyman and Pearson 1933): of
N(0, 1) against N(μ, 1), with μ = Δ√T/(σ√(N − t)) over T rounds, N clients and t colluders among them.

Thresholds are fixed by what is promised, before anything is drawn, so no trial is spent on choosing them.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import ndtr

from securekd.errors import RunError
from securekd.knowledge.questions import Question
from securekd.knowledge.soft_labels import SoftLabelShape, soft_labels
from securekd.knowledge.weights import WeightUpdateShape, weight_update
from securekd.randomness import Csprng, Label
from securekd_attacks import (
    CountsBound,
    GaussianBound,
    clopper_pearson,
    gdp,
    release_mu,
    release_scores,
)
from securekd_attacks.bounds import refuted_epsilon

ReplayedPoint = Literal["client_release", "aggregate", "aggregate_minus_colluders"]

# As large as a logit or a weight's change may be; the clip decides what becomes of it.
HUGE = 1e9

# Values that are in memory at once, of all trials of a block.
BLOCK = 1 << 21

# Thresholds among which the one for Clopper and Pearson's bound is chosen by what is promised.
THRESHOLDS = 600


@dataclass(frozen=True, eq=False)
class ReleasePath:
    """One sum of releases: what is promised of it, and what each client does, which may not be the same.

    Attributes:
        promised: what every client is asked, and what its noise is said to be.
        clients: what each really does; the first is the target, the last ones collude.
        colluders: how many tell the adversary their noise, fewer than there are clients.
    """

    promised: Question
    clients: tuple[Question, ...]
    colluders: int

    @classmethod
    def as_promised(cls, promised: Question, clients: int, colluders: int) -> "ReleasePath":
        """Every client does what it should."""
        return cls(promised, (promised,) * clients, colluders)

    def unknown(self, point: ReplayedPoint) -> int:
        """Clients' noises, in what is seen at a point, that the adversary there does not know."""
        return {
            "client_release": 1,
            "aggregate": len(self.clients),
            "aggregate_minus_colluders": len(self.clients) - self.colluders,
        }[point]

    @property
    def points(self) -> tuple[ReplayedPoint, ...]:
        """Where the adversary may stand; without colluders, nothing can be taken off the sum."""
        return ("client_release", "aggregate") + (("aggregate_minus_colluders",) if self.colluders else ())

    @property
    def steps(self) -> tuple[np.ndarray, np.ndarray]:
        """What the target should send with noise left out, in steps: (d,) in one world, and (d,) in the other."""
        return _worlds(self.promised, self.promised)

    def mu(self, point: ReplayedPoint) -> float:
        """The promised μ of one sum at a point, for the target's vector."""
        present, absent = self.steps
        mechanism = self.promised.release.mechanism
        return release_mu(
            float(np.linalg.norm(present - absent)), mechanism.sigma / mechanism.step, self.unknown(point)
        )


@dataclass(frozen=True, eq=False)
class Replayed:
    """Scores at one point after each round.

    Attributes:
        mu: (T,), promised, after so many rounds.
        present: (T, trials), scores of trials in which the target takes part; each row adds a round to the one before.
        absent: (T, trials), of as many others in which it sends zeros, or its opposite.
    """

    mu: np.ndarray
    present: np.ndarray
    absent: np.ndarray


@dataclass(frozen=True)
class Refuted:
    """What scores of one point and round refute.

    Attributes:
        counts: bound with no assumption on the noise.
        gaussian: bound if the trade-off is Gaussian.
        largest: the largest ε that `gaussian` could show with so many trials, whatever they were.
    """

    counts: CountsBound
    gaussian: GaussianBound
    largest: float


def replay(
    paths: Sequence[ReleasePath], *, trials: int, rounds: int, secret: Callable[..., Csprng]
) -> dict[ReplayedPoint, Replayed]:
    """Draw `trials` releases of each client in each world, round and path, and score them at every point.

    Args:
        paths: what is released in a round, one after the other, over the same clients; noise must be promised.
        trials: in each world, at least 2.
        rounds: T, each with fresh noise.
        secret: gives a fresh secret stream for labels.

    Raises:
        RunError: if a client's vector is not bounded as its mechanism has it, or cannot be as large as can be.
    """
    points = paths[0].points
    mu = {point: np.array([path.mu(point) for path in paths]) for point in points}
    worlds: dict[bool, dict[ReplayedPoint, np.ndarray]] = {}
    for world in (True, False):
        rows = [
            [_scores(path, trials, world, secret, (number, index)) for index, path in enumerate(paths)]
            for number in range(1, rounds + 1)
        ]
        worlds[world] = {
            point: _over_rounds(np.array([[s[point] for s in row] for row in rows]), mu[point]) for point in points
        }
    reached = np.sqrt(np.arange(1, rounds + 1))
    return {
        point: Replayed(reached * np.linalg.norm(mu[point]), worlds[True][point], worlds[False][point])
        for point in points
    }


def refuted(present: np.ndarray, absent: np.ndarray, mu: float, delta: float, confidence: float) -> Refuted:
    """Lower bounds on ε from scores of `replay`, at thresholds that only what is promised decides.

    Args:
        present: (n,), scores with the target.
        absent: (n,), scores without.
        mu: the promised μ.
        delta: the δ of the bounds.
        confidence: of each bound by itself, one-sided.
    """
    cut = counting_threshold(mu, len(present), delta, confidence)
    counts = clopper_pearson(
        int((present >= cut).sum()), len(present), int((absent >= cut).sum()), len(absent), delta, confidence
    )
    half = mu / 2
    gaussian = gdp(
        int((present >= half).sum()), len(present), int((absent >= half).sum()), len(absent), delta, confidence
    )
    largest = gdp(len(present), len(present), 0, len(absent), delta, confidence)
    return Refuted(counts, gaussian, largest.epsilon_lower)


def counting_threshold(mu: float, trials: int, delta: float, confidence: float) -> float:
    """The threshold whose expected counts, under the promised μ, give Clopper and Pearson's bound the largest ε."""
    cuts = np.linspace(-2.0, mu + 4.0, THRESHOLDS)
    hits, alarms = np.rint(trials * ndtr(mu - cuts)), np.rint(trials * ndtr(-cuts))
    return float(cuts[int(np.argmax(refuted_epsilon(hits, trials, alarms, trials, delta, confidence)))])


def extreme(asked: Question) -> np.ndarray:
    """The longest vector (d,) that a client's clip lets through, made by that clip, in the data's unit.

    Rows of scores are sure of one class against another (against all others, where the clip bounds the largest entry);
    a weight update moves every weight alike. A client's weight, where there are weights, is the cap.

    Raises:
        RunError: for knowledge of another kind.
    """
    shape = asked.knowledge
    if isinstance(shape, SoftLabelShape):
        logits = np.zeros((shape.rows, shape.classes))
        logits[:, 0], logits[:, 1] = HUGE, -HUGE
        if shape.scores == "logits" and shape.clip.norm == "linf":
            logits[:] = np.where(np.arange(shape.classes) < shape.classes // 2, HUGE, -HUGE)
        return soft_labels(logits, shape, temperature=1.0, examples=shape.weight_cap or 1).vector
    if isinstance(shape, WeightUpdateShape):
        before, after = np.zeros(shape.size), np.full(shape.size, HUGE)
        return weight_update(before, after, shape, examples=shape.weight_cap or 1).vector
    raise RunError(f"nobody knows the longest {type(shape).__name__}; set audit.replays = 0 for this strategy")


def _worlds(promised: Question, target: Question) -> tuple[np.ndarray, np.ndarray]:
    step, vector = promised.release.mechanism.step, extreme(target)
    opposite = promised.release.exposure.neighbours == "replace_one"
    return vector / step, (-vector if opposite else np.zeros_like(vector)) / step


def _over_rounds(scores: np.ndarray, mu: np.ndarray) -> np.ndarray:
    """Scores (T, paths, trials) of single sums as scores (T, trials) of all that was seen so far."""
    weighted = np.einsum("tpn,p->tn", scores, mu).cumsum(axis=0)
    length = np.linalg.norm(mu) * np.sqrt(np.arange(1, len(scores) + 1))
    return np.asarray(weighted / length[:, None])


def _scores(
    path: ReleasePath, trials: int, world: bool, secret: Callable[..., Csprng], labels: tuple[Label, ...]
) -> dict[ReplayedPoint, np.ndarray]:
    """One sum's scores at every point, in one world."""
    mechanism = path.promised.release.mechanism
    present, absent = path.steps
    sent = _worlds(path.promised, path.clients[0])[0 if world else 1] * mechanism.step
    streams = [secret("replay", *labels, str(world), i) for i in range(len(path.clients))]
    found: dict[ReplayedPoint, list[np.ndarray]] = {point: [] for point in path.points}
    block = max(1, BLOCK // len(sent))
    for begin in range(0, trials, block):
        seen = _seen(path, sent, streams, min(block, trials - begin))
        for point, releases in seen.items():
            sigma = mechanism.sigma / mechanism.step * math.sqrt(path.unknown(point))
            found[point].append(release_scores(releases, absent, present - absent, sigma))
    return {point: np.concatenate(parts) for point, parts in found.items()}


def _seen(path: ReleasePath, sent: np.ndarray, streams: list[Csprng], trials: int) -> dict[ReplayedPoint, np.ndarray]:
    """What shows at every point in a block of trials, integers (trials, d); the others send zeros with their noise."""
    own, others, colluding = (np.zeros((trials, len(sent)), np.int64) for _ in range(3))
    into = [own, *[others] * (len(path.clients) - 1 - path.colluders), *[colluding] * path.colluders]
    zeros = np.zeros_like(sent)
    for trial in range(trials):
        for i, (client, stream) in enumerate(zip(path.clients, streams, strict=True)):
            into[i][trial] += client.release.draw(zeros if i else sent, stream)
    seen: dict[ReplayedPoint, np.ndarray] = {"client_release": own, "aggregate": own + others + colluding}
    return seen | ({"aggregate_minus_colluders": own + others} if path.colluders else {})
