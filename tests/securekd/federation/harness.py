"""A federation without training, and single sums between its parties, for tests of all that can go wrong on the way."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from securekd.checkpoint import Saved
from securekd.errors import RunError, SecurekdError
from securekd.federation.aggregation.catalogue import aggregator_named
from securekd.federation.aggregation.seam import DECRYPTOR, Directory, Part, Terms
from securekd.federation.aggregation.session import carry
from securekd.federation.client import Client
from securekd.federation.messages import Instruction
from securekd.federation.server import Server
from securekd.federation.sums import terms_of
from securekd.laboratory.parties import Parties, parties
from securekd.laboratory.plan import Plan, make_plan
from securekd.learning.tasks import TrainTask, network_of, state_of
from securekd.privacy.ledger import Ledger
from securekd_protocols import Identity, ProtocolError
from tests.securekd.conftest import small

HOMOMORPHIC = ("bfv", "ckks")
EVERY = ("plain", "masking", *HOMOMORPHIC)
REFUSALS = (SecurekdError, ProtocolError)


# ---- whole rounds ----


def untrained(todo: Sequence[TrainTask]) -> Any:
    """In place of training: weights that are new in every call, as they are with the system's noise."""
    for task in todo:
        network = network_of(task.model, task.shape, task.init_seed, task.state)
        rng = np.random.default_rng()
        moved = {name: value + rng.normal(0, 0.1, value.shape) for name, value in state_of(network).items()}
        arrays = {name: value.astype(np.float32) for name, value in moved.items()}
        yield Saved(arrays, {"zeroed": 0, "gradients": None}, 0.1)


@cache
def plan_of(aggregation: str) -> Plan:
    return make_plan(
        small(
            aggregation=aggregation,
            data={"transfer": 12, "test": 20, "private": 40},
            clients={"models": ["logistic"]},
            student={"model": "logistic"},
            privacy={"noise": "os", "dp_sgd": False},
            rounds=2,
        )
    )


def built(plan: Plan, folder: Path) -> Parties:
    folder.mkdir(exist_ok=True)
    ledger = Ledger(folder / "ledger.json", noise="os", delta=plan.agreement.delta)
    return parties(plan, folder, untrained, lambda name, saved: None, ledger)


def refuse_long(error: Exception) -> None:
    """Have every refusal be one line that says something."""
    assert "\n" not in str(error)
    assert 20 < len(str(error)) < 500


def contents(folder: Path) -> dict[str, bytes]:
    """What stands in a folder: every file, by its name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


DECRYPTOR_IDENTITY = Identity.generate(os.urandom)


def joined(
    clients: Sequence[Client],
    server: Server,
    told: Instruction,
    aggregator: Any,
    heard: Callable[[Client], Instruction] | None = None,
) -> tuple[Directory, dict[int, Part]]:
    """The parts of whoever joins, and of a decryptor that believes the server."""
    who = Directory(
        tuple(client.identity.public for client in clients), server.identity.public, DECRYPTOR_IDENTITY.public
    )
    parts: dict[int, Part] = {}
    for client in clients:
        with suppress(RunError):
            parts[client.number] = client.join(heard(client) if heard else told, who)
    terms = terms_of(server.agreement, server.question(told.release_phase), told)
    third = aggregator.decryptor(terms, who, DECRYPTOR_IDENTITY)
    return who, parts if third is None else parts | {DECRYPTOR: third}


# ---- single sums ----


TERMS = Terms(
    clients=4,
    values=5,
    magnitude=1000,
    threshold=3,
    colluders=1,
    context=b"agreed on",
    round_number=1,
    noise_variance=2,
)
IDENTITIES = tuple(Identity.generate(os.urandom) for _ in range(TERMS.clients + 2))
WHO = Directory(tuple(one.public for one in IDENTITIES[:-2]), IDENTITIES[-2].public, IDENTITIES[-1].public)


@dataclass(frozen=True)
class Session:
    """Everybody in one session, with lines to be spoilt."""

    kind: str
    vectors: Mapping[int, np.ndarray]
    parts: Mapping[int, Part]

    def play(self, parts: Mapping[int, Part]) -> tuple[list[int], tuple[str, ...]] | None:
        """The sum and who is in it; None where the session is refused, in one line."""
        server = aggregator_named(self.kind).server(TERMS, WHO, IDENTITIES[-2])
        try:
            done = carry(server, parts, "0123")
        except REFUSALS as error:
            refuse_long(error)
            return None
        return done.total.tolist(), done.survivors

    def total(self, survivors: Sequence[str]) -> list[int]:
        return sum((self.vectors[int(name)] for name in survivors), np.zeros(TERMS.values, np.int64)).tolist()


def session(kind: str, seed: int) -> Session:
    rng = np.random.default_rng(seed)
    aggregator = aggregator_named(kind)
    vectors = {i: rng.integers(-1000, 1001, TERMS.values) for i in range(TERMS.clients)}
    parts: dict[int, Part] = {i: aggregator.client(TERMS, WHO, IDENTITIES[i], i, v) for i, v in vectors.items()}
    third = aggregator.decryptor(TERMS, WHO, IDENTITIES[-1])
    return Session(kind, vectors, parts if third is None else parts | {DECRYPTOR: third})
