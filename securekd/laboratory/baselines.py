"""What the student is compared with: each client alone, and all data in one place with and without privacy."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from securekd.checkpoint import PhaseStore, Saved
from securekd.federation.client import Client
from securekd.laboratory.evaluation import labels_of, mean_utility, utility
from securekd.laboratory.plan import Plan, central_model
from securekd.laboratory.simple import simple_model
from securekd.learning.tasks import Perform, TrainTask
from securekd.records.record import LocalUtility, Utility
from securekd.settings.models import ClientModel


@dataclass(frozen=True)
class Baselines:
    """Utility of every yardstick."""

    locals: tuple[LocalUtility, ...]
    centralized: Utility
    centralized_nonprivate: Utility
    simple: Utility

    @property
    def local_mean(self) -> Utility:
        """The mean client."""
        return mean_utility([one.utility for one in self.locals])

    @property
    def local_best(self) -> Utility:
        """The client with the best accuracy on the test set."""
        return max((one.utility for one in self.locals), key=lambda u: u.accuracy)


def baselines(plan: Plan, clients: Sequence[Client], store: PhaseStore, perform: Perform) -> Baselines:
    """Train and test every yardstick; each client alone gets the whole privacy budget at once."""
    central_one, momentum = central_model(plan.experiment), plan.experiment.training.momentum
    # The longest first, or the others wait for it alone.
    tasks = {"baseline.centralized": _together(plan, clients, "centralized", central_one)}
    tasks["baseline.simple"] = _together(
        plan, clients, "simple", simple_model(plan.fits, plan.agreement.shape, momentum)
    )
    tasks |= {f"baseline.{c.key}": _alone(plan, c) for c in clients}
    if plan.agreement.dp is not None:
        tasks["baseline.centralized-nonprivate"] = _together(plan, clients, "centralized", central_one, private=False)
    todo = [name for name in tasks if not store.has(name)]
    for name, saved in zip(todo, perform([tasks[name] for name in todo]), strict=True):
        store.put(name, saved)
    tested = {name: _test(plan, tasks[name], store.get(name)) for name in tasks}
    central = tested["baseline.centralized"]
    return Baselines(
        locals=tuple(
            LocalUtility(
                client=c.member.name,
                model=c.member.model.kind,
                examples=len(c.examples),
                utility=tested[f"baseline.{c.key}"],
            )
            for c in clients
        ),
        centralized=central,
        centralized_nonprivate=tested.get("baseline.centralized-nonprivate", central),
        simple=tested["baseline.simple"],
    )


def _alone(plan: Plan, client: Client) -> TrainTask:
    """A client by itself, which has nobody to leave a class to: it has no use for a background."""
    lessons = client.public_lessons()
    task = client.private_task("alone", client.member.name, state=None, lessons=lessons)
    if client.member.model.loss == "background":
        model = client.member.model.model_copy(update={"loss": "cross_entropy"})
        task = replace(task, model=model, background=None, lessons=lessons)
    return _whole_budget(plan, task)


def _together(
    plan: Plan, clients: Sequence[Client], name: str, model: ClientModel, *, private: bool = True
) -> TrainTask:
    """A model on all data in one place."""
    first = clients[0].private_task(name, str(private), state=None)
    task = replace(
        first,
        model=model,
        public=plan.fits.of(model),
        lessons=clients[0].public_lessons() if model.loss == "cross_entropy" else (),
        init_seed=plan.randomness.public_seed("init", name),
        inputs=np.concatenate([c.examples.inputs for c in plan.clients]),
        labels=np.concatenate([labels_of(c.examples) for c in plan.clients]),
        learning_rate=model.learning_rate or plan.experiment.centralized.learning_rate,
        share=1.0,
        background=plan.data.transfer.inputs if model.loss == "background" else None,
        absent=sum(c.absent for c in plan.clients),
    )
    return _whole_budget(plan, task) if private else replace(task, dp=None)


def _whole_budget(plan: Plan, task: TrainTask) -> TrainTask:
    """The steps of all rounds at once; where there is no DP, one round's passes are enough to converge."""
    if task.dp is None:
        return task
    return replace(task, dp=replace(task.dp, steps=task.dp.steps * plan.experiment.rounds * plan.agreement.trainings))


def _test(plan: Plan, task: TrainTask, trained: Saved) -> Utility:
    test = plan.data.test
    return utility(plan.logits(task.model, trained.arrays, test.inputs), labels_of(test))
