"""A student that knows the noise: from noisy scores on the transfer set to class probabilities.

What the server gets of a round is `released = truth + noise`, with a noise variance that is public. Taking each row's
largest score throws away what neighbouring rows say. Here instead

1. linear smoothers, in bases in which classes are smooth, are averaged by Stein's estimate (`smoother`);
2. a mixture model may sharpen it: class c has a template row μ_c, the row's class follows a logistic model in that
   basis, and both maximise the marginal likelihood (generalised EM, Dempster, Laird and Rubin 1977);
3. which of these answers to believe is settled by data thinning (Neufeld et al. 2024): with fresh noise z of the known
   law, `released + √τ z` and `released - z/√τ` are independent, so one proposes and the other judges by its likelihood;
4. where a χ² test finds no signal in the smooth directions at all, every row gets uniform probabilities.

All of it is a function of public features, released scores and public constants: post-processing, at no privacy cost.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from scipy.optimize import minimize
from scipy.special import chdtrc

from securekd.learning.smoothing.smoother import Basis, Smooth, centred, choose_smoother, public_bases
from securekd.numerics import log_softmax

Method = Literal["uniform", "ridge", "em"]


@dataclass(frozen=True, order=True)
class Recipe:
    """One way from scores to probabilities, as data thinning compares them.

    Attributes:
        method: `uniform` (nothing is to be learnt), `ridge` (discriminant of the smoothed scores) or `em`.
        penalty: of the logistic model's weights (`em` alone).
        sharpness: what its log-odds are multiplied by.
        evidence: whether a row's own scores are counted once more, by Bayes' rule.
    """

    method: Method
    penalty: float = 0.0
    sharpness: float = 1.0
    evidence: bool = False


@dataclass(frozen=True)
class Search:
    """What is tried.

    Attributes:
        splits: number of thinnings whose verdicts are averaged.
        held_out: share of the information (1/variance) that judges.
        penalties: of the logistic model.
        sharpnesses: factors of the log-odds.
        rounds: alternations of templates and logistic model.
        margin: standard errors by which the held-out likelihood of `em` must beat that of `ridge`.
        level: probability with which noise alone may pass for signal.
    """

    splits: int = 3
    held_out: float = 0.2
    penalties: tuple[float, ...] = (10.0, 30.0, 100.0)
    sharpnesses: tuple[float, ...] = (0.1, 0.3, 1.0, 2.0)
    rounds: int = 4
    margin: float = 1.0
    level: float = 1e-3


@dataclass(frozen=True, eq=False)
class Denoised:
    """What the transfer set's rows are believed to be.

    Attributes:
        scores: smoothed scores (m, C), centred.
        log_probabilities: (m, C), what a student is to learn.
        recipe: what was chosen, with its method.
        basis: name of the basis that Stein's estimate chose.
        freedom: effective number of directions kept, the trace of the smoother.
        risk: Stein's estimate of the mean squared error of an entry of `scores`.
        evidence: nats per row by which the held-out likelihood beats `uniform`.
        p_value: probability of as much signal in noise alone.
        considered: the same for each recipe that was tried.
    """

    scores: np.ndarray
    log_probabilities: np.ndarray
    recipe: Recipe
    basis: str
    freedom: float
    risk: float
    evidence: float
    p_value: float
    considered: dict[Recipe, float] = field(repr=False)

    @property
    def method(self) -> Method:
        """The method of the recipe that was chosen."""
        return self.recipe.method


@dataclass(frozen=True, eq=False)
class Answer:
    """What a recipe makes of scores.

    Attributes:
        recipe: the recipe.
        probabilities: of each row's classes (m, C).
        templates: mean row μ_c of each class (C, C).
        spread: variance of rows of a class around its template, beyond the noise's.
    """

    recipe: Recipe
    probabilities: np.ndarray
    templates: np.ndarray
    spread: float


def denoise(
    features: np.ndarray,
    released: np.ndarray,
    noise_variance: float,
    *,
    bases: Sequence[Basis] | None = None,
    search: Search | None = None,
    seed: int = 0,
) -> Denoised:
    """Class probabilities of the transfer set's rows from noisy scores.

    Args:
        features: public features (m, p) of the rows.
        released: noisy scores (m, C): sums or means of what clients sent. Only differences within a row count.
        noise_variance: variance of the noise of each entry, independent of all others; 0 where there is none.
        bases: those of `public_bases(features)`, where they are at hand already.
        search: what is tried.
        seed: of the fresh noise that thins the data. It decides nothing about privacy.

    Raises:
        ValueError: for shapes that do not match, scores that are not finite, or a variance below 0.
    """
    y = _checked(features, released, noise_variance)
    search = search or Search()
    bases = public_bases(features) if bases is None else bases
    verdicts = _judge(bases, y, noise_variance, search, np.random.default_rng(seed))
    p_value = signal_p_value(bases, y, noise_variance)
    best = _select(verdicts, search.margin) if p_value < search.level else Recipe("uniform")
    smooth = choose_smoother(bases, y, noise_variance)
    answer = next(a for a in _answers(smooth, y, noise_variance, search, only=best) if a.recipe == best)
    return Denoised(
        scores=smooth.scores,
        log_probabilities=np.log(np.maximum(answer.probabilities, 1e-12)),
        recipe=best,
        basis=smooth.basis.name,
        freedom=float(smooth.gains.sum()),
        risk=smooth.risk,
        evidence=float(verdicts[best].mean()),
        p_value=p_value,
        considered={recipe: float(gain.mean()) for recipe, gain in verdicts.items()},
    )


def thin(
    released: np.ndarray, noise_variance: float, held_out: float, randomness: np.random.Generator
) -> tuple[np.ndarray, float, np.ndarray, float]:
    """Two independent copies of noisy scores, with their variances (Neufeld et al. 2024, for the Gaussian).

    The second one holds the share `held_out` of the information: its variance is noise_variance/held_out, the first
    one's noise_variance/(1 - held_out). Their mean, weighted so, is `released`.
    """
    ratio = np.sqrt(held_out / (1.0 - held_out))
    z = centred(randomness.normal(scale=np.sqrt(noise_variance), size=released.shape))
    return released + ratio * z, noise_variance / (1.0 - held_out), released - z / ratio, noise_variance / held_out


def _judge(
    bases: Sequence[Basis], y: np.ndarray, variance: float, search: Search, randomness: np.random.Generator
) -> dict[Recipe, np.ndarray]:
    """For each recipe the nats (m,) by which it beats `uniform` on held-out copies of the rows."""
    gains: dict[Recipe, np.ndarray] = {}
    splits = search.splits if variance > 0 else 1  # without noise the copies are all the same
    for _ in range(splits):
        fit, fit_variance, judge, judge_variance = thin(y, variance, search.held_out, randomness)
        smooth = choose_smoother(bases, fit, fit_variance)
        base: np.ndarray | None = None
        for answer in _answers(smooth, fit, fit_variance, search):
            value = _row_likelihoods(answer, judge, judge_variance)
            base = value if base is None else base
            gains[answer.recipe] = gains.get(answer.recipe, 0.0) + (value - base) / splits
    return gains


def _select(verdicts: dict[Recipe, np.ndarray], margin: float) -> Recipe:
    """The best `em` where it beats the best `ridge` by `margin` standard errors, else that ridge."""
    ridge, em = (
        max((r for r in verdicts if r.method == method), key=lambda r: (float(verdicts[r].mean()), r), default=None)
        for method in ("ridge", "em")
    )
    assert ridge is not None
    if em is None:
        return ridge
    lead = verdicts[em] - verdicts[ridge]
    return em if lead.mean() > margin * lead.std() / np.sqrt(len(lead)) else ridge


def signal_p_value(bases: Sequence[Basis], released: np.ndarray, noise_variance: float) -> float:
    """Probability that noise alone has as much energy in a basis' first directions as was seen; 1 if there is none.

    The energy in k directions of row- and column-centred noise is at most σ² χ² with k(C-1) degrees of freedom. Five k
    are tried in each basis, and the smallest probability is multiplied by the number of tries (Bonferroni).
    """
    y = centred(released)
    y = y - y.mean(axis=0)
    smallest, tries = 1.0, 0
    for basis in bases:
        energy = np.cumsum(np.square(basis.vectors.T @ y).sum(axis=1))
        for k in {min(k, len(energy)) for k in (5, 10, 20, 40, 80)}:
            tries += 1
            if energy[k - 1] > 1e-18 * np.square(released).sum():  # beyond rounding
                ratio = energy[k - 1] / noise_variance if noise_variance > 0 else np.inf
                smallest = min(smallest, float(chdtrc(k * (y.shape[1] - 1), ratio)))
    return min(1.0, tries * smallest)


def _answers(
    smooth: Smooth, y: np.ndarray, variance: float, search: Search, only: Recipe | None = None
) -> Iterator[Answer]:
    """Each recipe's answer, or that of one recipe only; `uniform` comes first."""
    classes = y.shape[1]
    flat = np.full(y.shape, 1.0 / classes)
    if only is None or only.method == "uniform":
        yield Answer(Recipe("uniform"), flat, *_templates(flat, y, variance))
    for method, penalty, odds in _log_odds(smooth, y, variance, search, only):
        for sharpness in search.sharpnesses if only is None else (only.sharpness,):
            p = np.exp(log_softmax(sharpness * odds))
            templates, spread = _templates(p, y, variance)
            yield Answer(Recipe(method, penalty, sharpness), p, templates, spread)
            posterior = _posterior(p, y, templates, variance + spread)
            yield Answer(Recipe(method, penalty, sharpness, evidence=True), posterior, templates, spread)


