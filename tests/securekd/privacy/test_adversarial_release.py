"""An auditor attacks the shipped release: worst-case neighbours, real clipping, noise, sums and decoding.

One client's logits are as large as they can be, or it sends zeros (zero-out); the others' are fixed and known. The
auditor stands where the ledger's `server` view stands: it sees the decoded mean, knows everybody's vectors, and knows
the release of a colluder. It takes the inner product of what is left with the difference of the two worlds, which is
the optimal statistic for symmetric noise of equal variance. It chooses a threshold on held-out trials, and turns hits
and false alarms on the others into a lower bound on ε at the ledger's δ by exact limits, at 99.9% confidence.

What the rates are, and that they are so, stands in `test_the_stated_error_rates`:

* false alarm: a mechanism that keeps the ledger's ε fails with probability at most 0.1%, whatever its noise is, since
  that is the confidence of the bound; the shipped one keeps it with room, and failed in none of 1,000 audits of draws
  from its exact law (at most 0.3%, at 95% confidence, by that count alone);
* miss: with a clip doubled, one honest client's noise left out, or half of the cohort gone uncompensated, the bound
  stays under the ledger's ε with probability at most 0.5%, 1.5% and 1% (at 95% confidence, by as many audits of each).

Streams have fixed keys, so that a test which passes goes on passing.
"""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy.stats import skellam

from securekd.errors import RunError
from securekd.federation.aggregation.masking import MaskingAggregator
from securekd.federation.aggregation.plain import PlainAggregator
from securekd.federation.aggregation.seam import Aggregator, Terms
from securekd.federation.aggregation.session import Cast, add_up
from securekd.knowledge.questions import Question
from securekd.knowledge.soft_labels import Clip, SoftLabelShape, soft_labels
from securekd.knowledge.weights import WeightUpdateShape, weight_update
from securekd.privacy.accountant import guarantees
from securekd.privacy.ledger import LedgerFile
from securekd.privacy.mechanisms import mechanism_named
from securekd.privacy.release import Exposure, ReleasePlan, unknown_shares
from securekd.randomness import Csprng
from securekd_attacks.bounds import clopper_pearson, refuted_epsilon
from securekd_attacks.intervals import binomial_upper
from securekd_protocols import ProtocolError

DELTA = 0.05  # below 1/3, the smallest cohort here; a small δ would need more trials, and `slow` has them
CONFIDENCE = 0.999
ROWS, CLASSES, STEP = 6, 2, 2.0**-4
CLIP = math.sqrt(2.0)  # a row of (1, −1): 16 steps an entry, so that nothing of the worst case is lost in rounding
COLLUDER = "client-01"
TARGET = "client-02"
SESSIONS = 100


def question(law: str, shares: int, clip: float = CLIP, mu: float = 1.0, *, updates: bool = False) -> Question:
    """What clients are asked, with noise so large that all honest survivors' together is 1/μ of the clip's length."""
    labels = SoftLabelShape(ROWS, CLASSES, "logits", Clip(clip))
    shape = WeightUpdateShape(ROWS * CLASSES, math.sqrt(ROWS) * clip) if updates else labels
    sigma = math.sqrt(ROWS) * CLIP / (mu * math.sqrt(shares))
    mechanism = mechanism_named(law, shape.bounds, sigma=sigma, step=STEP)
    known = unknown_shares(sums_only=True, threshold=shares + 1, colluders=1)
    assert known["server"] == shares
    return Question(shape, ReleasePlan(mechanism, Exposure("zero_out", known)))


def ledger_epsilon(asked: Question, delta: float = DELTA) -> float:
    """The client-level ε in the server's view that one round of this goes into the record with."""
    entries = tuple(asked.release.entries(TARGET, 1, "0" * 64))
    file = LedgerFile(schema="securekd.ledger/1", noise="os", delta={"example": 1e-5, "client": delta}, entries=entries)
    found = next(g for g in guarantees(file) if (g.view, g.unit) == ("server", "client"))
    assert found.epsilon is not None
    assert found.delta == delta
    return found.epsilon


@dataclass(frozen=True)
class Cohort:
    """Clients, and what each really does, which may not be what the ledger says.

    Attributes:
        clients: what each is asked and adds, by name.
        threshold: fewest survivors whose sum is opened.
        gone: clients that fall silent.
    """

    clients: dict[str, Question]
    threshold: int
    gone: frozenset[str] = frozenset()

    def terms(self, number: int) -> Terms:
        mechanism = next(iter(self.clients.values())).release.mechanism
        largest = max(q.release.mechanism.magnitude for q in self.clients.values())
        variance = int((mechanism.sigma / mechanism.step) ** 2)
        values = next(iter(self.clients.values())).knowledge.length
        return Terms(len(self.clients), values, largest, self.threshold, 1, b"\x05" * 32, number, variance)


