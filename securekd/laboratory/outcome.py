"""A round as the laboratory sees it, which has played everybody: what each party did, side by side."""

from dataclasses import dataclass

import numpy as np

from securekd.checkpoint import Arrays
from securekd.federation.aggregation.seam import Aggregate
from securekd.federation.client import Noted
from securekd.federation.messages import Instruction
from securekd.federation.strategies.seam import Played
from securekd.laboratory.parties import Parties


@dataclass(frozen=True, eq=False)
class RoundOutcome:
    """What one round left with whom.

    Attributes:
        number: of the round, from 1.
        played: as the server saw it.
        parties: everybody, in whose folders the rest is.
    """

    number: int
    played: Played
    parties: Parties

    @property
    def asked(self) -> Instruction:
        """The last question of the round."""
        return self.played.sums[-1][0]

    @property
    def aggregate(self) -> Aggregate:
        """The sum of its answers."""
        return self.played.sums[-1][1]

    @property
    def student(self) -> Arrays:
        """Weights of the student."""
        return self.played.ended.student

    @property
    def clients(self) -> dict[str, Arrays]:
        """Each client's weights after its training, by name."""
        return {c.member.name: c.trained(self.number, self._trainings) for c in self.parties.clients}

    @property
    def releases(self) -> dict[str, np.ndarray]:
        """What each client gave to the sum, by name."""
        return {c.member.name: c.released(self.asked) for c in self.parties.clients}

    @property
    def answers(self) -> list[Noted]:
        """What each client noted of its answer."""
        return [c.noted(self.asked) for c in self.parties.clients]

    @property
    def trainings(self) -> list[Noted]:
        """What each client noted of its training."""
        told = [Instruction(self.number, "train", b"", exchange=e + 1) for e in range(self._trainings)]
        return [client.noted(one) for one in told for client in self.parties.clients]

    @property
    def _trainings(self) -> int:
        return self.parties.server.agreement.trainings