def _log_odds(
    smooth: Smooth, y: np.ndarray, variance: float, search: Search, only: Recipe | None
) -> Iterator[tuple[Method, float, np.ndarray]]:
    if only is None or only.method == "ridge":
        yield "ridge", 0.0, discriminant(smooth.scores)
    for penalty in search.penalties:
        if only is None or (only.method == "em" and only.penalty == penalty):
            yield "em", penalty, fit_mixture(smooth, y, variance, penalty=penalty, rounds=search.rounds)


def discriminant(scores: np.ndarray) -> np.ndarray:
    """Log-odds (m, C) of the classes, by linear discriminant analysis of smoothed scores.

    A class that few clients know has small scores throughout, and would lose an arg max where it should win. Each row
    goes to the nearest of the classes' mean rows instead; those are taken over the rows that the arg max gives them.
    """
    hard = np.eye(scores.shape[1])[scores.argmax(axis=1)]
    templates, spread = _templates(hard, scores, 0.0)
    odds = (scores @ templates.T - 0.5 * np.square(templates).sum(axis=1)) / max(spread, 1e-300)
    return np.asarray(np.where(hard.any(axis=0), odds, odds.min(axis=1, keepdims=True)))


def fit_mixture(
    smooth: Smooth, released: np.ndarray, noise_variance: float, *, penalty: float, rounds: int
) -> np.ndarray:
    """Log-odds (m, C) of the rows' classes under the mixture of a logistic model and Gaussian templates.

    Maximises Σ_i log Σ_c softmax(W g_i)_c N(y_i; μ_c, σ² + spread) - penalty/2 ‖W‖² over W and, in turn, μ and the
    spread. Inputs g are the smoother's directions, scaled by what it keeps of each. It starts from the smoother's
    classes, which ties each component to its class.
    """
    y = centred(released)
    m, classes = y.shape
    kept = smooth.gains > 1e-3
    inputs = np.sqrt(m) * smooth.basis.vectors[:, kept] * np.sqrt(smooth.gains[kept])
    p = np.eye(classes)[discriminant(smooth.scores).argmax(axis=1)]
    weights = np.zeros((inputs.shape[1], classes))
    for _ in range(rounds):
        templates, spread = _templates(p, y, noise_variance)
        likelihood = _log_likelihoods(y, templates, noise_variance + spread)
        found = minimize(
            _objective,
            weights.ravel(),
            args=(inputs, likelihood, penalty),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 12},
        )
        weights = found.x.reshape(weights.shape)
        p = np.exp(log_softmax(inputs @ weights))
    return np.asarray(inputs @ weights)


