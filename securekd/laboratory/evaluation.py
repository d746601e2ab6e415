"""How good a model is, and what it shows to an adversary: predictions, utility, signals."""

import numpy as np

from securekd.data import Examples
from securekd.records.record import Utility


def utility(logits: np.ndarray, labels: np.ndarray) -> Utility:
    """Accuracy, and macro-averaged precision, recall and F1 (a class that is never predicted has precision 0).

    Args:
        logits: (N, C).
        labels: (N,).
    """
    from sklearn.metrics import precision_recall_fscore_support

    guesses = logits.argmax(axis=1)
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, guesses, average="macro", zero_division=0.0, labels=np.unique(labels)
    )
    return Utility(
        accuracy=float((guesses == labels).mean()),
        precision=float(precision),
        recall=float(recall),
        f1=float(f1),
        examples=len(labels),
    )


def mean_utility(utilities: list[Utility]) -> Utility:
    """The mean of each figure over models tested on the same rows."""
    means = {
        name: float(np.mean([getattr(u, name) for u in utilities]))
        for name in ("accuracy", "precision", "recall", "f1")
    }
    return Utility(**means, examples=utilities[0].examples)


def labels_of(examples: Examples) -> np.ndarray:
    """The labels of rows that have some."""
    if examples.labels is None:
        raise ValueError("these rows have no labels")
    return examples.labels
