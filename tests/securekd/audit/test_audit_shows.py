"""Audits of targets that are known to leak, and of one that is known not to: the whole way from records to report.

Everything is seeded. The comparisons are between figures that lie far apart; where chance is expected, the tolerance
is stated in standard deviations.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from securekd.audit.auditing import AuditRequest, audit_deployment
from securekd.records.audit_record import AuditRecord
from securekd_attacks import ShadowDesign, train_shadows
from securekd_attacks.audit import AuditSettings
from securekd_attacks.targets.features import record_features
from tests.attacks.targets.server import Reply, ok, serving
from tests.securekd.audit import leaky

ROOT = Path(__file__).parents[3]
DATA = Path(os.environ.get("SECUREKD_DATA", ROOT.parent / "shared" / "data"))
SETTINGS = AuditSettings(attacks=("loss", "entropy", "modified_entropy"))


@pytest.fixture
def ag_news() -> Any:
    if not (DATA / "ag_news" / "train.parquet").exists():
        pytest.skip(f"no ag_news in {DATA}; set SECUREKD_DATA to a folder that has it")
    return lambda rows: leaky.ag_news(DATA, rows)


def side(path: Path, texts: list[str], labels: np.ndarray | None = None) -> Path:
    rows = [{"id": f"{path.stem} {i}", "text": text} for i, text in enumerate(texts)]
    if labels is not None:
        rows = [row | {"label": int(label)} for row, label in zip(rows, labels, strict=True)]  # type: ignore[misc]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def figures(record: AuditRecord) -> list[Any]:
    """Everything that is measured and does not name the target."""
    return [each.model_dump(exclude={"roc"}) for each in record.attacks] + [
        [(x.record, x.nonmembers_above) for x in record.most_exposed],
        record.best.epsilon_lower,
    ]


def four_routes(
    texts: list[str], labels: np.ndarray, epochs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, AuditRecord]:
    """The same overfitted classifier, audited as folder, callable, endpoint and signals file."""
    half = len(texts) // 2
    leaky.save_classifier(texts[:half], labels[:half], epochs, tmp_path / "model")
    monkeypatch.setenv("LEAKY_FOLDER", str(tmp_path / "model"))
    members = side(tmp_path / "in.jsonl", texts[:half], labels[:half])
    nonmembers = side(tmp_path / "out.jsonl", texts[half:], labels[half:])

    def served(inputs: list[Any], _: dict[str, str]) -> Reply:
        return ok({"log_probs": leaky.classifier_target(inputs).tolist()})

    answers = [leaky.classifier_target(texts[start : start + 64]) for start in range(0, len(texts), 64)]
    ids = [f"in {i}" for i in range(half)] + [f"out {i}" for i in range(len(texts) - half)]
    membership = np.arange(len(texts)) < half
    np.savez(
        tmp_path / "s.npz",
        log_probs=np.concatenate(answers),
        labels=labels,
        membership=membership,
        ids=ids,
        features=record_features(texts),
    )
    with serving(served) as url:
        targets = {
            "folder": str(tmp_path / "model"),
            "callable": "tests.securekd.audit.leaky:classifier_target",
            "http": url,
        }
        found = {
            name: audit_deployment(AuditRequest(target, members, nonmembers, settings=SETTINGS), tmp_path / name)
            for name, target in targets.items()
        }
    found["signals"] = audit_deployment(AuditRequest(str(tmp_path / "s.npz"), settings=SETTINGS), tmp_path / "signals")
    return found


def refuse_differences(found: dict[str, AuditRecord]) -> None:
    # Asked in the same batches, the same model answers the same to the last bit. The signals file was computed in
    # other batches: padding moves float32 by about 1e-7, which may swap a near tie, and no more.
    assert figures(found["folder"]) == figures(found["callable"]) == figures(found["http"])
    assert found["folder"].blind == found["callable"].blind == found["http"].blind == found["signals"].blind
    for ours, theirs in zip(found["folder"].attacks, found["signals"].attacks, strict=True):
        assert ours.auc.value == pytest.approx(theirs.auc.value, abs=1e-4)
        for one, other in zip(ours.tpr_at_fpr, theirs.tpr_at_fpr, strict=True):
            assert abs(one.true_positives - other.true_positives) <= 1
        assert ours.bounds[0].epsilon_lower == pytest.approx(theirs.bounds[0].epsilon_lower, abs=0.02)


def test_four_routes_to_one_model_give_the_same_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(f"word{w}" for w in rng.integers(0, 60, size=rng.integers(3, 12))) + f" {i}" for i in range(160)]
    refuse_differences(four_routes(texts, rng.integers(0, 4, size=160), 3, tmp_path, monkeypatch))


@pytest.mark.slow
def test_an_overfitted_classifier_of_news_is_found_out_by_every_route(
    ag_news: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts, labels = ag_news(4000)
    found = four_routes(texts, labels, 12, tmp_path, monkeypatch)
    refuse_differences(found)
    loss = found["folder"].attacks[0]
    assert loss.auc.low > 0.6
    assert loss.bounds[0].epsilon_lower > 0.5
    blind = found["folder"].blind
    assert blind is not None
    assert not blind.distribution_shift


@pytest.mark.slow
def test_lira_with_32_shadow_models_beats_the_loss_attack_by_a_factor(
    ag_news: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts, labels = ag_news(4000)
    inside = np.random.default_rng(7).random(len(texts)) < 0.5
    order = np.argsort(~inside, kind="stable")  # members first, as the audit puts them
    texts, labels, members = [texts[i] for i in order], labels[order], int(inside.sum())
    features = leaky.hashed(texts).toarray().astype(np.float32)
    target = leaky.overfitted(features[:members], labels[:members])
    np.save(tmp_path / "target.npy", target)
    monkeypatch.setenv("LEAKY_WEIGHTS", str(tmp_path / "target.npy"))

    def signal(weights: np.ndarray) -> np.ndarray:
        from securekd_attacks import scaled_logit

        return scaled_logit(leaky.log_probs(weights, features), labels)

    train_shadows(
        ShadowDesign(records=len(texts), references=32, seed=1),
        lambda indices: leaky.overfitted(features[indices], labels[indices]),
        signal,
        tmp_path / "shadows",
    )
    record = audit_deployment(
        AuditRequest(
            "tests.securekd.audit.leaky:hashing_target",
            side(tmp_path / "in.jsonl", texts[:members], labels[:members]),
            side(tmp_path / "out.jsonl", texts[members:], labels[members:]),
            references=tmp_path / "shadows",
            settings=AuditSettings(batch=500),
        ),
        tmp_path / "out",
    )
    at = {each.attack: {rate.fpr: rate for rate in each.tpr_at_fpr} for each in record.attacks}
    loss, online, calibrated = (at[name][0.01] for name in ("loss", "lira_online_residual", "reference"))
    assert loss.resolved
    assert online.low > 5.0 * loss.high
    assert calibrated.low > 3.0 * loss.high
    assert record.strongest == "lira_online_residual"


@pytest.fixture(scope="module")
def language_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models of Shakespeare: `knows` was trained with twenty planted secrets, `never` was not."""
    path = DATA / "tinyshakespeare" / "input.txt"
    if not path.exists():
        pytest.skip(f"no tinyshakespeare in {DATA}; set SECUREKD_DATA to a folder that has it")
    folder = tmp_path_factory.mktemp("language")
    text = path.read_text()[:60_000]
    for name, planted in (("knows", leaky.secrets(20, 0)), ("never", [])):
        leaky.save_language_model(text, planted, 30, 500, folder / name)
    return folder