def _objective(
    flat: np.ndarray, inputs: np.ndarray, likelihood: np.ndarray, penalty: float
) -> tuple[float, np.ndarray]:
    """Negative penalised marginal log-likelihood of the logistic model's weights, and its gradient."""
    weights = flat.reshape(inputs.shape[1], -1)
    prior = log_softmax(inputs @ weights)
    joint = prior + likelihood
    marginal = _log_sum_exp(joint)
    gradient = penalty * weights - inputs.T @ (np.exp(joint - marginal[:, None]) - np.exp(prior))
    return 0.5 * penalty * float(np.square(weights).sum()) - float(marginal.sum()), gradient.ravel()


def _row_likelihoods(answer: Answer, y: np.ndarray, variance: float) -> np.ndarray:
    """Log-likelihood (m,) of each row under an answer's mixture."""
    prior = np.log(np.maximum(answer.probabilities, 1e-12))
    return _log_sum_exp(prior + _log_likelihoods(y, answer.templates, variance + answer.spread))


def _templates(p: np.ndarray, y: np.ndarray, variance: float) -> tuple[np.ndarray, float]:
    """Least-squares template rows (C, C) of y ≈ p μ, and the variance around them beyond the noise's."""
    m, classes = p.shape
    mean = y.mean(axis=0)
    gram = p.T @ p + 1e-3 * m / classes * np.eye(classes)
    templates = mean + np.linalg.solve(gram, p.T @ (y - mean))
    likely = _posterior(p, y, templates, max(variance, 1e-300))
    squares = np.square(y).sum(axis=1) - 2.0 * (likely * (y @ templates.T)).sum(axis=1)
    squares += likely @ np.square(templates).sum(axis=1)
    return templates, max(0.0, float(squares.mean()) / (classes - 1) - variance)