def cohort(asked: Question, clients: int, threshold: int | None = None, gone: Iterable[str] = ()) -> Cohort:
    names = [f"client-{i:02}" for i in range(1, clients + 1)]
    return Cohort(dict.fromkeys(names, asked), threshold or clients, frozenset(gone))


def logits_of(name: str) -> np.ndarray:
    """Fixed logits (m, C): the target's as large as can be, the others' ordinary ones."""
    if name == TARGET:
        return np.tile([1e9, -1e9], (ROWS, 1))
    return np.random.default_rng(int(name[-2:])).normal(size=(ROWS, CLASSES))


def vector_of(name: str, asked: Question, world: bool) -> np.ndarray:
    """What goes into a client's release; the target takes part in one world, and sends zeros in the other."""
    logits = logits_of(name) if world or name != TARGET else np.zeros((ROWS, CLASSES))
    if isinstance(asked.knowledge, WeightUpdateShape):
        return weight_update(np.zeros(logits.size), logits.reshape(-1), asked.knowledge, examples=50).vector
    return soft_labels(logits, asked.labels, temperature=1.0, examples=50).vector


def statistics(audited: Cohort, trials: int, world: bool, label: str, *, masked: int = 0) -> np.ndarray:
    """The auditor's statistic, in steps, in so many trials; the first `masked` of them go through secure sums.

    The first hundred go through sessions, secure or in the clear, whose totals are those of the survivors' integers:
    of so many trials more would take longer than their noise, and say no more.
    """
    vectors = {name: vector_of(name, asked, world) for name, asked in audited.clients.items()}
    streams = {name: stream(label, name, str(world)) for name in audited.clients}
    survivors = [name for name in audited.clients if name not in audited.gone]
    known = sum(v for name, v in vectors.items() if name in survivors and name not in (TARGET, COLLUDER))
    direction = np.sign(vector_of(TARGET, audited.clients[TARGET], True))
    decoder = audited.clients[COLLUDER]
    plain, masking = PlainAggregator(), MaskingAggregator()
    cast = Cast.drawn(len(audited.clients))
    terms = audited.terms(1)
    found = np.empty(trials)
    for i in range(trials):
        integers = {
            name: asked.release.mechanism.release(vectors[name], streams[name])
            for name, asked in audited.clients.items()
        }
        total = sum(integers[name] for name in survivors)
        if i < SESSIONS:
            aggregator: Aggregator = masking if i < masked else plain
            now = replace(terms, round_number=i + 1)
            done = add_up(aggregator, integers, now, silent=audited.gone, cast=cast)
            assert done.survivors == tuple(survivors)
            np.testing.assert_array_equal(done.total, total)
        mean = decoder.mean(total, len(survivors)).reshape(-1)
        left = mean * len(survivors) - integers[COLLUDER] * STEP - known
        found[i] = direction @ left / STEP
    return found


def stream(*labels: str) -> Csprng:
    return Csprng(hashlib.sha256("/".join(labels).encode()).digest())


def epsilon_lower(
    audited: Cohort, trials: int, held_out: int, label: str, *, masked: int = 0, delta: float = DELTA
) -> float:
    """The audit: a threshold from `held_out` trials in each world, the bound from `trials` others."""
    inside, outside = (statistics(audited, held_out + trials, world, label, masked=masked) for world in (True, False))
    threshold = best_threshold(inside[:held_out], outside[:held_out], delta)
    return clopper_pearson(
        int((inside[held_out:] >= threshold).sum()),
        trials,
        int((outside[held_out:] >= threshold).sum()),
        trials,
        delta,
        CONFIDENCE,
    ).epsilon_lower


def best_threshold(inside: np.ndarray, outside: np.ndarray, delta: float) -> float:
    candidates = np.linspace(outside.min(), inside.max(), 400)
    hits = len(inside) - np.searchsorted(np.sort(inside), candidates)
    alarms = len(outside) - np.searchsorted(np.sort(outside), candidates)
    bounds = refuted_epsilon(hits, len(inside), alarms, len(outside), delta, CONFIDENCE)
    return float(candidates[np.argmax(bounds)])


# ---- Variants: what the ledger is told, and what really happens ----

TRIALS, HELD_OUT = 25_000, 8_000


