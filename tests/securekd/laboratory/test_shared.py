"""What several runs have in common is computed once, whoever comes first."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from securekd.checkpoint import Saved
from securekd.laboratory.parties import client
from securekd.laboratory.plan import Plan, PlannedClient, make_plan
from securekd.laboratory.shared import SharedWork, task_key
from securekd.learning import tasks as tasks_module
from securekd.learning.smoothing import bases
from securekd.learning.smoothing.bases import shared_bases
from securekd.learning.tasks import TrainTask, perform
from securekd.models.frozen import compute_features
from tests.securekd.conftest import small


def tasks() -> list[TrainTask]:
    plan = make_plan(small())
    return [alone(plan, one) for one in plan.clients]


def alone(plan: Plan, planned: PlannedClient) -> TrainTask:
    """What a client trains by itself."""
    with TemporaryDirectory() as folder:
        return client(plan, planned, Path(folder)).private_task("alone", planned.name, state=None)


class Counting:
    """Performs nothing, and counts."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, todo: Sequence[TrainTask]) -> Iterator[Saved]:
        for task in todo:
            self.seen.append(str(task.name))
            yield Saved({"w": np.full(3, len(str(task.name)))}, {"name": str(task.name)}, 2.0)


def test_a_task_is_performed_once_and_found_afterwards(tmp_path: Path) -> None:
    todo, counting = tasks(), Counting()
    first = list(SharedWork(tmp_path, counting)([*todo, todo[0]]))
    again = list(SharedWork(tmp_path, counting)(todo))
    assert len(counting.seen) == len(todo)
    assert [s.info for s in again] == [s.info for s in first[:-1]] == [{"name": str(t.name)} for t in todo]
    assert [s.seconds for s in again] == [0.0] * len(todo)


def test_whatever_a_result_depends_on_is_in_the_key() -> None:
    task = tasks()[0]
    same = replace(task, micro_batch=7, device="other", shared=Path("x"), inputs=task.inputs.copy())
    assert task_key(same) == task_key(task)
    assert task.dp is not None
    changed = [
        replace(task, init_seed=task.init_seed + 1),
        replace(task, inputs=task.inputs + 1),
        replace(task, inputs=task.inputs.astype(np.float64)),
        replace(task, labels=task.labels[::-1]),
        replace(task, learning_rate=task.learning_rate * 2),
        replace(task, dp=None),
        replace(task, dp=replace(task.dp, noise_multiplier=task.dp.noise_multiplier * 2)),
        replace(task, training=task.training.model_copy(update={"momentum": 0.1})),
        replace(task, randomness=replace(task.randomness, seed=5)),
        replace(task, model=task.model.model_copy(update={"options": {"embedding": 3}})),
        replace(task, name=("alone", "other")),
        replace(task, state={}),
    ]
    assert len({task_key(t) for t in changed} | {task_key(task)}) == len(changed) + 1


def test_two_that_come_at_once_share_the_work_out(tmp_path: Path) -> None:
    todo, together = tasks(), threading.Barrier(2, timeout=20)

    class Meeting(Counting):
        def __call__(self, todo: Sequence[TrainTask]) -> Iterator[Saved]:
            if not self.seen:
                together.wait()  # both have begun a task, so neither has waited for the other
            return super().__call__(todo)

    workers = [Meeting(), Meeting()]
    threads = [threading.Thread(target=lambda w=w: list(SharedWork(tmp_path, w)(todo))) for w in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert sorted(workers[0].seen + workers[1].seen) == sorted(str(t.name) for t in todo)
    assert all(w.seen for w in workers)


OPTIONS = {"model_type": "vit", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
           "intermediate_size": 16, "patch_size": 4, "frozen": True}  # fmt: skip


def encoding() -> Plan:
    """A plan in which everybody has a frozen encoder."""
    vit = {"kind": "transformers", "options": OPTIONS}
    return make_plan(small(clients={"models": [vit]}, student={"model": vit}))


def test_features_of_a_frozen_encoder_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = encoding()
    task = alone(plan, plan.clients[0])
    by_itself = perform(task)
    computed: list[int] = []

    def counting(*args: object, **kwargs: object) -> object:
        computed.append(1)
        return compute_features(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(tasks_module, "compute_features", counting)
    for _ in range(2):
        found = perform(replace(task, shared=tmp_path))
        assert all(np.array_equal(found.arrays[name], value) for name, value in by_itself.arrays.items())
    assert len(computed) == 1
    # Another encoder (as many weights, told apart by an option alone) and other rows have features of their own.
    heads = task.model.model_copy(update={"options": OPTIONS | {"num_attention_heads": 4}})
    perform(replace(task, shared=tmp_path, model=heads))
    perform(replace(task, shared=tmp_path, inputs=task.inputs[:50], labels=task.labels[:50]))
    assert len(computed) == 3
    perform(replace(tasks()[0], shared=tmp_path))  # centring is not worth a file
    assert len(list((tmp_path / "features").glob("*.safetensors"))) == 3


def test_what_a_model_says_is_had_from_the_features_that_it_was_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = encoding()
    first, shared = plan.clients[0], replace(plan, shared=tmp_path)
    task = alone(shared, first)
    assert task.inputs is not None
    trained = perform(task).arrays
    apart = plan.logits(first.model, trained, task.inputs)
    transferred = shared.logits(first.model, trained, plan.data.transfer.inputs)

    def refused(*args: object, **kwargs: object) -> object:
        raise AssertionError("features were computed again")

    monkeypatch.setattr(tasks_module, "compute_features", refused)
    np.testing.assert_allclose(shared.logits(first.model, trained, task.inputs), apart, rtol=1e-6, atol=1e-6)
    assert np.array_equal(shared.logits(first.model, trained, plan.data.transfer.inputs), transferred)
    changed = trained | {name: value + 1 for name, value in trained.items() if "classifier" in name}
    assert not np.allclose(shared.logits(first.model, changed, task.inputs), apart)


def test_bases_of_public_rows_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = np.random.default_rng(0).normal(size=(60, 5))
    alone = shared_bases(None, features)
    first = shared_bases(tmp_path, features)

    def refused(features: np.ndarray) -> object:
        raise AssertionError("bases were computed again")

    monkeypatch.setattr(bases, "public_bases", refused)
    for found in (first, shared_bases(tmp_path, features)):
        assert [(b.name, b.powers) for b in found] == [(b.name, b.powers) for b in alone]
        for one, other in zip(found, alone, strict=True):
            assert np.array_equal(one.vectors, other.vectors)
            assert np.array_equal(one.roughness, other.roughness)
    with pytest.raises(AssertionError, match="computed again"):
        shared_bases(tmp_path, features[:50])
