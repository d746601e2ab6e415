"""What the student is compared with: each client alone, and all data in one place with and without privacy."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from securekd.checkpoint import PhaseStore, Saved
from securekd.federation.client import Client
from securekd.laboratory.evaluation import labels_of, mean_utility, utility
from securekd.laboratory.plan import Plan, central_model
from securekd.learning.tasks import Perform, TrainTask
from securekd.records.record import LocalUtility, Utility


@dataclass(frozen=True)
class Baselines:
    """Utility of every yardstick."""

    locals: tuple[LocalUtility, ...]
    centralized: Utility
    centralized_nonprivate: Utility

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
    # The longest first, or the others wait for it alone.
    tasks = {"baseline.centralized": _central(plan, clients, private=True)}
    tasks |= {f"baseline.{c.key}": _alone(plan, c) for c in clients}
    if plan.agreement.dp is not None:
        tasks["baseline.centralized-nonprivate"] = _central(plan, clients, private=False)
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
    )


def _alone(plan: Plan, client: Client) -> TrainTask:
    task = client.private_task("alone", client.member.name, state=None, lessons=client.public_lessons())
    return _whole_budget(plan, task)


def _central(plan: Plan, clients: Sequence[Client], *, private: bool) -> TrainTask:
    settings = plan.experiment.centralized
    model = central_model(plan.experiment)
    first = clients[0].private_task("centralized", str(private), state=None, lessons=clients[0].public_lessons())
    task = replace(
        first,
        model=model,
        public=plan.fits.of(model),
        init_seed=plan.randomness.public_seed("init", "centralized"),
        inputs=np.concatenate([c.examples.inputs for c in plan.clients]),
        labels=np.concatenate([labels_of(c.examples) for c in plan.clients]),
        learning_rate=model.learning_rate or settings.learning_rate,
        loss=model.loss,
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
