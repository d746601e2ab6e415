"""One homomorphic session with all of its parties in hand, and frames that a test can change on the way."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from securekd_protocols import Identity, LocalPolicy, Member, hash_context
from securekd_protocols.homomorphic import (
    Decryptor,
    HomomorphicClient,
    HomomorphicParameters,
    HomomorphicPolicy,
    HomomorphicServer,
    SchemeName,
)
from securekd_protocols.homomorphic.messages import DECRYPTOR, SERVER, Kind, seal_frame
from securekd_protocols.randomness import InsecureSeededRandomness

RANDOM = InsecureSeededRandomness(b"homomorphic tests")
IDENTITIES = [Identity.generate(RANDOM) for _ in range(100)]
OPERATOR, KEEPER = Identity.generate(RANDOM), Identity.generate(RANDOM)


def parameters_of(clients: int, name: SchemeName, **changes) -> HomomorphicParameters:
    settings = {
        "roster": tuple(Member(f"c{i}", IDENTITIES[i].public) for i in range(clients)),
        "server_public": OPERATOR.public,
        "decryptor_public": KEEPER.public,
        "scheme_name": name,
        "threshold": max(3, clients - 1),
        "colluders": 1,
        "vector_length": 50,
        "magnitude": 1000,
        "round_number": 1,
        "nonce": RANDOM(32),
        "context": hash_context(b"transfer set"),
    }
    return HomomorphicParameters(**settings | changes)


def policy_of(parameters: HomomorphicParameters, **changes) -> HomomorphicPolicy:
    local = {
        "server_public": OPERATOR.public,
        "known": {member.name: member.public for member in parameters.roster},
        "context": b"transfer set",
        "round_number": parameters.round_number,
    }
    return HomomorphicPolicy(LocalPolicy(**local | changes), KEEPER.public)


@dataclass
class Parties:
    """Server, decryptor and clients up to the inputs: `inputs` holds each client's frame, unsent."""

    parameters: HomomorphicParameters
    vectors: list[np.ndarray]
    keeper: HomomorphicPolicy | None = None  # the decryptor's, where it is not that of the clients
    server: HomomorphicServer = field(init=False)
    decryptor: Decryptor = field(init=False)
    clients: list[HomomorphicClient] = field(init=False)
    key: bytes = field(init=False)
    inputs: list[bytes] = field(init=False)

    def __post_init__(self) -> None:
        policy = policy_of(self.parameters)
        self.server = HomomorphicServer(self.parameters, OPERATOR)
        self.decryptor = Decryptor(KEEPER, self.keeper or policy)
        self.clients = [HomomorphicClient(IDENTITIES[i], policy) for i in range(self.parameters.clients)]
        invitation = self.server.invitation()
        (self.key,) = self.decryptor.receive(invitation)
        self.server.receive(self.key)
        self.inputs = []
        for client, vector in zip(self.clients, self.vectors, strict=True):
            client.receive(invitation)
            client.submit(vector)
            self.inputs += client.receive(self.key)

    def request(self, *senders: int) -> bytes:
        """What the server asks the decryptor when the inputs of these clients have come."""
        outgoing = [out for i in senders or range(len(self.inputs)) for out in self.server.receive(self.inputs[i])]
        (message,) = outgoing or self.server.close_phase()
        assert message.recipient == DECRYPTOR
        return message.data

    def signed_by_server(self, kind: Kind, body: bytes) -> bytes:
        return seal_frame(kind, SERVER, self.parameters.session_id, body, OPERATOR)


def parties(name: SchemeName, clients: int = 4, **changes) -> Parties:
    parameters = parameters_of(clients, name, **changes)
    rng = np.random.default_rng(clients)
    bound = parameters.bound
    return Parties(parameters, list(rng.integers(-bound, bound + 1, (clients, parameters.vector_length))))
