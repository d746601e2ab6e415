"""Reference models: which records each was trained with, and their signals on disk, streamed there by training."""

from securekd_attacks.references.inclusion import covered
from securekd_attacks.references.shadow import train_shadows
from securekd_attacks.references.store import ShadowDesign, SignalStore

__all__ = ["ShadowDesign", "SignalStore", "covered", "train_shadows"]
