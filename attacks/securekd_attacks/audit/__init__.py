"""The audit of a deployment: `collect` asks a target, `evaluate` turns signals into figures, `audit` is both."""

from securekd_attacks.audit.asking import collect
from securekd_attacks.audit.deployment import AttackFound, AuditResult, Exposed, NotPossible, audit, evaluate
from securekd_attacks.audit.settings import AuditSettings

__all__ = [
    "AttackFound",
    "AuditResult",
    "AuditSettings",
    "Exposed",
    "NotPossible",
    "audit",
    "collect",
    "evaluate",
]
