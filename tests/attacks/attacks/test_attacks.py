"""One contract that every attack inherits, and what each attack says for itself."""

import dataclasses
from dataclasses import replace

import numpy as np
import pytest
from scipy import special

from securekd_attacks import (
    Access,
    Attack,
    AttackInputError,
    BadLabels,
    BadProbabilities,
    BadSetting,
    EntropyAttack,
    LabelOnlyAttack,
    LiraAttack,
    LossAttack,
    MinKAttack,
    MinKPlusPlusAttack,
    MissingAccess,
    NeighbourhoodAttack,
    NotFiniteScores,
    OverlappingRecords,
    PopulationAttack,
    Provenance,
    QuantileAttack,
    ReferenceAttack,
    ReferenceTextAttack,
    RmiaAttack,
    ShadowAttack,
    ShapeMismatch,
    Signals,
    TokenLossAttack,
    TooFewRecords,
    ZlibAttack,
    auc,
    gaussian_noise,
    lira,
    membership_scores,
    predicted_labels,
    rmia,
    scores_by_membership,
    signals,
    split_bound,
    tpr_at_fpr,
)


def random_signals(seed, records=40, classes=5, scale=3.0):
    """Everything that any attack may need, of no meaning."""
    rng = np.random.default_rng(seed)
    log_probs = special.log_softmax(scale * rng.normal(size=(records, classes)), axis=1)
    labels = rng.integers(0, classes, size=records)
    texts = [-rng.exponential(size=length) for length in rng.integers(1, 30, size=records)]
    return Signals(
        log_probs=log_probs,
        labels=labels,
        predicted=rng.integers(0, classes, size=(records, 8)),
        features=rng.normal(size=(records, 3)),
        references=rng.normal(size=(8, records)),
        inclusion=np.arange(8)[:, None] % 2 == rng.integers(0, 2, size=records)[None, :],
        texts=["".join(map(chr, rng.integers(97, 123, size=len(t)))) for t in texts],
        token_log_probs=texts,
        token_means=[np.full(len(t), -1.0) for t in texts],
        token_deviations=[np.full(len(t), 1.0) for t in texts],
        reference_token_log_probs=[-rng.exponential(size=len(t)) for t in texts],
        neighbour_losses=rng.exponential(size=(records, 4)),
    )


def only(seen, access):
    return Signals(**{kind.value: getattr(seen, kind.value) for kind in access})


def memoriser_side(rng, records, classes, stored):
    """One side of a hash table: certain of what it stores, knowing nothing of the rest."""
    labels = rng.integers(0, classes, size=records)
    certain = np.full((records, classes), -np.inf)
    certain[np.arange(records), labels] = 0.0
    unknown = np.full((records, classes), -np.log(classes))
    inclusion = np.tile(np.array([[True], [False]]), (4, records))
    loss = 0.0 if stored else 3.0
    return Signals(
        log_probs=certain if stored else unknown,
        labels=labels,
        predicted=np.repeat((labels if stored else (labels + 1) % classes)[:, None], 5, axis=1),
        features=rng.normal(size=(records, 3)),
        references=np.where(inclusion, 744.44, -np.log(classes - 1)),
        inclusion=inclusion,
        texts=["to be or not to be"] * records,
        token_log_probs=[np.full(6, -loss)] * records,
        token_means=[np.full(6, -3.0)] * records,
        token_deviations=[np.ones(6)] * records,
        reference_token_log_probs=[np.full(6, -3.0)] * records,
        neighbour_losses=np.full((records, 4), 3.0),
    )


def memoriser(members=500, nonmembers=3000, classes=10):
    rng = np.random.default_rng(0)
    return memoriser_side(rng, members, classes, stored=True), memoriser_side(rng, nonmembers, classes, stored=False)


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
        alone = seen.take(chosen)
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
        seen = replace(random_signals(15), **impossible(random_signals(15)))
        assert np.all(np.isfinite(self.attack.score(seen)))

    def test_nan_is_refused(self):
        seen = random_signals(16)
        for access in sorted(self.attack.needs & set(SPOILT)):
            with pytest.raises(AttackInputError):
                self.attack.score(replace(seen, **{access.value: SPOILT[access](getattr(seen, access.value))}))