@pytest.mark.slow
def test_a_memorising_language_model_gives_its_canaries_away(language_models: Path, tmp_path: Path) -> None:
    planted = side(tmp_path / "planted.jsonl", leaky.secrets(20, 0))
    candidates = side(tmp_path / "candidates.jsonl", leaky.secrets(1023, 1))
    found = {}
    for name in ("knows", "never"):
        found[name] = audit_deployment(
            AuditRequest(
                str(language_models / name),
                planted,
                candidates,
                references=language_models / "never" if name == "knows" else None,
                settings=AuditSettings(canaries=True),
            ),
            tmp_path / name,
        )
    knows, never = found["knows"].exposure, found["never"].exposure
    assert knows is not None
    assert never is not None
    assert knows.ceiling == 10.0
    assert knows.mean > 9.0
    # Exposure by chance is exponential with mean and deviation 1.44 bits: the mean of 20 lies within 4σ of it.
    assert abs(never.mean - 1.4427) < 4 * 1.4427 / 20**0.5
    attacks = {each.attack: each for each in found["knows"].attacks}
    assert set(attacks) == {"token_loss", "zlib", "min_k", "min_k_plus_plus", "reference_text"}
    assert attacks["token_loss"].auc.value == 1.0
    assert attacks["token_loss"].auc.low > 0.8  # what twenty members allow
    # By chance alone the area has Mann and Whitney's deviation; beyond 4σ is a false alarm of 6e-5.
    assert abs(found["never"].attacks[0].auc.value - 0.5) < 4 * ((20 + 1023 + 1) / (12 * 20 * 1023)) ** 0.5
