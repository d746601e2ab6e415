"""Every observation point of a run, canaries, and replays beside the ledger; what is missing from a release is found.

Runs that are compared with the ledger's ε draw their noise from the operating system, so these tests may fail by
chance: an honest run with probability at most 0.1% (the confidence of all its bounds together), one with a broken
release passes with probability below 10⁻⁵ (its bound lies 4.5 of its deviations above ε where one client's noise is
missing, 18 where the clip is doubled).
"""

import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from securekd.cli.command import main
from securekd.errors import AgreementError, DataError, PromiseError, SettingError
from securekd.laboratory.canaries import choose_canaries
from securekd.laboratory.evaluation import labels_of
from securekd.laboratory.leakage import Measured
from securekd.laboratory.parties import client
from securekd.laboratory.plan import Plan, make_plan
from securekd.laboratory.points import honest
from securekd.laboratory.promises import refuse_leak
from securekd.laboratory.runner import Progress, phases, resume, run
from securekd.learning.tasks import perform
from securekd.privacy.accountant import guarantees
from securekd.privacy.ledger import read_ledger
from securekd.randomness import Csprng
from securekd.records.record import ALL_POINTS, CanaryBound, Result, read_result
from securekd.settings.config import to_toml
from securekd.settings.experiment import Experiment
from securekd_attacks import gaussian_epsilon
from tests.securekd.conftest import small

EVERYTHING: dict[str, object] = {
    "audit": {"attacks": ["loss"], "points": "all", "canaries": 32, "replays": 100},
    "data": {"transfer": 40},
    "clients": {"models": ["logistic"]},
    "student": {"epochs": 2},
}
MODEL = {"kind": "mlp", "options": {"hidden": 16}}
AVERAGING = {"strategy": "fedavg", "clients": {"models": [MODEL]}, "student": {"model": MODEL}}


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """One run with everything observed, which tests only read."""
    steps: list[Progress] = []
    result = run(small(**EVERYTHING), tmp_path_factory.mktemp("runs") / "watched", steps.append)
    assert steps[-1].done == steps[-1].total == phases(make_plan(small(**EVERYTHING)))
    return result


@pytest.fixture
def toss() -> np.ndarray:
    return np.arange(64) % 3 == 0


def planned(**changes: object) -> Plan:
    return make_plan(small(**EVERYTHING | changes))


# ---- Points ----


def test_every_point_is_observed_after_every_round(watched: Result) -> None:
    assert [(x.round, x.point) for x in watched.leakage] == [(n, p) for n in (1, 2) for p in ALL_POINTS]
    seen = {x.point: x.seen_by for x in watched.leakage}
    assert "own process" in seen["raw_release"]
    assert "own process" in seen["clipped_release"]
    assert "1 client" in seen["aggregate_minus_colluders"]


def test_members_at_a_sum_without_its_colluders_are_the_others(watched: Result) -> None:
    members = {x.point: x.members for x in watched.leakage if x.round == 1}
    assert members["aggregate"] == members["client_model"] == 240 - 64
    assert members["aggregate_minus_colluders"] == 3 * (240 - 64) // 4
    assert honest(make_plan(small(cohort={"colluders": 2}, clients={"count": 6})), (0, 2, 3, 5)) == (0, 2)


def test_nothing_is_added_unless_it_is_asked_for(tmp_path: Path) -> None:
    result = run(small(rounds=1), tmp_path / "run")
    assert result.canaries is None
    assert result.replays == ()
    assert {x.point for x in result.leakage} == {"client_model", "client_release", "aggregate", "student"}


