"""What choosing among a sweep's runs costs, in the words and the figure that its page and `frontier` show."""

from dataclasses import dataclass

from securekd.privacy.ledger import read_ledger
from securekd.sweep.folder import SweepFolder
from securekd.sweep.plan import SweepPlan
from securekd.sweep.selection import events_of, selection_epsilon


@dataclass(frozen=True)
class Choice:
    """The cost of releasing the best of the runs, and no other.

    Attributes:
        looked: runs whose results are in the table.
        single: the largest ε for one example in a single run; None where one has none.
        epsilon: ε for one example of releasing the best of them; None where no bound is given.
        delta: the δ of both.
        why: the reason why none is given, or the assumptions under which the bound holds.
    """

    looked: int
    single: float | None
    epsilon: float | None
    delta: float | None
    why: str


ASSUMED = (
    "runs were ranked by what the student shows on data outside the training, nothing but the best run is released, "
    "and the number of runs stays secret; the test set, on which they were ranked, is not protected"
)


def cost_of_choice(plan: SweepPlan, folder: SweepFolder) -> Choice:
    """How many runs were looked at, and what the best of them may promise."""
    results = [(run, folder.result(run)) for run in plan.runs]
    done = [(run, result) for run, result in results if result is not None]
    example = [g for _, result in done for g in result.privacy.guarantees if g.unit == "example"]
    known = [g.epsilon for g in example if g.epsilon is not None]
    single = max(known) if known and len(known) == len(example) else None
    delta = max((g.delta for g in example), default=None)

    def none(why: str) -> Choice:
        return Choice(len(done), single, None, delta, why)

    selection = plan.settings.selection
    if selection is None:
        return none("the number of runs was not drawn from a law that has one ([selection] in the sweep file draws it)")
    if len(done) < len(plan.runs) or any(folder.failure(run) for run in plan.runs):
        return none(f"{len(done)} of the {len(plan.runs)} runs that were drawn are finished without an error")
    if not done:
        return none("no run was drawn")
    if single is None or delta is None:
        return none("a single run has no ε for one example")
    ledgers = [events_of(read_ledger(folder.run(run.key) / "ledger.json").entries) for run, _ in done]
    if any(events != ledgers[0] for events in ledgers):
        return none("the runs do not all cost the same")
    relation = next(g.neighbours for g in example)
    found = [selection_epsilon(e, selection, delta, relation) for e in set(ledgers[0].values())] if relation else []
    bounds = [epsilon for epsilon in found if epsilon is not None]
    if not bounds or len(bounds) < len(found):
        return none(f"no accountant for it knows the neighbouring relation {relation}")
    return Choice(len(done), single, max(bounds), delta, ASSUMED)