def _posterior(p: np.ndarray, y: np.ndarray, templates: np.ndarray, variance: float) -> np.ndarray:
    joint = np.log(np.maximum(p, 1e-300)) + _log_likelihoods(y, templates, variance)
    return np.asarray(np.exp(joint - _log_sum_exp(joint)[:, None]))


def _log_likelihoods(y: np.ndarray, templates: np.ndarray, variance: float) -> np.ndarray:
    """log N(y_i; μ_c, variance) in the C-1 dimensions of centred rows: (m, C)."""
    squares = np.square(y).sum(axis=1)[:, None] - 2.0 * y @ templates.T + np.square(templates).sum(axis=1)
    variance = max(variance, 1e-12 * max(float(np.square(y).mean()), 1e-300))
    density: np.ndarray = -0.5 * (squares / variance + (y.shape[1] - 1) * np.log(2.0 * np.pi * variance))
    return density


def _log_sum_exp(joint: np.ndarray) -> np.ndarray:
    top = joint.max(axis=1)
    total: np.ndarray = top + np.log(np.exp(joint - top[:, None]).sum(axis=1))
    return total


def _checked(features: np.ndarray, released: np.ndarray, noise_variance: float) -> np.ndarray:
    if features.ndim != 2 or released.ndim != 2 or len(features) != len(released) or released.shape[1] < 2:
        raise ValueError(f"features {features.shape} and released scores {released.shape} are not (m, p) and (m, C)")
    if not np.isfinite(released).all() or not np.isfinite(features).all():
        raise ValueError("features or released scores are not finite; zero such rows before they are released")
    if not (np.isfinite(noise_variance) and noise_variance >= 0):
        raise ValueError(f"a noise variance of {noise_variance} is none; give a finite number of 0 or more")
    return centred(np.asarray(released, dtype=np.float64))
