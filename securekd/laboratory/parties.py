"""All parties of a run, each with what is its own, and a carrier between them, in one process."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from securekd.checkpoint import PhaseStore, Saved
from securekd.errors import PromiseError
from securekd.federation.carrier import InProcess
from securekd.federation.client import Client
from securekd.federation.server import Server
from securekd.laboratory.plan import Plan, PlannedClient
from securekd.learning.tasks import Perform
from securekd.privacy.ledger import Ledger

OnDone = Callable[[str, Saved], None]


@dataclass(frozen=True, eq=False)
class Parties:
    """Everybody.

    Attributes:
        server: with the public ledger.
        clients: in order, each with its own.
        carrier: between them.
    """

    server: Server
    clients: tuple[Client, ...]
    carrier: InProcess


def parties(plan: Plan, folder: Path, perform: Perform, on_done: OnDone, ledger: Ledger) -> Parties:
    """Build everybody, or restore them from what is in the folder.

    Args:
        plan: of the run.
        folder: of the run: the public ledger stands in it, and what is private under `state`.
        perform: carries training out.
        on_done: hears of every phase.
        ledger: the public one.

    Raises:
        FolderError: if what somebody was charged for is gone.
    """
    clients = tuple(client(plan, one, folder / "state", on_done) for one in plan.clients)
    carrier = InProcess(clients, plan.aggregator, perform, silent=plan.silent)
    return Parties(server(plan, folder / "state", ledger, on_done), clients, carrier)


LABORATORY = ("canaries", "baseline")
"""How the phases begin that are nobody's but the laboratory's: how coins fell, and yardsticks on everybody's data."""


def server(plan: Plan, state: Path, ledger: Ledger, on_done: OnDone = lambda name, saved: None) -> Server:
    """The server, as it is in the folder, of which it sees neither a client's part nor the laboratory's."""
    keys = frozenset(one.key for one in plan.clients)

    def owns(name: str) -> bool:
        return name.rpartition(".")[2] not in keys and name.partition(".")[0] not in LABORATORY

    store = PhaseStore(state, on_done, owns)
    return Server(plan.equipment, store, ledger)


def client(plan: Plan, planned: PlannedClient, state: Path, on_done: OnDone = lambda name, saved: None) -> Client:
    """One client, as it is in the folder, of which it sees its own part."""
    key, privacy = planned.key, plan.experiment.privacy
    store = PhaseStore(state, on_done, lambda name: name.rpartition(".")[2] == key)
    return Client(
        plan.equipment,
        planned.name,
        planned.examples,
        store,
        Ledger(state / f"ledger.{key}.json", noise=privacy.noise, delta=plan.agreement.delta, private=True),
        key=key,
        absent=planned.absent,
    )


def refuse_disagreement(public: Ledger, clients: Sequence[Client]) -> None:
    """Raise `PromiseError` where the server's ledger and a client's own say different things of the client."""
    for one in clients:
        asked, own = public.of(one.member.name), one.entries
        for number in range(max(len(asked), len(own))):
            theirs, mine = asked[number : number + 1], own[number : number + 1]
            if theirs != mine:
                raise PromiseError(
                    f"entry {number + 1} of {one.member.name} differs between the server's ledger and its own: "
                    f"{theirs or 'none'} and {mine or 'none'}: this is a bug, report it"
                )
