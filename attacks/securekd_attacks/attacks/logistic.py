"""Ridge logistic regression on standardised features, by Newton's method: the one classifier of this package."""

from dataclasses import dataclass

import numpy as np
from scipy import linalg, special

from securekd_attacks.errors import BadSetting, ShapeMismatch
from securekd_attacks.inputs import FloatArray

STEPS = 50
"""Newton steps at most; with a ridge it takes about ten."""


@dataclass(frozen=True, eq=False)
class Logistic:
    """A fitted classifier.

    Attributes:
        centre: shape (D,), means of the features it was fitted on.
        scale: shape (D,), their standard deviations, 1 where there is none.
        weights: shape (D,).
        intercept: the logit at the centre.
    """

    centre: FloatArray
    scale: FloatArray
    weights: FloatArray
    intercept: float

    @classmethod
    def fit(cls, features: FloatArray, labels: FloatArray, ridge: float = 1.0) -> "Logistic":
        """Minimise Σ log loss + ridge/2 ‖weights‖²; the intercept is free, held by one pseudo-record on each side.

        Args:
            features: shape (n, D), finite.
            labels: shape (n,), 0 or 1.
            ridge: above 0, in units of records.

        Raises:
            BadSetting: the ridge is not positive.
        """
        if not ridge > 0.0:
            raise BadSetting("ridge out of range", value=ridge, remedy="choose one above 0")
        centre, scale = features.mean(axis=0), features.std(axis=0)
        scale = np.where(scale > 0.0, scale, 1.0)
        design = np.column_stack([(features - centre) / scale, np.ones(len(features))])
        penalty = np.append(np.full(features.shape[1], ridge), 0.0)
        last = np.append(np.zeros(features.shape[1]), 1.0)
        solution = np.zeros(features.shape[1] + 1)
        for _ in range(STEPS):
            chance = special.expit(design @ solution)
            pseudo = float(special.expit(solution[-1]))  # one record of each kind at the centre
            slope = design.T @ (chance - labels) + penalty * solution + last * (2.0 * pseudo - 1.0)
            curve = (design * (chance * (1.0 - chance))[:, None]).T @ design + np.diag(penalty)
            curve[-1, -1] += 2.0 * pseudo * (1.0 - pseudo)
            step = linalg.solve(curve, slope, assume_a="pos")
            solution = solution - step * min(1.0, 5.0 / max(1e-300, float(np.abs(step).max())))
            if np.abs(step).max() < 1e-9:
                break
        return cls(centre=centre, scale=scale, weights=solution[:-1], intercept=float(solution[-1]))

    def logits(self, features: FloatArray) -> FloatArray:
        """The logit of class 1 for each row, shape (n,), finite.

        Raises:
            ShapeMismatch: another number of features than it was fitted on.
        """
        if features.ndim != 2 or features.shape[1] != self.centre.size:
            raise ShapeMismatch(
                "features differ from those fitted on",
                value=(features.shape, self.centre.size),
                remedy="pass the same ones",
            )
        result: FloatArray = (features - self.centre) / self.scale @ self.weights + self.intercept
        return result