def impossible(seen):
    """The same with probabilities of zero, at the label and away from it, and tokens that cannot be."""
    log_probs = np.full(seen.log_probs.shape, -np.inf)
    log_probs[:, 0] = 0.0
    tokens = [np.full(len(t), -np.inf) for t in seen.token_log_probs]
    return {"log_probs": log_probs, "token_log_probs": tokens, "reference_token_log_probs": tokens}


def spoil(array):
    spoilt = np.array(array, dtype=float)
    spoilt[..., -1] = np.nan
    return spoilt


def spoil_first(arrays):
    return [spoil(arrays[0]), *arrays[1:]]


SPOILT = {
    Access.LOG_PROBS: spoil,
    Access.FEATURES: spoil,
    Access.REFERENCES: spoil,
    Access.NEIGHBOUR_LOSSES: spoil,
    Access.PREDICTED: spoil,
    Access.TOKEN_LOG_PROBS: spoil_first,
    Access.TOKEN_MEANS: spoil_first,
    Access.TOKEN_DEVIATIONS: spoil_first,
    Access.REFERENCE_TOKEN_LOG_PROBS: spoil_first,
}


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


POPULATION = memoriser_side(np.random.default_rng(20), 400, 10, stored=False)
RANDOM = random_signals(21, records=400, classes=10)


class TestPopulationAttack(AttackContract):
    attack = PopulationAttack.fit(
        Signals(
            np.concatenate([POPULATION.log_probs, RANDOM.log_probs]),
            np.concatenate([POPULATION.labels, RANDOM.labels]),
        )
    )

    def test_is_minus_the_log_of_the_p_value_within_the_class(self):
        population = Signals(np.log([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]]), np.array([0, 0, 1]))
        seen = Signals(np.log([[0.6, 0.4], [0.95, 0.05], [0.3, 0.7]]), np.array([0, 0, 1]))
        expected = -np.log([2 / 3, 1 / 3, 2 / 2])
        np.testing.assert_allclose(PopulationAttack.fit(population).score(seen), expected)

    def test_a_class_without_population_is_refused(self):
        with pytest.raises(TooFewRecords, match="class 1"):
            PopulationAttack.fit(Signals(np.log([[0.9, 0.1]] * 2), np.array([0, 0]))).score(
                Signals(np.log([[0.9, 0.1]]), np.array([1]))
            )


class TestReferenceAttack(AttackContract):
    attack = ReferenceAttack()

    def test_takes_the_mean_of_those_without_the_record(self):
        seen = random_signals(22)
        own = signals.scaled_logit(seen.log_probs, seen.labels)
        means = [seen.references[~seen.inclusion[:, i], i].mean() for i in range(40)]
        np.testing.assert_allclose(self.attack.score(seen), own - means)


class TestLiraAttackOnline(AttackContract):
    attack = LiraAttack("online")

    def test_is_lira(self):
        seen = random_signals(23)
        own = signals.scaled_logit(seen.log_probs, seen.labels)
        expected = lira.scores(own, seen.references, seen.inclusion, "per_example", "online")
        np.testing.assert_array_equal(self.attack.score(seen), expected)


class TestLiraAttackOffline(AttackContract):
    attack = LiraAttack("offline")


