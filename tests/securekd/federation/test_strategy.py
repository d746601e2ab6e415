"""Rounds as strategies play them: which rows are asked about, who is sampled, whose votes win."""

from pathlib import Path

import numpy as np
import pytest

from securekd.checkpoint import Saved
from securekd.data.features import public_features
from securekd.errors import RunError
from securekd.federation.messages import Instruction
from securekd.federation.strategies.consensus import Known, denoised, winners
from securekd.laboratory.parties import client
from securekd.laboratory.plan import make_plan
from securekd.laboratory.runner import run
from securekd.learning.smoothing.smoother import public_bases
from securekd.learning.tasks import network_of, state_of
from securekd.privacy.accountant import guarantees
from securekd.privacy.ledger import Ledger, read_ledger
from securekd.records.record import Result
from tests.securekd.conftest import small

pytestmark = pytest.mark.usefixtures("quick")

VOTES = {"strategy": "pate", "release": {"scores": "votes"}}


def server_epsilon(result: Result) -> float | None:
    return next(g.epsilon for g in result.privacy.guarantees if (g.view, g.unit) == ("server", "client"))


def test_gnmax_answers_so_many_rows_and_charges_for_them(out: Path) -> None:
    result = run(small(**VOTES, pate={"answers": 30}, rounds=1, privacy={"noise": "os", "client_epsilon": 40.0}), out)
    entries = [e for e in read_ledger(out / "ledger.json").entries if e.unit == "client"]
    assert {e.phase for e in entries} == {"release"}
    assert {e.event.dimension for e in entries} == {30 * 10}
    assert 39.9 < server_epsilon(result) <= 40.0
    assert result.utility.student.accuracy > 0.2


def test_confident_gnmax_charges_for_the_check_and_for_the_answers(out: Path) -> None:
    confident = {"answers": 30, "threshold": 0.3, "threshold_budget": 0.4}
    result = run(small(**VOTES, pate=confident, rounds=2, privacy={"noise": "os", "client_epsilon": 40.0}), out)
    entries = [e for e in read_ledger(out / "ledger.json").entries if e.unit == "client" and e.views == ("server",)]
    assert {(e.phase, e.event.dimension) for e in entries} == {("threshold", 800), ("release", 300)}
    assert len(entries) == 2 * 2 * 4
    check, answer = (next(e.event for e in entries if e.phase == p) for p in ("threshold", "release"))
    # Of what 1/σ² charges, the check has 40%.
    assert (check.l2 / check.sigma) ** 2 / (answer.l2 / answer.sigma) ** 2 == pytest.approx(0.4 / 0.6, rel=1e-6)
    assert 39.9 < server_epsilon(result) <= 40.0


def test_a_threshold_that_no_row_reaches_is_an_error(out: Path) -> None:
    # Noise can push a row over any threshold; without it, teachers that have learnt next to nothing never agree.
    with pytest.raises(RunError, match=r"lower pate\.threshold"):
        run(small(**VOTES | {"release": {"scores": "votes", "noise": 0}}, pate={"threshold": 1.0}, rounds=1,
                  training={"epochs": 0.5, "sampling_rate": 0.05}, privacy={"epsilon": 0.05}), out)  # fmt: skip


def test_winners_are_labels_with_a_little_doubt() -> None:
    consensus = winners(np.array([[0.2, 0.5, 0.3], [0.9, 0.1, 0.0]]))
    np.testing.assert_allclose(np.exp(consensus), [[0.005, 0.99, 0.005], [0.99, 0.005, 0.005]])


def test_rows_are_drawn_anew_in_each_round_and_the_ledger_says_which(out: Path) -> None:
    experiment = small(release={"rows": 30, "noise": 0.5}, rounds=2)
    run(experiment, out)
    entries = [e for e in read_ledger(out / "ledger.json").entries if e.unit == "client"]
    digests = {r: {e.transfer for e in entries if e.round == r} for r in (1, 2)}
    assert len(digests[1]) == len(digests[2]) == 1
    assert digests[1] != digests[2]
    plan = make_plan(experiment)
    first, second = (plan.agreement.rows(r, 30) for r in (1, 2))
    assert len(set(first)) == len(set(second)) == 30
    assert set(first) != set(second)
    assert {plan.agreement.rows_digest(plan.data.transfer, first).hex()} == digests[1]


