"""Attacks on language models, from the token log-probabilities of each text."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from securekd_attacks.inputs import FloatArray, finite_matrix
from securekd_attacks.signals import tokens as compute
from securekd_attacks.signals.access import Access, Signals, required


@dataclass(frozen=True)
class TokenLossAttack:
    """Members have a lower mean token loss (Yeom et al. 2018). The score is minus it, in nats a token."""

    @property
    def name(self) -> str:
        """The name in tables and records."""
        return "token_loss"

    @property
    def needs(self) -> frozenset[Access]:
        """Token log-probabilities."""
        return frozenset({Access.TOKEN_LOG_PROBS})

    def score(self, signals: Signals) -> FloatArray:
        """Give minus the mean loss, shape (n,). Errors as in `signals.mean_loss`, and MissingAccess."""
        return np.array([-compute.mean_loss(tokens) for tokens in _tokens(signals, self.name)])


@dataclass(frozen=True)
class ZlibAttack:
    """The loss against how well the text compresses (Carlini et al. 2021). The score is minus the ratio."""

    @property
    def name(self) -> str:
        """The name in tables and records."""
        return "zlib"

    @property
    def needs(self) -> frozenset[Access]:
        """Token log-probabilities and the texts."""
        return frozenset({Access.TOKEN_LOG_PROBS, Access.TEXTS})

    def score(self, signals: Signals) -> FloatArray:
        """Give minus the ratio, shape (n,). Errors as in `signals.zlib_ratio`, and MissingAccess."""
        texts = required(signals.texts, Access.TEXTS, self.name)
        pairs = zip(_tokens(signals, self.name), texts, strict=True)
        return np.array([-compute.zlib_ratio(tokens, text) for tokens, text in pairs])


@dataclass(frozen=True)
class MinKAttack:
    """Members have fewer very unlikely tokens (Shi et al. 2024). The score is the mean of the least k.

    Attributes:
        k: fraction of the tokens, in (0, 1].
    """

    k: float = 0.2

    @property
    def name(self) -> str:
        """The name in tables and records."""
        return "min_k"

    @property
    def needs(self) -> frozenset[Access]:
        """Token log-probabilities."""
        return frozenset({Access.TOKEN_LOG_PROBS})

    def score(self, signals: Signals) -> FloatArray:
        """Give the mean, shape (n,). Errors as in `signals.min_k`, and MissingAccess."""
        return np.array([compute.min_k(tokens, self.k) for tokens in _tokens(signals, self.name)])


@dataclass(frozen=True)
class MinKPlusPlusAttack:
    """Min-K% with each token measured against the others that could stand there (Zhang et al. 2025).

    Attributes:
        k: fraction of the tokens, in (0, 1].
    """

    k: float = 0.2

    @property
    def name(self) -> str:
        """The name in tables and records."""
        return "min_k_plus_plus"

    @property
    def needs(self) -> frozenset[Access]:
        """Token log-probabilities, and their means and deviations under the target."""
        return frozenset({Access.TOKEN_LOG_PROBS, Access.TOKEN_MEANS, Access.TOKEN_DEVIATIONS})

    def score(self, signals: Signals) -> FloatArray:
        """Give the mean, shape (n,). Errors as in `signals.min_k_plus_plus`, and MissingAccess."""
        means = required(signals.token_means, Access.TOKEN_MEANS, self.name)
        deviations = required(signals.token_deviations, Access.TOKEN_DEVIATIONS, self.name)
        texts = zip(_tokens(signals, self.name), means, deviations, strict=True)
        return np.array([compute.min_k_plus_plus(*text, self.k) for text in texts])


@dataclass(frozen=True)
class ReferenceTextAttack:
    """The loss against that of a reference model, which was not trained with the text (Carlini et al. 2021)."""

    @property
    def name(self) -> str:
        """The name in tables and records."""
        return "reference_text"

    @property
    def needs(self) -> frozenset[Access]:
        """Token log-probabilities under the target and under a reference."""
        return frozenset({Access.TOKEN_LOG_PROBS, Access.REFERENCE_TOKEN_LOG_PROBS})

    def score(self, signals: Signals) -> FloatArray:
        """Give the reference's mean loss minus the target's, shape (n,). Errors as in `signals.mean_loss`."""
        others = required(signals.reference_token_log_probs, Access.REFERENCE_TOKEN_LOG_PROBS, self.name)
        pairs = zip(_tokens(signals, self.name), others, strict=True)
        return np.array([compute.mean_loss(theirs) - compute.mean_loss(own) for own, theirs in pairs])


@dataclass(frozen=True)
class NeighbourhoodAttack:
    """The loss against that of slightly altered copies of the text (Mattern et al. 2023); no reference is needed."""

    @property
    def name(self) -> str:
        """The name in tables and records."""
        return "neighbourhood"

    @property
    def needs(self) -> frozenset[Access]:
        """Token log-probabilities, and the target's mean losses on altered copies."""
        return frozenset({Access.TOKEN_LOG_PROBS, Access.NEIGHBOUR_LOSSES})

    def score(self, signals: Signals) -> FloatArray:
        """Give the copies' mean loss minus the text's, shape (n,).

        Raises:
            NotFiniteScores, ShapeMismatch, TooFewRecords: the copies' losses are unfit.
            MissingAccess, BadProbabilities: as for `signals.mean_loss`.
        """
        losses = finite_matrix(required(signals.neighbour_losses, Access.NEIGHBOUR_LOSSES, self.name), "losses")
        own = np.array([compute.mean_loss(tokens) for tokens in _tokens(signals, self.name)])
        result: FloatArray = losses.mean(axis=1, dtype=np.float64) - own
        return result


def _tokens(signals: Signals, by: str) -> Sequence[NDArray[np.floating]]:
    return required(signals.token_log_probs, Access.TOKEN_LOG_PROBS, by)
