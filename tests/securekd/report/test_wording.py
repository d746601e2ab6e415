import pytest

from securekd.records.record import GuaranteeRecord, PrivacyRecord
from securekd.report import wording
from tests.securekd.report import records


@pytest.mark.parametrize(
    ("epsilon", "verdict"),
    [
        (0.1, "strong"),
        (1.0, "strong"),
        (1.01, "reasonable"),
        (10.0, "reasonable"),
        (10.01, "meaningless"),
        (None, "none"),
    ],
)
def test_verdict_by_size(epsilon: float | None, verdict: str) -> None:
    assert wording.assess(epsilon) == verdict


@pytest.mark.parametrize("unit", ["example", "client"])
@pytest.mark.parametrize("relation", ["add_remove", "replace_one", "zero_out"])
def test_every_unit_and_relation_has_words(unit: str, relation: str) -> None:
    record = GuaranteeRecord.model_validate(records.guarantee("server", unit, 2.0) | {"neighbours": relation})
    said = wording.promise(record, record.unit, seeded=False)
    assert said.epsilon == "ε = 2.00"
    assert said.terms == f"at δ = 1e-5, neighbouring relation {relation.replace('_', '/', 1)}".replace(
        "replace/one", "replace one"
    ).replace("zero/out", "zero-out")
    assert "factor of at most 7.39" in said.meaning


def test_a_large_epsilon_is_called_no_protection_and_given_no_odds() -> None:
    said = wording.promise(
        GuaranteeRecord.model_validate(records.guarantee("server", "client", 5000.0)), "client", False
    )
    assert said.verdict_text == "no meaningful protection"
    assert "no meaningful protection" in said.meaning
    assert "odds" not in said.meaning


def test_none_says_why() -> None:
    said = wording.promise(
        GuaranteeRecord.model_validate(records.guarantee("public", "example", None, "no noise")), "example", False
    )
    assert (said.epsilon, said.verdict) == ("none", "none")
    assert said.meaning == "No ε is given: no noise."


def test_seeded_noise_voids_a_stated_epsilon() -> None:
    said = wording.promise(GuaranteeRecord.model_validate(records.guarantee("public", "example", 2.0)), "example", True)
    assert (said.epsilon, said.verdict) == ("none", "none")
    assert "seeded" in said.meaning


def test_what_the_record_leaves_out_is_none() -> None:
    privacy = records.tree()["privacy"] | {"guarantees": []}
    shown = wording.views(PrivacyRecord.model_validate(privacy), seeded=False)
    assert [v.view for v in shown] == ["server", "clients", "public"]
    assert {p.epsilon for v in shown for p in v.promises} == {"none"}
