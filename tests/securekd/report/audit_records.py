"""A record as an audit writes it: computed from synthetic signals, so that every figure in it belongs to the others."""

from functools import cache

import numpy as np

from securekd.records.audit_record import AuditRecord, Check, record_of
from securekd_attacks import Signals
from securekd_attacks.audit import AuditSettings, evaluate
from securekd_attacks.targets import Sides


@cache
def record(shift: float = 0.0, name: str = "models/classifier", exceeded: bool = False) -> AuditRecord:
    """An audit with references and every bound; `shift` moves the non-members' features."""
    settings = AuditSettings(bounds=("clopper_pearson", "bayesian", "gdp", "one_run"), inclusion="bernoulli")
    checks = (Check(what="auc", limit=0.55, value=0.7 if exceeded else 0.5, exceeded=exceeded),)
    sides = Sides(_side(400, 1.0, 0.0, name), _side(500, 0.0, shift, f"not {name}"))
    return record_of(evaluate(sides, settings, cut=3), "folder", name, checks)


@cache
def canaries() -> AuditRecord:
    """An audit of a language model with planted texts, whose signals come from no records, so that none is checked."""
    rng = np.random.default_rng(1)
    sides = [
        Signals(
            token_log_probs=[rng.uniform(low, 0.0, size=12) for _ in range(n)],
            record_ids=[f"{name} {i}" for i in range(n)],
        )
        for name, n, low in (("planted", 20, -1.0), ("candidate", 40, -9.0))
    ]
    return record_of(evaluate(Sides(*sides), AuditSettings(canaries=True)), "callable", "deployed:model", ())


def _side(n: int, leak: float, shift: float, name: str) -> Signals:
    rng = np.random.default_rng(n)
    hard, inclusion = rng.normal(0, 3, size=n), rng.random((8, n)) < 0.5
    logit = hard + leak + rng.normal(0, 1, size=n)
    return Signals(
        log_probs=-np.logaddexp(0, np.stack([-logit, logit], axis=1)),
        labels=np.zeros(n, dtype=np.int64),
        record_ids=[f"{name} {i}" for i in range(n)],
        features=rng.normal(size=(n, 4)) + shift,
        references=hard + inclusion + rng.normal(0, 1, size=(8, n)),
        inclusion=inclusion,
    )