def shipped(law: str = "skellam") -> tuple[Question, Cohort]:
    """Three clients, all of whom must survive, one of whom colludes: two noises are unknown."""
    asked = question(law, shares=2)
    return asked, cohort(asked, clients=3)


def clip_doubled() -> tuple[Question, Cohort]:
    """The target clips at twice the norm, and its mechanism lets that pass; noise and ledger are as before."""
    asked, honest = shipped()
    wide = question("skellam", shares=2, clip=2 * CLIP)
    return asked, replace(honest, clients=honest.clients | {TARGET: wide})


def noise_left_out() -> tuple[Question, Cohort]:
    """Of the two honest clients, the one that is not the target adds no noise."""
    asked, honest = shipped()
    mute = replace(asked, release=replace(asked.release, mechanism=replace(asked.release.mechanism, sigma=0.0)))
    return asked, replace(honest, clients=honest.clients | {"client-03": mute})


def dropouts_uncompensated() -> tuple[Question, Cohort]:
    """Six clients' noises were promised (five of them unknown), and the sum is opened with three."""
    asked = question("skellam", shares=5)
    return asked, cohort(asked, clients=6, threshold=3, gone=["client-04", "client-05", "client-06"])


def dropouts_compensated() -> tuple[Question, Cohort]:
    """Six clients of whom two may drop and do: shares are those of the fewest survivors, and three are unknown."""
    asked = question("skellam", shares=3)
    return asked, cohort(asked, clients=6, threshold=4, gone=["client-05", "client-06"])


@pytest.mark.parametrize(("law", "trials"), [("skellam", TRIALS), ("discrete_gaussian", 8_000)])
def test_the_shipped_release_keeps_the_ledgers_epsilon(law: str, trials: int) -> None:
    """False alarms: at most 0.1%."""
    asked, honest = shipped(law)
    lower, epsilon = epsilon_lower(honest, trials, HELD_OUT, "shipped", masked=10), ledger_epsilon(asked)
    assert lower <= epsilon
    assert lower > 0.5 * epsilon  # the attack is not blunt either


def test_dropouts_that_were_counted_on_keep_the_ledgers_epsilon() -> None:
    """False alarms: at most 0.1%."""
    asked, honest = dropouts_compensated()
    lower, epsilon = epsilon_lower(honest, 6_000, 3_000, "compensated", masked=5), ledger_epsilon(asked)
    assert 0.5 * epsilon < lower <= epsilon


def test_a_doubled_clip_is_found() -> None:
    """Misses: at most 0.5%."""
    asked, broken = clip_doubled()
    assert epsilon_lower(broken, 8_000, 5_000, "clip", masked=10) > ledger_epsilon(asked)


def test_one_honest_clients_noise_left_out_is_found() -> None:
    """Misses: at most 1.5%."""
    asked, broken = noise_left_out()
    assert epsilon_lower(broken, TRIALS, HELD_OUT, "noise", masked=10) > ledger_epsilon(asked)


def test_dropouts_uncompensated_are_found() -> None:
    """Misses: at most 1%. Only sums in the clear can be opened so; see below."""
    asked, broken = dropouts_uncompensated()
    assert epsilon_lower(broken, 12_000, 6_000, "dropouts") > ledger_epsilon(asked)


@pytest.mark.slow
def test_weight_updates_keep_the_ledgers_epsilon_and_a_doubled_clip_is_found() -> None:
    """Updates whose clipped worst case is that of the scores: false alarms at most 0.1%, misses at most 0.5%."""
    asked = question("skellam", shares=2, updates=True)
    honest = cohort(asked, clients=3)
    assert (
        0.5 * ledger_epsilon(asked) < epsilon_lower(honest, 6_000, 3_000, "updates", masked=5) <= ledger_epsilon(asked)
    )
    wide = question("skellam", shares=2, clip=2 * CLIP, updates=True)
    broken = replace(honest, clients=honest.clients | {TARGET: wide})
    assert epsilon_lower(broken, 8_000, 5_000, "updates", masked=5) > ledger_epsilon(asked)


@pytest.mark.slow
@pytest.mark.parametrize("law", ["skellam", "discrete_gaussian"])
def test_the_same_at_a_smaller_delta_with_more_trials(law: str) -> None:
    """δ = 0.01 and 120,000 trials: false alarms at most 0.1%, and noise left out is found there too."""
    asked, honest = shipped(law)
    epsilon = ledger_epsilon(asked, 0.01)
    assert epsilon_lower(honest, 120_000, 30_000, "slow", masked=SESSIONS, delta=0.01) <= epsilon
    if law == "skellam":
        for asked, broken in (clip_doubled(), noise_left_out(), dropouts_uncompensated()):
            found = epsilon_lower(broken, 120_000, 30_000, "slow", delta=0.01)
            assert found > ledger_epsilon(asked, 0.01)


