"""How a round is played: the server's requests go to the other parties, and what they bring comes back.

`play` drives any round, in one process or between machines: what happens in it is the strategy's affair, and how
messages travel the carrier's.
"""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from securekd.federation.aggregation.policy import refuse_too_few
from securekd.federation.aggregation.seam import DECRYPTOR, Aggregate, Aggregator, Directory, Part
from securekd.federation.aggregation.session import Witness, carry
from securekd.federation.client import Client
from securekd.federation.messages import Instruction
from securekd.federation.server import Compute, Hear, Prepare, Server, Sum, Train
from securekd.federation.sums import terms_of
from securekd.learning.tasks import Perform
from securekd_protocols import Identity


class Carrier(Protocol):
    """Brings instructions and frames to the other parties, and back."""

    def instruct(self, told: Instruction) -> None:
        """Have every client do what an instruction says."""

    def add_up(self, told: Instruction, server: Server) -> Aggregate:
        """Have what the clients answered added up.

        Raises:
            RunError: Too few survive; nothing is opened then.
        """

    def hear(self, told: Instruction) -> Mapping[str, Sequence[str]]:
        """What the clients say in the clear."""


def play(server: Server, number: int, carrier: Carrier, perform: Perform) -> None:
    """Play a round.

    Args:
        server: has what came of it, afterwards.
        number: of the round.
        carrier: reaches the others.
        perform: carries out what the server trains itself.

    Raises:
        RunError: if the round cannot end, for instance with too few survivors; it can be played again.
    """
    request = server.begin(number)
    while request is not None:
        reply: object = None
        match request:
            case Train(told) | Prepare(told):
                carrier.instruct(told)
            case Sum(told):
                reply = carrier.add_up(told, server)
            case Hear(told):
                reply = carrier.hear(told)
            case Compute(task):
                reply = next(perform([task]))
        request = server.receive(reply)


class InProcess:
    """Every party in this process; their training in as many as `perform` has.

    Args:
        clients: in order.
        aggregator: whose third party, where there is one, is in this process too.
        perform: carries training out.
        silent: which clients fall silent in the sums of a round.
        witness: of every byte string that the server gets in a sum.
    """

    def __init__(
        self,
        clients: Sequence[Client],
        aggregator: Aggregator,
        perform: Perform,
        *,
        silent: Callable[[int], Collection[str]] = lambda number: (),
        witness: Witness | None = None,
    ) -> None:
        self.clients = tuple(clients)
        self._aggregator = aggregator
        self._perform = perform
        self._silent = silent
        self._witness = witness
        self._decryptor = Identity.generate(os.urandom)

    def instruct(self, told: Instruction) -> None:
        """Tell everybody, and train all at once."""
        tasks = [(client, client.begin(told)) for client in self.clients]
        todo = [(client, task) for client, task in tasks if task is not None]
        for (client, _), saved in zip(todo, self._perform([task for _, task in todo]), strict=True):
            client.finish(told, saved)

    def add_up(self, told: Instruction, server: Server) -> Aggregate:
        """Run a session with fresh keys."""
        terms = terms_of(server.agreement, server.question(told.release_phase), told)
        silent = self._silent(told.round)
        refuse_too_few(len(self.clients) - len(silent), terms)
        who = Directory(
            tuple(client.identity.public for client in self.clients), server.identity.public, self._decryptor.public
        )
        parts: dict[int, Part] = {c.number: c.join(told, who) for c in self.clients}
        third = self._aggregator.decryptor(terms, who, self._decryptor)
        if third is not None:
            parts[DECRYPTOR] = third
        names = [member.name for member in server.agreement.members]
        part = server.part(told, who)
        return carry(part, parts, names, silent=silent, witness=self._witness)

    def hear(self, told: Instruction) -> dict[str, tuple[str, ...]]:
        """Ask one after the other."""
        return {client.member.name: client.say(told) for client in self.clients}
