"""The example: bytes between real processes, over TLS, with processes that die in every phase."""

import importlib.util
import random
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from securekd_protocols import errors, recommended_threshold

EXAMPLE = Path(__file__).parents[2] / "examples" / "secure_sum_tls" / "secure_sum.py"
TIMEOUT = 4.0
BEFORE_INPUT = ("connect", "advertise", "share", "masked_input")


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("secure_sum_tls_example", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def one_session(clients, kill, timeout=TIMEOUT):
    """Run the command as a user would; give its one line."""
    doomed = [f"{client}:{stage}" for client, stage in kill.items()]
    command = [sys.executable, str(EXAMPLE), "--clients", str(clients), "--length", "200", "--timeout", str(timeout)]
    run = subprocess.run([*command, "--kill", *doomed], capture_output=True, text=True, timeout=7 * timeout + 30)
    return run.stdout.strip()


def check(clients, kill, line):
    """The exact sum of some of those who could send an input, or the error that too few were left.

    On a busy machine a living client can miss a stage's time-out as well; it then counts as dropped out.
    """
    dead = {client for client, stage in kill.items() if stage in BEFORE_INPUT}
    if line == "TooFewSurvivors":
        assert issubclass(errors.TooFewSurvivors, errors.ProtocolError)
        return
    assert line.startswith("exact (")
    survivors = [int(index) for index in re.findall(r"\d+", line)]
    assert len(survivors) >= recommended_threshold(clients)
    assert not dead & set(survivors)


def can_succeed(clients, kill):
    return clients - len(kill) >= recommended_threshold(clients)


def test_the_example_is_short():
    assert len(EXAMPLE.read_text().splitlines()) < 150


def test_a_session_in_which_nobody_dies():
    assert one_session(5, {}, timeout=60) == "exact (0, 1, 2, 3, 4)"


def test_sessions_with_deaths():
    plans = [{1: "share", 4: "masked_input"}, {1: "share", 2: "share", 3: "unmask"}]
    with ThreadPoolExecutor(len(plans)) as pool:
        for kill, line in zip(plans, pool.map(lambda kill: one_session(6, kill), plans), strict=True):
            check(6, kill, line)
            assert can_succeed(6, kill) or line == "TooFewSurvivors"


@pytest.mark.slow
def test_two_hundred_sessions_with_random_deaths(example):
    """Clients die at random, in every phase; every session ends in time with the exact sum or the named error."""
    generator = random.Random(3)
    plans, stages = [], set()
    for _ in range(200):
        dying = generator.sample(range(4), generator.choice([0, 1, 1, 1, 2]))
        plan = {client: generator.choice(example.STAGES) for client in dying}
        stages |= set(plan.values())
        plans.append(plan)
    assert stages == set(example.STAGES)
    with ThreadPoolExecutor(6) as pool:
        lines = list(pool.map(lambda plan: one_session(4, plan), plans))
    for plan, line in zip(plans, lines, strict=True):
        check(4, plan, line)
        assert can_succeed(4, plan) or line == "TooFewSurvivors"
    hopeful = [line for plan, line in zip(plans, lines, strict=True) if can_succeed(4, plan)]
    assert 50 < len(hopeful) < 200
    assert sum(line.startswith("exact") for line in hopeful) > len(hopeful) / 10  # nearly all, where others are idle
