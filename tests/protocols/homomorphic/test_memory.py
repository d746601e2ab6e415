"""Sessions leave nothing behind in the process."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

PROGRAM = """
import gc, numpy as np
from securekd_protocols.homomorphic import HomomorphicSettings, SchemeName, simulate_homomorphic

def resident():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])

vectors = {i: np.full(6000, i) for i in range(3)}
def session(number):
    name = list(SchemeName)[number % 2]
    done = simulate_homomorphic(vectors, HomomorphicSettings(name, 10, 3))
    assert (done.total == 3).all()
for number in range(50):
    session(number)
before = resident()
for number in range(300):
    session(number)
print(before, resident())
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
def test_three_hundred_sessions_grow_memory_by_less_than_a_twentieth():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, cwd=ROOT / "protocols", check=True
    )
    before, after = map(int, done.stdout.split())
    assert after <= 1.05 * before, (before, after)
