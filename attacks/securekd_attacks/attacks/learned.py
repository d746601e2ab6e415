"""Attacks that learn what members or non-members look like: quantile regression and the shadow-model classifier."""

from dataclasses import dataclass

import numpy as np

from securekd_attacks.attacks.logistic import Logistic
from securekd_attacks.errors import BadSetting, TooFewRecords
from securekd_attacks.inputs import LOG_ZERO, FloatArray, finite_matrix
from securekd_attacks.signals import classes as compute
from securekd_attacks.signals.access import Access, Signals, required

TOP_CLASSES = 3
"""How many of a prediction's largest probabilities the shadow classifier sees."""


@dataclass(frozen=True, eq=False)
class QuantileAttack:
    """Each record has a threshold of its own, which its features predict (Bertran et al. 2023).

    A linear regression at one quantile of the scaled logit, fitted on records that the target was not trained with,
    says how sure the target may be of *such* a record by rights. The score is how far it is beyond that.

    Attributes:
        weights: shape (D,), and `intercept`: of the predicted quantile.
        intercept: see `weights`.
        quantile: in (0, 1): a rule at score 0 has an FPR of about 1 − quantile.
    """

    weights: FloatArray
    intercept: float
    quantile: float

    @classmethod
    def fit(cls, population: Signals, quantile: float = 0.99) -> "QuantileAttack":
        """Minimise the pinball loss, exactly, as a linear programme.

        Args:
            population: log-probabilities, labels and features of records that the target was not trained with.
            quantile: in (0, 1).

        Raises:
            BadSetting: the quantile is out of range, or the programme has no solution.
            TooFewRecords: fewer than 1/min(q, 1 − q) records beyond one for each feature: the quantile is not seen.
            MissingAccess, BadProbabilities, BadLabels, ShapeMismatch, NotFiniteScores: unfit signals.
        """
        if not 0.0 < quantile < 1.0:
            raise BadSetting("quantile out of range", value=quantile, remedy="choose one in (0, 1), such as 0.99")
        own = compute.scaled_logit(population.require_log_probs("quantile"), population.require_labels("quantile"))
        features = finite_matrix(required(population.features, Access.FEATURES, "quantile"), "features")
        needed = int(np.ceil(1.0 / min(quantile, 1.0 - quantile))) + features.shape[1] + 1
        if own.size < needed:
            raise TooFewRecords("too few records for this quantile", value=own.size, remedy=f"give at least {needed}")
        solution = _pinball(np.column_stack([features, np.ones(own.size)]).astype(np.float64), own, quantile)
        return cls(weights=solution[:-1], intercept=float(solution[-1]), quantile=quantile)

    @property
    def name(self) -> str:
        """The name in tables and records."""
        return "quantile"

    @property
    def needs(self) -> frozenset[Access]:
        """Log-probabilities, true labels and features."""
        return frozenset({Access.LOG_PROBS, Access.LABELS, Access.FEATURES})

    def score(self, signals: Signals) -> FloatArray:
        """Give the scaled logit minus its predicted quantile, shape (n,). Errors as in `fit`."""
        own = compute.scaled_logit(signals.require_log_probs(self.name), signals.require_labels(self.name))
        features = finite_matrix(required(signals.features, Access.FEATURES, self.name), "features")
        result: FloatArray = own - features @ self.weights - self.intercept
        return result


@dataclass(frozen=True, eq=False)
class ShadowAttack:
    """A classifier for each class, trained on shadow models whose members are known (Shokri et al. 2017).

    It sees the loss, the scaled logit, both entropies and the largest probabilities. The score is its logit.

    Attributes:
        classifiers: one for each class; None for a class that the shadows never showed on both sides.
    """

    classifiers: tuple[Logistic | None, ...]

    @classmethod
    def fit(cls, members: Signals, nonmembers: Signals, ridge: float = 1.0) -> "ShadowAttack":
        """Train on the outputs of shadow models, all models together.

        Args:
            members: log-probabilities and labels of records by shadow models that were trained with them.
            nonmembers: the same by shadow models that were not.
            ridge: above 0, in units of records.

        Raises:
            BadSetting: the ridge is not positive.
            MissingAccess, BadProbabilities, BadLabels, ShapeMismatch, TooFewRecords: unfit signals.
        """
        views = [_view(side, "shadow") for side in (members, nonmembers)]
        labels = [np.asarray(side.require_labels("shadow")) for side in (members, nonmembers)]
        classifiers: list[Logistic | None] = []
        for label in range(members.require_log_probs("shadow").shape[1]):
            inside, outside = (view[own == label] for view, own in zip(views, labels, strict=True))
            if len(inside) == 0 or len(outside) == 0:
                classifiers.append(None)
                continue
            answers = np.repeat([1.0, 0.0], [len(inside), len(outside)])
            classifiers.append(Logistic.fit(np.concatenate([inside, outside]), answers, ridge))
        return cls(tuple(classifiers))

    @property
    def name(self) -> str:
        """The name in tables and records."""
        return "shadow"

    @property
    def needs(self) -> frozenset[Access]:
        """Log-probabilities and true labels."""
        return frozenset({Access.LOG_PROBS, Access.LABELS})

    def score(self, signals: Signals) -> FloatArray:
        """Give the classifier's logit for each record's class, shape (n,).

        Raises:
            TooFewRecords: the shadows never showed a class that is scored, on both sides.
            MissingAccess, BadProbabilities, BadLabels, ShapeMismatch: unfit signals.
        """
        view, labels = _view(signals, self.name), np.asarray(signals.require_labels(self.name))
        scores = np.empty(len(view))
        for label in np.unique(labels):
            classifier = self.classifiers[label] if label < len(self.classifiers) else None
            if classifier is None:
                raise TooFewRecords(
                    f"the shadow models did not show class {label} on both sides",
                    value=int(label),
                    remedy="train more of them, or with more records",
                )
            rows = labels == label
            scores[rows] = classifier.logits(view[rows])
        return scores


def _view(signals: Signals, by: str) -> FloatArray:
    log_probs, labels = signals.require_log_probs(by), signals.require_labels(by)
    largest = -np.sort(-np.asarray(log_probs, dtype=np.float64), axis=1)[:, :TOP_CLASSES]
    return np.column_stack(
        [
            compute.cross_entropy_loss(log_probs, labels),
            compute.scaled_logit(log_probs, labels),
            compute.entropy(log_probs),
            compute.modified_entropy(log_probs, labels),
            np.exp(np.maximum(largest, LOG_ZERO)),
        ]
    )


def _pinball(design: FloatArray, values: FloatArray, quantile: float) -> FloatArray:
    """argmin Σ q·max(r, 0) + (1 − q)·max(−r, 0) with r = values − design·w (Koenker and Bassett 1978)."""
    from scipy import optimize, sparse

    rows, columns = design.shape
    equal = sparse.hstack([sparse.csr_matrix(design), sparse.identity(rows), -sparse.identity(rows)], format="csr")
    cost = np.concatenate([np.zeros(columns), np.full(rows, quantile), np.full(rows, 1.0 - quantile)])
    bounds = [(None, None)] * columns + [(0.0, None)] * (2 * rows)
    found = optimize.linprog(cost, A_eq=equal, b_eq=values, bounds=bounds, method="highs")
    if not found.success:
        raise BadSetting("the quantile regression has no solution", value=found.message, remedy="scale the features")
    solution: FloatArray = found.x[:columns]
    return solution