def test_a_clip_and_noise_that_do_nothing_leave_the_points_alike(tmp_path: Path) -> None:
    # Fine steps, no noise, a clip that nothing reaches: what is released is what the model says, up to rounding.
    loose = {"clip": 1000.0, "noise": 0.0, "step": 2.0**-16}
    result = run(small(rounds=1, release=loose, audit={"attacks": ["loss"], "points": "all"}), tmp_path / "run")
    auc = {x.point: x.auc for x in result.leakage}
    assert auc["raw_release"] == pytest.approx(auc["clipped_release"], abs=1e-3)
    assert auc["client_release"] == pytest.approx(auc["clipped_release"], abs=5e-3)
    tight = run(small(rounds=1, release={"clip": 0.01}, audit={"points": "all"}), tmp_path / "tight")
    found = {x.point: x.auc for x in tight.leakage if x.attack == "loss"}
    assert found["raw_release"] != found["clipped_release"] != found["client_release"]


def test_releases_that_are_seen_one_by_one_are_each_others_references(tmp_path: Path) -> None:
    bare = {"rounds": 1, "privacy": {"dp_sgd": False}, "release": {"clip": 1000.0, "noise": 0.0}}
    bare |= {"training": {"plain_epochs": 60}, "clients": {"models": ["mlp"]}}
    bare |= {"data": {"private": 80, "transfer": 200}, "student": {"epochs": 30, "consensus": "mean"}}
    watching = {"audit": {"attacks": ["loss"], "points": "all"}}
    plain = run(small(**bare, **watching, aggregation="plain"), tmp_path / "plain")
    found = {x.attack: x for x in plain.leakage if x.point == "client_release"}
    assert set(found) == {"loss", "coop_lira"}
    assert found["coop_lira"].auc_ci[0] > 0.6
    assert (found["coop_lira"].members, found["coop_lira"].nonmembers) == (80, 120)
    masked = run(small(**bare, **watching), tmp_path / "masked")
    assert {x.attack for x in masked.leakage} == {"loss"}


@pytest.mark.parametrize("consensus", ["mean", pytest.param("weighted", marks=pytest.mark.slow)])
def test_averaged_weights_are_observed_likewise(consensus: str, tmp_path: Path) -> None:
    changes = {"rounds": 1, "student": {"model": MODEL, "consensus": consensus}, "privacy": {"neighbours": "zero_out"}}
    clip = {"fedavg": {"clip": 1000.0, "noise": 0.0}, "release": {"step": 2.0**-16}}
    watching = {"audit": {"attacks": ["loss"], "points": "all"}}
    result = run(small(**AVERAGING | changes | clip | watching), tmp_path / "run")
    auc = {x.point: x.auc for x in result.leakage}
    # Nothing is lost on the way: the model that a single update gives is the client's own.
    for point in ("raw_release", "clipped_release", "client_release"):
        assert auc[point] == pytest.approx(auc["client_model"], abs=2e-3)
    assert set(auc) == set(ALL_POINTS)


# ---- Canaries ----


def test_the_record_says_which_canaries_were_in(watched: Result) -> None:
    assert watched.canaries is not None
    planted = watched.canaries.planted
    assert {k: sum(c.kind == k for c in planted) for k in ("mislabelled", "natural")} == {
        "mislabelled": 32,
        "natural": 32,
    }
    assert len({c.id for c in planted}) == 64
    assert 15 < sum(c.included for c in planted) < 49  # 64 coins: beyond with probability 2e-5
    plan = planned()
    test = set(plan.data.test.ids.tolist()) | set(plan.data.transfer.ids.tolist())
    labels = {int(i): int(y) for c in plan.data.clients for i, y in zip(c.ids, labels_of(c), strict=True)}
    for canary in planted:
        assert canary.id not in test
        assert (labels[canary.id] == canary.label) == (canary.kind == "natural")


def test_each_kind_is_bounded_at_the_clients_model_and_the_student_in_every_round(watched: Result) -> None:
    assert watched.canaries is not None
    keys = [(b.round, b.point, b.kind) for b in watched.canaries.bounds]
    assert keys == [(n, p, k) for n in (1, 2) for p in ("client_model", "student") for k in ("mislabelled", "natural")]
    for bound in watched.canaries.bounds:
        assert (bound.canaries, bound.guesses) == (32, 16)
        assert 0 <= bound.epsilon_lower <= bound.epsilon_largest
        assert any("fair coin" in said for said in bound.assumptions)


