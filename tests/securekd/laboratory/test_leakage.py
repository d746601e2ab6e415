"""Leakage figures rest on the right records."""

import numpy as np
import pytest

from securekd.data import holdings
from securekd.laboratory.leakage import nonmember_shares
from securekd.laboratory.plan import make_plan
from tests.securekd.conftest import small


@pytest.mark.parametrize("partition", [{"kind": "iid"}, {"kind": "dirichlet", "alpha": 0.3, "minimum": 10}])
def test_nonmembers_are_dealt_once_and_in_each_clients_label_mix(partition: dict[str, object]) -> None:
    plan = make_plan(small(data={"test": 600, "private": 900, "partition": partition}))
    shares = nonmember_shares(plan)
    dealt = np.concatenate([share.ids for share in shares])
    assert sorted(dealt) == sorted(plan.data.test.ids)
    held = holdings(plan.data).counts
    for share, counts in zip(shares, held, strict=True):
        expected = counts / counts.sum()
        found = np.bincount(share.labels, minlength=10) / len(share)  # type: ignore[arg-type]
        assert np.abs(found - expected).sum() < 0.35  # classes are a few percent rarer in one split than in another


def test_a_class_that_no_client_holds_is_dealt_all_the_same() -> None:
    plan = make_plan(small(data={"private": 12, "partition": {"kind": "iid", "minimum": 1}}, seed=2))
    shares = nonmember_shares(plan)
    assert sum(map(len, shares)) == len(plan.data.test)