class TestLiraAttackResidual(AttackContract):
    attack = LiraAttack.fit(random_signals(24), "residual", "online")

    @pytest.mark.parametrize("variance", ["residual", "pooled"])
    @pytest.mark.parametrize("mode", ["online", "offline"])
    def test_is_lira_with_the_spread_of_all(self, variance, mode):
        seen = random_signals(25)
        own = signals.scaled_logit(seen.log_probs, seen.labels)
        attack = LiraAttack.fit(seen, variance, mode)
        expected = lira.scores(own, seen.references, seen.inclusion, variance, mode)
        np.testing.assert_allclose(attack.score(seen), expected)
        assert attack.name == f"lira_{mode}_{variance}"

    def test_must_be_fitted(self):
        with pytest.raises(BadSetting, match="fit"):
            LiraAttack("online", "residual").score(random_signals(26))
        with pytest.raises(BadSetting, match="without fit"):
            LiraAttack.fit(random_signals(26), "per_example", "online")


class TestRmiaAttackOffline(AttackContract):
    attack = RmiaAttack.fit(replace(random_signals(27), inclusion=np.zeros((8, 40), dtype=bool)))

    def test_higher_is_member(self):
        scores = membership_scores(RmiaAttack.fit(POPULATION), *memoriser())
        assert scores.members.min() > scores.nonmembers.max()

    test_memoriser_is_found_out_with_finite_figures = None  # the population above is another model's

    def test_is_rmia(self):
        seen, population = random_signals(28), replace(random_signals(29), inclusion=np.zeros((8, 40), dtype=bool))
        given = [
            part
            for side in (seen, population)
            for part in (-signals.cross_entropy_loss(side.log_probs, side.labels), special.log_expit(side.references))
        ]
        expected = rmia.scores(given[0], given[1], seen.inclusion, *given[2:], mode="offline")
        np.testing.assert_array_equal(RmiaAttack.fit(population).score(seen), expected)


class TestRmiaAttackOnline(TestRmiaAttackOffline):
    attack = RmiaAttack.fit(replace(random_signals(30), inclusion=np.zeros((8, 40), dtype=bool)), mode="online")


class TestQuantileAttack(AttackContract):
    attack = QuantileAttack.fit(POPULATION, quantile=0.9)

    def test_finds_the_quantile_given_the_features(self):
        """Where difficulty follows a feature, thresholds that know it flag 1% of non-members at every level of it."""
        rng = np.random.default_rng(31)

        def draw(records):
            features = rng.normal(size=(records, 1))
            logit = 5 * features[:, 0] + rng.normal(size=records)
            log_probs = np.stack([special.log_expit(logit), special.log_expit(-logit)], axis=1)
            return Signals(log_probs, np.zeros(records, dtype=int), features=features)

        attack = QuantileAttack.fit(draw(2000), quantile=0.95)
        assert attack.weights[0] == pytest.approx(5.0, abs=0.2)
        fresh = draw(4000)
        flagged = attack.score(fresh) > 0
        for half in (fresh.features[:, 0] > 0, fresh.features[:, 0] <= 0):
            assert flagged[half].mean() == pytest.approx(0.05, abs=0.025)

    def test_too_few_for_the_quantile(self):
        with pytest.raises(TooFewRecords):
            QuantileAttack.fit(random_signals(32), quantile=0.99)


class TestShadowAttack(AttackContract):
    attack = ShadowAttack.fit(*memoriser(400, 400))

    def test_a_class_that_no_shadow_showed_is_refused(self):
        sides = [side.take(np.flatnonzero(side.labels != 3)) for side in memoriser(400, 400)]
        with pytest.raises(TooFewRecords, match="class 3"):
            ShadowAttack.fit(*sides).score(memoriser()[0])

    def test_without_a_difference_is_chance(self):
        """Shadows of a model that leaks nothing: the AUC's interval covers 0.5 (false alarm 5%, root 33)."""
        attack = ShadowAttack.fit(random_signals(33, 300), random_signals(34, 300))
        scores = membership_scores(attack, random_signals(35, 400), random_signals(36, 400))
        found = auc(scores.members, scores.nonmembers)
        assert found.low <= 0.5 <= found.high