def test_what_a_coin_kept_out_is_not_trained_on_and_still_counts(toss: np.ndarray) -> None:
    before = planned()
    after = before.planted(toss)
    canaries = after.canaries
    assert canaries is not None
    for i, (old, new) in enumerate(zip(before.clients, after.clients, strict=True)):
        mine = canaries.clients == i
        out = set(old.examples.ids[canaries.rows[mine & ~toss]].tolist())
        assert set(new.examples.ids.tolist()) == set(old.examples.ids.tolist()) - out
        assert (new.absent, new.size) == (len(out), old.size)
        wrong = dict(zip(old.examples.ids[canaries.rows[mine & toss]], canaries.labels[mine & toss], strict=True))
        trained = dict(zip(new.examples.ids, labels_of(new.examples), strict=True))
        assert all(trained[record] == label for record, label in wrong.items())
        same = dict(zip(old.examples.ids, labels_of(old.examples), strict=True))
        assert all(trained[r] == same[r] for r in trained if r not in wrong)


@pytest.mark.parametrize("kind", ["logistic", "cnn"])
def test_the_public_number_divides_every_step_whoever_is_out(kind: str, tmp_path: Path) -> None:
    plan = make_plan(small(clients={"models": [kind]}, training={"sampling_rate": 1.0}))
    one = client(plan, plan.clients[0], tmp_path)
    assert plan.agreement.dp is not None
    task = replace(one.private_task("x", state=None), dp=replace(plan.agreement.dp, steps=1, noise_multiplier=1e-9))
    start = perform(replace(task, inputs=None)).arrays

    def moved(absent: int) -> float:
        return sum(float(np.abs(b - start[k]).sum()) for k, b in perform(replace(task, absent=absent)).arrays.items())

    assert moved(0) / moved(len(one.examples)) == pytest.approx(2.0, rel=1e-3)


def test_a_client_trains_on_what_its_coins_left_and_declares_the_rest(toss: np.ndarray, tmp_path: Path) -> None:
    plan = planned().planted(toss)
    one = client(plan, plan.clients[0], tmp_path)
    task = one.private_task("x", state=None)
    assert task.inputs is not None
    assert len(task.inputs) + task.absent == one.member.examples == plan.clients[0].size
    assert task.absent == plan.clients[0].absent > 0
    with pytest.raises(AgreementError, match="has declared"):
        client(plan, replace(plan.clients[0], absent=0), tmp_path)


