"""Bases of public rows, which several runs may need."""

from pathlib import Path

import numpy as np

from securekd.checkpoint import Saved
from securekd.kept import Kept, digest_of
from securekd.learning.smoothing.smoother import Basis, public_bases


def shared_bases(shared: Path | None, features: np.ndarray) -> tuple[Basis, ...]:
    """Bases of public rows (`public_bases`), which another run may have computed.

    Args:
        shared: folder in which runs keep them; None: they are computed here.
        features: of the rows (m, p).
    """
    if shared is None:
        return public_bases(features)
    key = digest_of("bases", features)
    found = Kept(shared / "bases").get(key, lambda: _saved(public_bases(features)))
    return tuple(
        Basis(name, found.arrays[f"{name}.vectors"], found.arrays[f"{name}.roughness"], tuple(powers))
        for name, powers in found.info["powers"]
    )


def _saved(bases: tuple[Basis, ...]) -> Saved:
    arrays = {f"{basis.name}.{part}": getattr(basis, part) for basis in bases for part in ("vectors", "roughness")}
    return Saved(arrays, info={"powers": [(basis.name, basis.powers) for basis in bases]})
