"""One contract that every attack inherits, and what each attack says for itself."""

import dataclasses

import numpy as np
import pytest
from scipy import special

from securekd_attacks import (
    Access,
    Attack,
    BadProbabilities,
    EntropyAttack,
    LossAttack,
    MissingAccess,
    NotFiniteScores,
    OverlappingRecords,
    ShapeMismatch,
    Signals,
    TooFewRecords,
    auc,
    membership_scores,
    signals,
    split_bound,
    tpr_at_fpr,
)


def random_signals(seed, records=40, classes=5, scale=3.0):
    rng = np.random.default_rng(seed)
    log_probs = special.log_softmax(scale * rng.normal(size=(records, classes)), axis=1)
    return Signals(log_probs=log_probs, labels=rng.integers(0, classes, size=records))


def only(seen, access):
    return Signals(**{kind.value: getattr(seen, kind.value) for kind in access})


def memoriser(members=500, nonmembers=3000, classes=10):
    """A hash table: certain of what it stores, knowing nothing of the rest."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, size=members)
    stored = np.full((members, classes), -np.inf)
    stored[np.arange(members), labels] = 0.0
    unknown = np.full((nonmembers, classes), -np.log(classes))
    return Signals(stored, labels), Signals(unknown, rng.integers(0, classes, size=nonmembers))


class AttackContract:
    """Inherit, and set `attack`."""

    attack: Attack

    def test_declares_itself(self):
        assert isinstance(self.attack, Attack)
        assert self.attack.name
        assert self.attack.needs
        assert self.attack.needs <= set(Access)

    def test_one_finite_score_per_record(self):
        scores = self.attack.score(random_signals(1))
        assert scores.shape == (40,)
        assert scores.dtype == np.float64
        assert np.all(np.isfinite(scores))

    def test_missing_access_is_an_error(self):
        seen = random_signals(2)
        for lacking in self.attack.needs:
            less = only(seen, set(Access) - {lacking})
            with pytest.raises(MissingAccess, match=lacking.value):
                self.attack.score(less)
            for sides in ((less, seen), (seen, less)):
                with pytest.raises(MissingAccess, match=lacking.value):
                    membership_scores(self.attack, *sides)

    def test_uses_nothing_that_it_does_not_declare(self):
        seen = random_signals(3)
        np.testing.assert_array_equal(
            self.attack.score(only(seen, self.attack.needs)), self.attack.score(seen), strict=True
        )

    def test_scores_each_record_by_itself(self):
        seen, chosen = random_signals(4), np.array([7, 3, 21])
        alone = Signals(log_probs=seen.log_probs[chosen], labels=seen.labels[chosen])
        np.testing.assert_allclose(self.attack.score(alone), self.attack.score(seen)[chosen], rtol=1e-12)

    def test_higher_is_member(self):
        scores = membership_scores(self.attack, *memoriser())
        assert scores.members.min() > scores.nonmembers.max()

    def test_memoriser_is_found_out_with_finite_figures(self):
        scores = membership_scores(self.attack, *memoriser())
        found = tpr_at_fpr(scores.members, scores.nonmembers, fpr=0.001)
        assert found.resolved
        assert found.value == 1.0
        assert found.false_positives == 0
        area = auc(scores.members, scores.nonmembers)
        assert area.value == area.high == 1.0
        assert 0.98 < area.low < 1.0
        bound = split_bound(scores.members, scores.nonmembers, delta=1e-5, rng=np.random.default_rng(0))
        assert 4.0 < bound.epsilon_lower < np.inf
        for result in (found, area, bound.held_out):
            numbers = [value for value in dataclasses.astuple(result) if isinstance(value, float)]
            assert np.all(np.isfinite(numbers))

    def test_zero_probability_everywhere_stays_finite(self):
        log_probs = np.array([[0.0, -np.inf], [-np.inf, 0.0]])
        assert np.all(np.isfinite(self.attack.score(Signals(log_probs=log_probs, labels=np.array([0, 0])))))

    def test_nan_is_refused(self):
        with pytest.raises(BadProbabilities):
            self.attack.score(Signals(log_probs=np.array([[np.nan, 0.0]]), labels=np.array([0])))


class TestLossAttack(AttackContract):
    attack = LossAttack()

    def test_is_minus_the_loss(self):
        seen = random_signals(5)
        np.testing.assert_array_equal(self.attack.score(seen), -signals.cross_entropy_loss(seen.log_probs, seen.labels))
        assert self.attack.name == "loss"


class TestEntropyAttack(AttackContract):
    attack = EntropyAttack()

    def test_needs_no_label(self):
        assert self.attack.needs == {Access.LOG_PROBS}
        assert self.attack.name == "entropy"

    def test_is_minus_the_entropy(self):
        seen = random_signals(6)
        np.testing.assert_array_equal(self.attack.score(seen), -signals.entropy(seen.log_probs))


class TestModifiedEntropyAttack(AttackContract):
    attack = EntropyAttack(modified=True)

    def test_needs_the_label(self):
        assert self.attack.needs == {Access.LOG_PROBS, Access.LABELS}
        assert self.attack.name == "modified_entropy"

    def test_is_minus_the_modified_entropy(self):
        seen = random_signals(7)
        np.testing.assert_array_equal(self.attack.score(seen), -signals.modified_entropy(seen.log_probs, seen.labels))


class MarginAttack:
    """An attack of the reader's own: any class with the three members will do."""

    name = "margin"
    needs = frozenset({Access.LOG_PROBS})

    def score(self, seen):
        ordered = np.sort(np.maximum(seen.require_log_probs(self.name), -1e3), axis=1)
        if not np.all(seen.log_probs < np.inf):
            raise BadProbabilities("not below infinity", value="NaN", remedy="none")
        return ordered[:, -1] - ordered[:, -2]


class TestCustomAttack(AttackContract):
    attack = MarginAttack()


@dataclasses.dataclass
class ConstantAttack:
    scores: np.ndarray
    name: str = "constant"
    needs: frozenset = frozenset({Access.LABELS})

    def score(self, seen):
        return self.scores


def test_scores_stay_in_the_order_of_the_records():
    seen = random_signals(8)
    scores = membership_scores(LossAttack(), seen, random_signals(9))
    np.testing.assert_array_equal(scores.members, LossAttack().score(seen))
    assert scores.attack == "loss"


def test_overlap_is_refused_before_anything_is_scored():
    seen = random_signals(10)
    twice = [Signals(seen.log_probs, seen.labels, record_ids=range(start, start + 40)) for start in (0, 39)]
    with pytest.raises(OverlappingRecords):
        membership_scores(LossAttack(), *twice)


def test_sides_with_other_classes_are_refused():
    with pytest.raises(ShapeMismatch, match="differ in classes"):
        membership_scores(LossAttack(), random_signals(11), random_signals(12, classes=6))


@pytest.mark.parametrize(
    ("scores", "error"),
    [([1.0, np.nan], NotFiniteScores), ([1.0, 2.0, 3.0], ShapeMismatch), ([1.0], TooFewRecords)],
)
def test_what_an_attack_gives_is_checked(scores, error):
    seen = Signals(labels=np.array([0, 1]))
    with pytest.raises(error):
        membership_scores(ConstantAttack(np.array(scores)), seen, seen)


def test_a_single_member_is_refused():
    with pytest.raises(TooFewRecords, match="members"):
        membership_scores(LossAttack(), random_signals(13, records=1), random_signals(14))
