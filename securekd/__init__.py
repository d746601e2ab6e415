"""securekd: privacy-first federated distillation.

Clients train models of their own kind under DP-SGD, release clipped and noised soft labels on a public transfer set,
and a secure aggregation protocol adds them up; the server distils the sum into a student. `Experiment` says what to
do, and `run` does it:

    from pathlib import Path
    from securekd import Experiment, run

    result = run(Experiment(rounds=2), Path("runs/first"))
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from securekd.audit.auditing import AuditRequest, audit_deployment
    from securekd.laboratory.plan import make_plan
    from securekd.laboratory.runner import resume, run
    from securekd.models.folder import load_student
    from securekd.records.audit_record import AuditRecord, read_audit
    from securekd.records.record import Result, read_result
    from securekd.settings.config import load_experiment
    from securekd.settings.experiment import Experiment

__all__ = [
    "AuditRecord",
    "AuditRequest",
    "Experiment",
    "Result",
    "audit_deployment",
    "load_experiment",
    "load_student",
    "make_plan",
    "read_audit",
    "read_result",
    "resume",
    "run",
]

_HOMES = {
    "AuditRecord": "records.audit_record",
    "AuditRequest": "audit.auditing",
    "audit_deployment": "audit.auditing",
    "read_audit": "records.audit_record",
    "Experiment": "settings.experiment",
    "Result": "records.record",
    "load_experiment": "settings.config",
    "load_student": "models.folder",
    "make_plan": "laboratory.plan",
    "read_result": "records.record",
    "resume": "laboratory.runner",
    "run": "laboratory.runner",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: `import securekd` itself loads neither torch nor numpy."""
    if name not in _HOMES:
        raise AttributeError(f"module 'securekd' has no attribute {name!r}")
    return getattr(import_module(f"securekd.{_HOMES[name]}"), name)
