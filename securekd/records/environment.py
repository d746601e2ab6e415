"""Where a run took place, and what it took."""

import platform
import resource
import sys
from importlib.metadata import version

from securekd.records.record import Environment
from securekd.settings.experiment import Experiment

PACKAGES = ("torch", "opacus", "transformers", "datasets", "dp-accounting", "numpy", "scipy", "cryptography")


def environment(experiment: Experiment) -> Environment:
    """Versions, platform, seed and kind of noise."""
    return Environment(
        securekd=version("securekd"),
        python=platform.python_version(),
        platform=platform.platform(terse=True),
        versions={name: version(name) for name in PACKAGES},
        seed=experiment.seed,
        noise=experiment.privacy.noise,
    )


def peak_memory() -> int:
    """Largest resident memory of this process, or of one that it started and waited for, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