class TestLabelOnlyAttack(AttackContract):
    attack = LabelOnlyAttack()

    def test_counts_right_labels(self):
        seen = Signals(labels=np.array([1, 0]), predicted=np.array([[1, 1, 0, 2], [0, 0, 0, 0]]))
        np.testing.assert_allclose(self.attack.score(seen), [0.5, 1.0])

    def test_asks_a_target_that_gives_labels_alone(self):
        """Records far from the boundary of a linear rule withstand noise, records near it do not."""
        inputs = np.stack([np.linspace(-3, 3, 60), np.zeros(60)], axis=1)
        ask = lambda x: (x[:, 0] > 0).astype(int)  # noqa: E731
        predicted = predicted_labels(ask, inputs, gaussian_noise(1.0), copies=200, seed=37)
        assert predicted.shape == (60, 201)
        scores = self.attack.score(Signals(labels=ask(inputs), predicted=predicted))
        assert scores[0] > 0.99
        assert scores[29] < 0.7
        np.testing.assert_array_equal(
            predicted, predicted_labels(ask, inputs, gaussian_noise(1.0), copies=200, seed=37)
        )

    @pytest.mark.parametrize(
        ("predict", "error"),
        [(lambda x: x[:, 0], BadLabels), (lambda x: np.zeros(3, dtype=int), ShapeMismatch)],
    )
    def test_what_the_target_gives_is_checked(self, predict, error):
        with pytest.raises(error):
            predicted_labels(predict, np.zeros((5, 2)), gaussian_noise(1.0), copies=1, seed=0)

    def test_settings(self):
        with pytest.raises(BadSetting):
            predicted_labels(lambda x: x, np.zeros((5, 2)), gaussian_noise(1.0), copies=0, seed=0)
        with pytest.raises(BadSetting):
            gaussian_noise(0.0)
        with pytest.raises(ShapeMismatch, match="copy"):
            predicted_labels(lambda x: np.zeros(len(x), int), np.zeros((5, 2)), lambda x, rng: x[:2], copies=1, seed=0)


class TestTokenLossAttack(AttackContract):
    attack = TokenLossAttack()


class TestZlibAttack(AttackContract):
    attack = ZlibAttack()

    def test_is_minus_the_ratio(self):
        seen = random_signals(38)
        expected = [-signals.zlib_ratio(*pair) for pair in zip(seen.token_log_probs, seen.texts, strict=True)]
        np.testing.assert_array_equal(self.attack.score(seen), expected)


class TestMinKAttack(AttackContract):
    attack = MinKAttack(k=0.3)


class TestMinKPlusPlusAttack(AttackContract):
    attack = MinKPlusPlusAttack(k=0.3)


class TestReferenceTextAttack(AttackContract):
    attack = ReferenceTextAttack()


class TestNeighbourhoodAttack(AttackContract):
    attack = NeighbourhoodAttack()

    def test_is_the_copies_loss_minus_the_texts(self):
        seen = Signals(token_log_probs=[np.array([-1.0, -3.0])], neighbour_losses=np.array([[2.5, 3.5]]))
        np.testing.assert_allclose(self.attack.score(seen), [1.0])


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


def test_scores_parted_by_membership_carry_their_origin():
    origin = Provenance("bernoulli", probability=0.5, seed=7, split="test", hashes=(("model", "ab" * 32),))
    scores = scores_by_membership("mine", np.arange(5.0), np.array([True, False, True, False, False]), origin)
    np.testing.assert_array_equal(scores.members, [0.0, 2.0])
    np.testing.assert_array_equal(scores.nonmembers, [1.0, 3.0, 4.0])
    assert scores.provenance is origin
    seen = random_signals(39)
    assert membership_scores(LossAttack(), seen, random_signals(40), origin).provenance is origin
    with pytest.raises(ShapeMismatch):
        scores_by_membership("mine", np.arange(5.0), np.ones(5, dtype=int))
    with pytest.raises(TooFewRecords, match="nonmembers"):
        scores_by_membership("mine", np.arange(5.0), np.ones(5, dtype=bool))
    for bad in (("poisson", None), ("bernoulli", None), ("bernoulli", 1.0)):
        with pytest.raises(BadSetting):
            Provenance(*bad)
