"""Bytes in a record are all that were sent."""

from pathlib import Path

from securekd.laboratory.plan import make_plan
from securekd.laboratory.runner import run
from tests.securekd.conftest import small


def test_every_sum_of_a_round_counts(out: Path) -> None:
    """With a threshold there are two sums in a round: votes on all rows, and those on the answered ones."""
    votes = {"strategy": "pate", "release": {"scores": "votes", "noise": 0.0}, "aggregation": "plain", "rounds": 1}
    experiment = small(pate={"threshold": 0.3, "answers": 20}, **votes)
    sent = run(experiment, out).communication
    rehearsed = make_plan(experiment).rehearse()
    expected = [sum(by["client-01"] for by in one.upload.values()) for one in rehearsed]
    assert len(expected) == 2
    assert sent.upload_bytes_per_client.mean == sum(expected) == 4 * 10 * (80 + 20)
