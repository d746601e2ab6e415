"""Targets: what can be audited, each behind the same protocol, and what they and their references say.

Adapters load what they need when they are opened: importing this package loads neither torch nor transformers.
"""

from securekd_attacks.targets.endpoint import EndpointTarget, Manners
from securekd_attacks.targets.errors import BadAnswer, BadSignalsFile, TargetFailed, TargetUnusable
from securekd_attacks.targets.function import FunctionTarget
from securekd_attacks.targets.huggingface import FolderTarget
from securekd_attacks.targets.records import Answers, Inputs, Records, Target, content_ids
from securekd_attacks.targets.sides import References, Sides
from securekd_attacks.targets.signals_file import SignalsFile

__all__ = [
    "Answers",
    "BadAnswer",
    "BadSignalsFile",
    "EndpointTarget",
    "FolderTarget",
    "FunctionTarget",
    "Inputs",
    "Manners",
    "Records",
    "References",
    "Sides",
    "SignalsFile",
    "Target",
    "TargetFailed",
    "TargetUnusable",
    "content_ids",
]
