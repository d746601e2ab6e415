"""A million integer noise values: CPU time, and how many times the keystream that they are made of.

    python benchmarks/integer_noise.py

The limit is the ChaCha20 keystream of 8 bytes a value that a draw cannot do without, measured in the same run. numpy's
own samplers, which use a generator that is no CSPRNG and floating point, stand beside it. Table: the time to make the
table of a law, once for each σ.
"""

import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from securekd.privacy.noise import Law, noise_table
from securekd.randomness import Csprng

RESULTS = Path(__file__).parent / "results"
SIGMAS = (1.0, 10.0, 100.0, 1000.0, 10_000.0)
LAWS: tuple[Law, ...] = ("skellam", "discrete_gaussian")
COUNT = 1_000_000


def seconds(action: Callable[[], object], repeats: int = 7) -> float:
    """CPU seconds of the median run."""
    spent = []
    for _ in range(repeats):
        start = time.process_time()
        action()
        spent.append(time.process_time() - start)
    return median(spent)


def rows() -> list[dict[str, object]]:
    """One row for each law and σ."""
    keystream = seconds(lambda: Csprng(bytes(32)).words(COUNT))
    generator = np.random.default_rng(0)
    found: list[dict[str, object]] = []
    for law in LAWS:
        for sigma in SIGMAS:
            noise_table.cache_clear()
            making = seconds(lambda law=law, sigma=sigma: noise_table(law, sigma), repeats=1)
            table = noise_table(law, sigma)
            drawing = seconds(lambda table=table: table.draw(COUNT, Csprng(bytes(32))))
            rate = sigma**2 / 2
            peer = seconds(lambda rate=rate: generator.poisson(rate, COUNT) - generator.poisson(rate, COUNT))
            found.append(
                {
                    "law": law,
                    "sigma": sigma,
                    "table_s": making,
                    "draw_s": drawing,
                    "times_keystream": drawing / keystream,
                    "times_numpy_poisson": drawing / peer,
                }
            )
    return found


def markdown(found: list[dict[str, object]]) -> str:
    """The rows as a table."""
    lines = [
        "# A million integer noise values\n\n"
        f"Made by `benchmarks/integer_noise.py` on Python {platform.python_version()}, numpy {np.__version__}; "
        "CPU seconds of one thread.\n",
        "| law | σ | table, s | a million draws, s | ÷ keystream | ÷ numpy's Poisson difference (no CSPRNG) |",
        "| --- | --: | --: | --: | --: | --: |",
    ]
    for r in found:
        lines.append(
            f"| {r['law']} | {r['sigma']:g} | {r['table_s']:.3f} | {r['draw_s']:.3f} | {r['times_keystream']:.1f} | "
            f"{r['times_numpy_poisson']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    found = rows()
    (RESULTS / "integer_noise.json").write_text(json.dumps(found, indent=1) + "\n")
    (RESULTS / "integer_noise.md").write_text(markdown(found))
    print(markdown(found))


if __name__ == "__main__":
    main()
