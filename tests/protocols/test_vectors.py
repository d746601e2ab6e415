"""The vectors: every failure raises what its file says, and every good session comes out byte for byte."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from securekd_protocols import CohortRule, Diary, FixedPoint, Identity, KeystreamRandomness, LocalPolicy, errors
from securekd_protocols.masking.client import MaskingClient
from securekd_protocols.masking.server import MaskingServer
from securekd_protocols.parameters import SessionParameters
from tests.protocols.failures_messages import FAILURES
from tests.protocols.plain import PlainSession

VECTORS = Path(__file__).parents[1] / "vectors"


def load(pattern):
    return [pytest.param(json.loads(path.read_text()), id=path.stem) for path in sorted(VECTORS.glob(pattern))]


def replayed(data):
    """A source that gives the recorded bytes, and then zeros: what comes after the failure is of no interest."""
    rest = bytearray(data)

    def random_bytes(size):
        given = bytes(rest[:size]).ljust(size, b"\0")
        del rest[:size]
        return given

    return random_bytes


class Client:
    def __init__(self, vector):
        policy = dict(vector["policy"])
        self.rule, diary = CohortRule(policy.pop("smallest_difference", 1)), policy.pop("diary", None)
        self.identity = Identity(bytes.fromhex(vector["identity"]))
        self.policy = LocalPolicy(
            server_public=bytes.fromhex(policy.pop("server_public")),
            known={name: bytes.fromhex(key) for name, key in policy.pop("known").items()},
            context=bytes.fromhex(policy.pop("context")),
            diary=None if diary is None else Diary.load(bytes.fromhex(diary), self.rule),
            **policy,
        )
        random = replayed(bytes.fromhex(vector["random"]))
        self.client = MaskingClient(self.identity, self.policy, insecure_randomness_for_tests=random)
        self.saved = {}

    @property
    def state(self):
        return self.client.state.value

    def receive(self, data):
        self.client.receive(bytes.fromhex(data))

    def submit(self, values):
        self.client.submit(np.array(values))

    def save(self, name):
        self.saved[name] = self.client.save()

    def diary(self, data):
        self.policy = replace(self.policy, diary=Diary.load(bytes.fromhex(data), self.rule))

    def restore(self, name):
        self.client = MaskingClient.restore(self.saved[name], self.identity, self.policy)


class Server:
    def __init__(self, vector):
        parameters = SessionParameters.decode(bytes.fromhex(vector["parameters"]))
        identity, random = Identity(bytes.fromhex(vector["identity"])), replayed(bytes.fromhex(vector["random"]))
        self.server = MaskingServer(parameters, identity, insecure_randomness_for_tests=random)

    @property
    def state(self):
        return self.server.state.value

    def receive(self, data):
        self.server.receive(bytes.fromhex(data))

    def close(self, _):
        self.server.close_phase()


class Encoder:
    state = None

    def __init__(self, vector):
        self.grid = FixedPoint(vector["clip_range"], vector["step"])

    def encode(self, values):
        self.grid.encode(np.array([float(value) for value in values]), KeystreamRandomness())


@pytest.mark.parametrize("vector", load("failure-*.json"))
def test_a_failure_raises_the_named_error(vector):
    kind = {"server": Server, "fixed point": Encoder}.get(vector["participant"], Client)
    participant = kind(vector)
    *before, last = [next(iter(step.items())) for step in vector["steps"]]
    for action, argument in before:
        getattr(participant, action)(argument)
    with pytest.raises(errors.ProtocolError) as caught:
        getattr(participant, last[0])(last[1])
    assert type(caught.value).__name__ == vector["error"]
    assert participant.state == vector.get("after")


def test_there_is_a_file_for_each_scenario_and_no_other():
    assert {path.stem.removeprefix("failure-") for path in VECTORS.glob("failure-*.json")} == FAILURES.keys()


# What only peers in a homomorphic session can cause; tests/protocols/homomorphic causes each with real ciphertexts,
# which SEAL randomises, so that no vector could be made again.
HOMOMORPHIC = {
    *("NotAPublicKey", "BadCiphertext", "TransparentCiphertext"),
    *("NotTheSurvivorsSum", "SumOffGrid", "SecondOpening"),
}


def test_every_error_that_a_peer_can_cause_has_a_vector():
    named = {json.loads(path.read_text())["error"] for path in VECTORS.glob("failure-*.json")}
    remote = {
        name
        for name, cls in vars(errors).items()
        if isinstance(cls, type)
        and issubclass(cls, errors.RemoteProtocolError)
        and cls is not errors.RemoteProtocolError
    }
    assert remote - HOMOMORPHIC <= named
    assert remote >= HOMOMORPHIC


@pytest.mark.parametrize("name", sorted(FAILURES))
def test_the_generator_makes_the_same_failure_again(name):
    stored = json.loads((VECTORS / f"failure-{name}.json").read_text())
    assert json.loads(json.dumps({"scenario": name, **FAILURES[name]()})) == stored


@pytest.mark.parametrize("vector", load("session-*.json"))
def test_a_second_implementation_sends_the_same_bytes(vector):
    """`plain` shares no code with the package; it follows SPEC.md."""
    session = PlainSession(vector)
    session.run()
    assert session.messages == [(m["from"], m["to"], m["bytes"]) for m in vector["messages"]]
    assert session.survivors == vector["survivors"]
    assert session.total == vector["sum"]
    assert session.total == [
        sum(column) for column in zip(*(vector["inputs"][f"client {i}"] for i in session.survivors), strict=True)
    ]