# ---- What the audit rests on ----


@pytest.mark.parametrize("make", [shipped, clip_doubled, noise_left_out, dropouts_compensated])
def test_secure_sums_and_sums_in_the_clear_are_the_same(make: object) -> None:
    _, audited = make()  # type: ignore[operator]
    for number in (1, 2, 3):
        streams = {name: stream("equal", name, str(number)) for name in audited.clients}
        integers = {
            name: asked.release.mechanism.release(vector_of(name, asked, True), streams[name])
            for name, asked in audited.clients.items()
        }
        clear, masked = (
            add_up(aggregator, integers, audited.terms(number), silent=audited.gone)
            for aggregator in (PlainAggregator(), MaskingAggregator())
        )
        np.testing.assert_array_equal(clear.total, masked.total)
        assert clear.survivors == masked.survivors


def test_the_worst_case_is_the_longest_vector_and_zeros() -> None:
    asked, _ = shipped()
    bound = asked.labels.bounds.l2
    inside, outside = (vector_of(TARGET, asked, world) for world in (True, False))
    assert bound * (1 - 1e-9) <= np.linalg.norm(inside) <= bound
    assert not outside.any()


def test_a_vector_past_the_clip_is_not_released() -> None:
    asked, _ = shipped()
    with pytest.raises(RunError, match="not bounded"):
        asked.release.mechanism.release(2 * vector_of(TARGET, asked, True), stream("defence"))


def test_a_secure_sum_with_fewer_than_the_ledgers_survivors_is_not_opened() -> None:
    asked, broken = dropouts_uncompensated()
    integers = {n: asked.release.mechanism.release(vector_of(n, asked, True), stream(n)) for n in broken.clients}
    with pytest.raises(RunError, match="3 of 6 clients survived"):
        add_up(MaskingAggregator(), integers, replace(broken, threshold=6).terms(1), silent=broken.gone)
    with pytest.raises(ProtocolError):  # nor can a session be made that would
        add_up(MaskingAggregator(), integers, broken.terms(1), silent=broken.gone)


# Name, what is done, trials, held out, honest noises in the sum, length of the target's vector over the clip, rate.
RATED = [
    (shipped, TRIALS, HELD_OUT, 2, 1, 0.003),
    (clip_doubled, 8_000, 5_000, 2, 2, 0.005),
    (noise_left_out, TRIALS, HELD_OUT, 1, 1, 0.015),
    (dropouts_uncompensated, 12_000, 6_000, 2, 1, 0.01),
]


@pytest.mark.parametrize(("make", "trials", "held_out", "noises", "length", "rate"), RATED)
def test_the_stated_error_rates(
    make: object, trials: int, held_out: int, noises: int, length: int, rate: float
) -> None:
    """The whole audit, threshold and all, 1,000 times on draws from the statistic's exact law.

    Every entry of the difference is 16 steps (or 32), so the statistic is an integer: 12 times that in one world and 0
    in the other, plus a Skellam variable of variance 12 times the honest noises' own.
    """
    asked, _ = make()  # type: ignore[operator]
    epsilon, mechanism = ledger_epsilon(asked), asked.release.mechanism
    entries = ROWS * CLASSES
    half = entries * noises * (mechanism.sigma / mechanism.step) ** 2 / 2
    shift = entries * length * round(1 / STEP)
    law, rng, audits = skellam(half, half), np.random.default_rng(20_25), 1000
    thresholds = np.unique(np.linspace(-shift, 2 * shift, 300).astype(int))
    hit, alarm = law.sf(thresholds - shift - 1), law.sf(thresholds - 1)
    bounds = np.empty(audits)
    for i in range(audits):
        hits, alarms = rng.binomial(held_out, hit), rng.binomial(held_out, alarm)
        best = np.argmax(refuted_epsilon(hits, held_out, alarms, held_out, DELTA, CONFIDENCE))
        counts = rng.binomial(trials, hit[best]), trials, rng.binomial(trials, alarm[best]), trials
        bounds[i] = refuted_epsilon(*counts, DELTA, CONFIDENCE)
    wrong = int((bounds > epsilon).sum() if make is shipped else (bounds <= epsilon).sum())
    assert float(binomial_upper(wrong, audits, 0.05)) <= rate