def test_clients_that_were_asked_about_other_rows_release_nothing(tmp_path: Path) -> None:
    plan = make_plan(small(release={"rows": 30}))
    ledger = Ledger(tmp_path / "ledger.json", noise="seeded", delta=plan.agreement.delta)
    names = [c.name for c in plan.clients]
    rows = [plan.agreement.rows(r, 30) for r in (1, 2)]
    first, other = (plan.agreement.rows_digest(plan.data.transfer, r).hex() for r in rows)
    ledger.append(plan.question.release.entries(names[0], 1, first))
    before = (tmp_path / "ledger.json").read_bytes()
    with pytest.raises(RunError, match="other transfer rows"):
        ledger.append(plan.question.release.entries(names[1], 1, other))
    assert (tmp_path / "ledger.json").read_bytes() == before


def test_a_sampled_client_sends_its_scores_and_others_send_zeros(tmp_path: Path) -> None:
    plan = make_plan(small(cohort={"sampling_rate": 0.3}, release={"noise": 0.0}, rounds=200, training={"epochs": 400}))
    one = client(plan, plan.clients[0], tmp_path)
    state = Saved(state_of(network_of(one.member.model, plan.agreement.shape, 1, None)), {"zeroed": 0})
    rows = plan.agreement.rows(1, 80)
    about = plan.agreement.rows_digest(plan.data.transfer, rows)
    sent = []
    for number in range(1, 201):
        told = Instruction(number, "train", plan.agreement.digest)
        one.begin(told)
        one.finish(told, state)
        asked = Instruction(number, "release", plan.agreement.digest, {"rows": rows}, about=about, after=told.digest)
        one.begin(asked)
        sent.append(bool(one.released(asked).any()))
    assert 35 <= sum(sent) <= 87  # 60 expected; four standard deviations, and the seed is fixed


def test_client_sampling_amplifies_in_the_ledger_and_the_mean_is_scaled_back(out: Path) -> None:
    sampled = small(cohort={"sampling_rate": 0.2}, release={"noise": 60.0}, rounds=2)
    every = small(release={"noise": 60.0}, rounds=2)
    run(sampled, out)
    ledger = read_ledger(out / "ledger.json")
    assert {e.event.sampling_rate for e in ledger.entries if e.unit == "client"} == {0.2}
    unseeded = [make_plan(e).ledger().model_copy(update={"noise": "os"}) for e in (sampled, every)]
    small_epsilon, large_epsilon = (
        next(g.epsilon for g in guarantees(file) if (g.view, g.unit) == ("server", "client")) for file in unseeded
    )
    assert small_epsilon < 0.6 * large_epsilon
    question = make_plan(sampled).question
    total = np.arange(800.0)
    np.testing.assert_allclose(question.mean(total, 4), make_plan(every).question.mean(total, 4) / 0.2)


def test_a_student_that_denoises_learns_more_from_noisy_sums(out: Path) -> None:
    """The same noisy sums, smoothed over alike rows or not: the noise is seeded, so both runs see the same."""
    noisy = {"data": {"transfer": 400, "test": 120, "private": 800}, "release": {"noise": 6.0}, "rounds": 1}
    accuracies = {
        denoise: run(small(**noisy, student={"epochs": 30, "denoise": denoise}), out.with_name(str(denoise)))
        for denoise in (False, True)
    }
    plain, denoised = (accuracies[d].utility.student.accuracy for d in (False, True))
    assert denoised > plain + 0.1


def test_a_denoised_consensus_is_post_processing() -> None:
    """Other private data, the same public rows and released sum: not a bit of what the student learns differs."""
    plans = [
        make_plan(small(data={"transfer": 200, "test": 120, "private": private}, student={"denoise": True}))
        for private in (240, 800)
    ]
    np.testing.assert_array_equal(*(plan.data.transfer.inputs for plan in plans))
    rng = np.random.default_rng(0)
    released = Known(rng.normal(size=(200, 10)), np.full(200, 0.5))
    features = [public_features(plan.data.transfer) for plan in plans]
    one, other = (denoised(released, np.arange(200), f, public_bases(f)) for f in features)
    np.testing.assert_array_equal(one, other)
