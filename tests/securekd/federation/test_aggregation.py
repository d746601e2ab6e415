"""Aggregators in parts: the exact sum of the survivors, at the bytes of the protocols' own simulations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from securekd.errors import AgreementError, RunError
from securekd.federation.aggregation.catalogue import aggregator_named
from securekd.federation.aggregation.plain import PlainAggregator
from securekd.federation.aggregation.seam import SERVER, Aggregate, Directory, Message, Terms
from securekd.federation.aggregation.session import add_up
from securekd_protocols import Identity, Policy, ProtocolError, recommended_threshold, simulate
from securekd_protocols.errors import (
    MalformedMessage,
    NotIntegers,
    OutOfOrder,
    ReplayedMessage,
    UnknownSender,
    ValueOutOfRange,
    WrongLength,
)
from securekd_protocols.homomorphic import HomomorphicSettings, SchemeName, simulate_homomorphic

HOMOMORPHIC = ("bfv", "ckks")
EVERY = ("plain", "masking", *HOMOMORPHIC)


@dataclass(frozen=True)
class Case:
    """Vectors that are added up, and who falls silent."""

    vectors: Mapping[str, np.ndarray]
    silent: tuple[str, ...]
    terms: Terms

    @property
    def survivors(self) -> tuple[str, ...]:
        return tuple(name for name in self.vectors if name not in self.silent)

    @property
    def total(self) -> list[int]:
        """In whole numbers of any size."""
        return [sum(int(self.vectors[name][i]) for name in self.survivors) for i in range(self.terms.values)]


def case(clients: int, values: int, magnitude: int, seed: int, silent: Sequence[int] = (), colluders: int = 1) -> Case:
    rng = np.random.default_rng(seed)
    names = [f"{i}. Ü" for i in range(clients)]
    vectors = {name: rng.integers(-magnitude, magnitude + 1, values) for name in names}
    vectors[names[0]][:] = magnitude  # what is next to the edge
    vectors[names[-1]][0] = -magnitude
    terms = Terms(
        clients=clients,
        values=values,
        magnitude=magnitude,
        threshold=recommended_threshold(clients, colluders),
        colluders=colluders,
        context=b"what is agreed on",
        round_number=seed % 7 + 1,
        noise_variance=seed % 100,
    )
    return Case(vectors, tuple(names[i] for i in silent), terms)


@st.composite
def cases(draw: st.DrawFn, largest: int) -> Case:
    clients = draw(st.integers(3, 6))
    most = clients - recommended_threshold(clients, 1)
    silent = draw(st.lists(st.integers(0, clients - 1), max_size=most, unique=True))
    magnitude = draw(st.integers(1, largest // clients))
    return case(clients, draw(st.integers(1, 40)), magnitude, draw(st.integers(0, 2**32)), silent)


def summed(kind: str, one: Case) -> Aggregate:
    return add_up(aggregator_named(kind), one.vectors, one.terms, silent=one.silent)


def exact(kind: str, one: Case) -> None:
    done = summed(kind, one)
    assert done.survivors == one.survivors
    assert done.total.dtype == np.int64
    assert done.total.tolist() == one.total


@settings(max_examples=60)
@given(cases(2**31 - 1))
def test_plain_sums_are_exact(one: Case) -> None:
    exact("plain", one)


@settings(max_examples=25)
@given(cases(2**31 - 1))
@example(case(3, 1, 1, 0))
@example(case(6, 33, (2**31 - 1) // 6, 1, (0, 4)))
def test_masked_sums_are_exact(one: Case) -> None:
    exact("masking", one)


@settings(max_examples=4)
@given(cases(2**24))
def test_sums_under_bfv_are_exact(one: Case) -> None:
    exact("bfv", one)


@settings(max_examples=4)
@given(cases(2**24))
def test_sums_under_ckks_are_exact(one: Case) -> None:
    exact("ckks", one)


@pytest.mark.parametrize("silent", [(), (1,), (0, 4)], ids=str)
def test_masking_sends_what_its_simulation_sends(silent: tuple[int, ...]) -> None:
    one = case(6, 37, 10_000, 3, silent)
    numbers = {name: i for i, name in enumerate(one.vectors)}
    expected = simulate(
        {numbers[name]: vector for name, vector in one.vectors.items()},
        Policy(one.terms.magnitude, threshold=one.terms.threshold, noise_variance=one.terms.noise_variance),
        context=one.terms.context,
        round_number=one.terms.round_number,
        dropouts=dict.fromkeys(silent, "masked_input"),
    )
    done = summed("masking", one)
    assert by_number(done.upload, numbers) == without_empty(expected.bytes_up)
    assert by_number(done.download, numbers) == without_empty(expected.bytes_down)
    assert done.decryptor == {}
    assert done.total.tolist() == expected.total.tolist()


@pytest.mark.parametrize("scheme", list(SchemeName), ids=lambda scheme: scheme.value)
@pytest.mark.parametrize("silent", [(), (0,)], ids=str)
def test_homomorphic_sums_send_what_their_simulation_sends(scheme: SchemeName, silent: tuple[int, ...]) -> None:
    one = case(4, 30, 1000, 4, silent)
    numbers = {name: i for i, name in enumerate(one.vectors)}
    expected = simulate_homomorphic(
        {numbers[name]: vector for name, vector in one.vectors.items()},
        HomomorphicSettings(scheme, one.terms.magnitude, one.terms.threshold, noise_variance=one.terms.noise_variance),
        context=one.terms.context,
        round_number=one.terms.round_number,
        dropouts=silent,
    )
    done = summed(scheme.value, one)
    assert by_number(done.upload, numbers) == without_empty(expected.bytes_up)
    assert by_number(done.download, numbers) == without_empty(expected.bytes_down)
    assert done.decryptor == {"upload": expected.decryptor_up, "download": expected.decryptor_down}
    assert done.total.tolist() == expected.total.tolist()


def by_number(account: Mapping[str, Mapping[str, int]], numbers: Mapping[str, int]) -> dict[str, dict[int, int]]:
    return {stage: {numbers[name]: size for name, size in by.items()} for stage, by in account.items()}


def without_empty(account: Mapping[str, Mapping[int | str, int]]) -> dict[str, dict[int | str, int]]:
    return {stage: dict(by) for stage, by in account.items() if by}


# ---- sums in the clear ----


@pytest.mark.parametrize(
    ("magnitude", "width"),
    [(1, 4), (2**31 - 1, 4), (2**31, 8), (2**31 + 1, 8), (2**40, 8), (2**60, 8)],
)
@pytest.mark.parametrize("silent", [(), (2,)], ids=str)
def test_plain_sums_of_large_integers_are_exact(magnitude: int, width: int, silent: tuple[int, ...]) -> None:
    one = case(4, 9, magnitude, 5, silent)
    exact("plain", one)
    assert summed("plain", one).upload == {"input": dict.fromkeys(one.survivors, 9 * width)}
    assert summed("plain", one).download == {}


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize(
    ("vector", "error"),
    [
        (np.full(3, 101), ValueOutOfRange),
        (np.full(3, -101), ValueOutOfRange),
        (np.full(3, 100 + 2**32), ValueOutOfRange),
        (np.full(4, 1), WrongLength),
        (np.full((3, 1), 1), WrongLength),
        (np.full(3, 1.0), NotIntegers),
    ],
    ids=str,
)
def test_a_vector_that_is_not_as_agreed_is_refused(kind: str, vector: np.ndarray, error: type[ProtocolError]) -> None:
    one = case(4, 3, 100, 6)
    with pytest.raises(error, match="client 1"):
        summed(kind, replace(one, vectors=one.vectors | {list(one.vectors)[1]: vector}))


@pytest.mark.parametrize("kind", EVERY)
def test_too_few_survivors_open_nothing(kind: str) -> None:
    one = case(4, 3, 100, 7, (0, 1))
    seen: list[bytes] = []
    with pytest.raises(RunError, match=r"2 of 4 clients survived round 1, and 3 are needed"):
        add_up(aggregator_named(kind), one.vectors, one.terms, silent=one.silent, witness=seen.append)
    assert seen == []


def plain(terms: Terms) -> tuple[PlainAggregator, Directory, Identity]:
    identity = Identity.generate(lambda count: bytes(range(count)))
    return PlainAggregator(), Directory((identity.public,) * terms.clients, identity.public, identity.public), identity


def test_a_plain_server_takes_one_release_of_each_client_and_nothing_else() -> None:
    one = case(4, 3, 100, 8)
    aggregator, who, identity = plain(one.terms)
    server = aggregator.server(one.terms, who, identity)
    sent = [vector.astype("<i4").tobytes() for vector in one.vectors.values()]
    assert len(server.begin()) == 4

    def refuses(error: type[ProtocolError], sender: int, data: bytes) -> None:
        with pytest.raises(error):
            server.receive(Message(sender, SERVER, "input", data))

    for sender in (4, 99, -1, -2, -3):
        refuses(UnknownSender, sender, sent[0])
    for data in (b"", b"\0", sent[0] + b"\0", sent[0][:-1], sent[0] * 2):
        refuses(MalformedMessage, 0, data)
    with pytest.raises(RunError, match=r"0 of 4 clients survived"):
        server.close()
    for sender in range(3):
        assert server.receive(Message(sender, SERVER, "input", sent[sender])) == []
        refuses(ReplayedMessage, sender, sent[3])
    assert server.result is None
    assert server.close() == []
    refuses(OutOfOrder, 3, sent[3])
    total, survivors = server.result or (np.zeros(0), ())
    assert survivors == (0, 1, 2)
    assert total.tolist() == replace(one, silent=(list(one.vectors)[3],)).total


def test_a_plain_client_answers_its_own_agreement_alone() -> None:
    one = case(4, 3, 100, 9)
    aggregator, who, identity = plain(one.terms)
    client = aggregator.client(one.terms, who, identity, 2, next(iter(one.vectors.values())))
    for context in (b"", b"another", one.terms.context + b"\0"):
        with pytest.raises(AgreementError, match="compare the agreements"):
            client.receive(Message(SERVER, 2, None, context))
    first, second = (client.receive(Message(SERVER, 2, None, one.terms.context)) for _ in range(2))
    assert (
        [m.data for m in first]
        == [m.data for m in second]
        == [next(iter(one.vectors.values())).astype("<i4").tobytes()]
    )
    assert first[0].sender == 2