def test_canaries_are_taken_in_proportion_and_never_more_than_half() -> None:
    plan = make_plan(small(data={"partition": {"kind": "quantity", "alpha": 0.5, "minimum": 3}}))
    held = np.array([len(c) for c in plan.data.clients])
    found = choose_canaries(plan.data.clients, ("mislabelled", "natural"), 40, 10, np.random.default_rng(0))
    counts = np.bincount(found.clients, minlength=len(held))
    assert counts.sum() == 80
    assert (counts <= held // 2).all()
    assert (np.abs(counts - 80 * held / held.sum()) <= 2).all()
    assert len(set(zip(found.clients.tolist(), found.rows.tolist(), strict=True))) == 80
    with pytest.raises(DataError, match="more than half"):
        make_plan(small(audit={"canaries": 100}))


def test_coins_are_fair_and_secret() -> None:
    many = choose_canaries(make_plan(small()).data.clients, ("natural",), 100, 10, np.random.default_rng(0))
    share = np.mean([many.toss(Csprng(bytes([i]) * 32)) for i in range(100)])
    assert abs(share - 0.5) < 0.025  # five deviations of 10,000 coins
    with pytest.raises(DataError, match="not been tossed"):
        many.coins()


def test_a_resumed_run_finds_the_coins_as_they_fell(tmp_path: Path) -> None:
    def interrupt(progress: object) -> None:
        if progress.phase == "release.1.client-01":  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    out = tmp_path / "run"
    experiment = small(rounds=1, privacy={"noise": "os"}, audit={"attacks": ["loss"], "canaries": 32})
    with pytest.raises(KeyboardInterrupt):
        run(experiment, out, interrupt)
    coins = (out / "state" / "canaries.safetensors").read_bytes()
    again: list[bytes] = []
    result = resume(out, lambda progress: again.append((out / "state" / "canaries.safetensors").read_bytes()))
    assert all(found == coins for found in again)
    assert result.canaries is not None
    assert len(result.canaries.planted) == 64


def test_without_privacy_planted_errors_are_found(tmp_path: Path) -> None:
    bare = {"rounds": 1, "privacy": {"dp_sgd": False}, "training": {"plain_epochs": 60}, "clients": {"models": ["mlp"]}}
    watching = {"audit": {"attacks": ["loss"], "canaries": 100, "canary_kinds": ["mislabelled"]}}
    result = run(small(**bare | watching, data={"private": 400}), tmp_path / "run")
    assert result.canaries is not None
    own, student = result.canaries.bounds
    assert own.auc > 0.9
    assert own.epsilon_lower > 1.0
    assert own.epsilon is None
    assert student.auc < own.auc


def test_a_canary_bound_above_epsilon_is_an_error_that_names_the_point(watched: Result) -> None:
    assert watched.canaries is not None
    bound = watched.canaries.bounds[0]

    def measured(**changes: object) -> Measured:
        changed: CanaryBound = bound.model_copy(update=changes)
        return Measured((), watched.canaries.model_copy(update={"bounds": (changed,)}), ())  # type: ignore[union-attr]

    refuse_leak(measured(epsilon=None, epsilon_lower=9.0))
    refuse_leak(measured(epsilon=9.0, epsilon_lower=9.0))
    with pytest.raises(PromiseError, match="loss attack on mislabelled canaries at client_model"):
        refuse_leak(measured(epsilon=3.0, epsilon_lower=3.1))


# ---- Replays beside the ledger ----

MECHANISMS = textwrap.dedent(
    """
    from dataclasses import replace

    from securekd.privacy.mechanisms import IntegerMechanism


    class Muted(IntegerMechanism):
        "In every cohort of three, the second client adds no noise."

        CALLS = []

        def __init__(self, bounds, sigma, step):
            super().__init__("skellam", bounds, sigma, step)

        def release(self, vector, randomness):
            self.CALLS.append(1)
            if len(self.CALLS) % 3 == 2:
                return replace(IntegerMechanism("skellam", self.bounds, self.sigma, self.step), sigma=0.0).release(
                    vector, randomness
                )
            return super().release(vector, randomness)


    class Doubled(IntegerMechanism):
        "What is let through is twice as long as the ledger is told."

        def __init__(self, bounds, sigma, step):
            super().__init__("skellam", bounds, sigma, step)

        @property
        def magnitude(self):
            return 2 * super().magnitude

        def release(self, vector, randomness):
            bounds = replace(self.bounds, l2=2 * self.bounds.l2, l1=2 * self.bounds.l1, entry=2 * self.bounds.entry)
            return IntegerMechanism("skellam", bounds, self.sigma, self.step).release(2 * vector, randomness)
    """
)


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "mechanisms_of_a_user.py").write_text(MECHANISMS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mechanisms_of_a_user", raising=False)
    return "mechanisms_of_a_user"


def replaying(**changes: object) -> Experiment:
    """Three clients of whom one may collude, a client-level ε of 4, and 4,000 replays."""
    base: dict[str, object] = {
        "rounds": 1,
        "data": {"transfer": 10, "test": 120, "private": 120},
        "clients": {"count": 3, "models": ["logistic"]},
        "privacy": {"noise": "os", "client_epsilon": 4.0},
        "audit": {"attacks": ["loss"], "replays": 4000, "confidence": 0.999},
    }
    return small(**base | changes)


def test_an_honest_run_keeps_the_ledgers_epsilon_at_every_point(tmp_path: Path) -> None:
    """False alarms: at most 0.1%, of all bounds of the run together."""
    result = run(replaying(rounds=2), tmp_path / "run")
    ledger = {(g.view, g.unit): g.epsilon for g in guarantees(read_ledger(tmp_path / "run" / "ledger.json"))}
    found = {x.point: x for x in result.replays}
    assert {p: x.view for p, x in found.items()} == {
        "client_release": None,
        "aggregate": "public",
        "aggregate_minus_colluders": "clients",
    }
    for x in result.replays:
        assert x.round == 2
        assert x.epsilon == (None if x.view is None else ledger[x.view, "client"])
        if x.epsilon is not None:
            assert x.epsilon_lower <= x.epsilon
            assert 0.4 * x.epsilon < x.epsilon_lower_gaussian <= x.epsilon  # type: ignore[operator]
        assert x.auc_ci[0] - 0.02 <= x.auc_promised <= x.auc_ci[1] + 0.02
    assert found["client_release"].why == "no other party is at this point"


def test_with_plain_sums_a_single_release_is_in_the_servers_view(tmp_path: Path) -> None:
    result = run(replaying(aggregation="plain", audit={"replays": 100, "confidence": 0.999}), tmp_path / "run")
    single = next(x for x in result.replays if x.point == "client_release")
    assert (single.view, single.clients, single.colluders) == ("server", 1, 0)
    assert single.epsilon is not None
    assert single.epsilon < 4.001


def test_leaving_out_one_clients_noise_ends_the_command_with_code_3_and_names_the_point(
    mine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.toml").write_text(to_toml(replaying(release={"mechanism": f"{mine}:Muted"})))
    out = tmp_path / "run"
    monkeypatch.setattr(sys, "argv", ["securekd", "run", str(tmp_path / "config.toml"), "--out", str(out)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 3
    assert "at aggregate_minus_colluders proves" in capsys.readouterr().err
    record = {x.point: x for x in read_result(out).replays}
    single = record["client_release"]
    assert single.epsilon_lower_gaussian <= gaussian_epsilon(single.mu, single.delta)  # type: ignore[operator]


def test_a_doubled_clip_ends_with_code_3_and_names_the_point(mine: str, tmp_path: Path) -> None:
    with pytest.raises(PromiseError, match=r"at aggregate(_minus_colluders)? proves") as ended:
        run(replaying(release={"mechanism": f"{mine}:Doubled"}), tmp_path / "run")
    assert ended.value.exit_code == 3
    assert (tmp_path / "run" / "report.html").exists()


def test_weights_and_confident_votes_are_replayed_too(tmp_path: Path) -> None:
    averaged = run(small(**AVERAGING, rounds=1, audit={"attacks": ["loss"], "replays": 100}), tmp_path / "fedavg")
    assert {x.point for x in averaged.replays} == {"client_release", "aggregate", "aggregate_minus_colluders"}
    votes = {"strategy": "pate", "release": {"scores": "votes", "noise": 3.0}, "pate": {"threshold": 0.3}}
    voted = run(small(**votes, rounds=1, audit={"attacks": ["loss"], "replays": 100}), tmp_path / "pate")
    single = next(x for x in voted.replays if x.point == "client_release")
    # Counts of the threshold and of the answers: two releases of 80 one-hot rows.
    assert single.mu == pytest.approx(np.sqrt(2 * 80 * 0.9) / 3.0, rel=1e-6)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"audit": {"canaries": 5}}, "too few: take 0, or 32"),
        ({"audit": {"replays": 5}}, "too few: take 0, or 100"),
        ({"audit": {"canaries": 40, "canary_kinds": ["natural", "natural"]}}, "once"),
        ({"audit": {"canary_kinds": []}}, "at least 1"),
        ({"audit": {"replays": 100}, "release": {"noise": 0.0}}, "there is none"),
        ({"release": {"mechanism": "laplace"}}, "no mechanism is called 'laplace'"),
        ({"release": {"mechanism": "nowhere:x"}}, "cannot load"),
    ],
)
def test_what_cannot_be_measured_is_refused(changes: dict[str, object], why: str) -> None:
    with pytest.raises(SettingError, match=why):
        make_plan(small(**changes))
