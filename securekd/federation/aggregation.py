"""How releases are added up: one interface, and what each way lets the server see.

A sum of an own kind is plugged in as `aggregation = "module:attribute"`, an object with `aggregate` and `sums_only`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np

from securekd.errors import RunError, SettingError
from securekd.plugins import named
from securekd_protocols import Policy, ProtocolError, simulate
from securekd_protocols.homomorphic import (
    HomomorphicSettings,
    SchemeName,
    choose_scheme,
    require_seal,
    simulate_homomorphic,
)

BytesByClient = Mapping[str, int]


@dataclass(frozen=True)
class Terms:
    """What is agreed on before a round's releases are added up.

    Attributes:
        magnitude: largest absolute value of a released integer, noise included.
        threshold: fewest survivors whose sum is opened.
        colluders: clients that may collude with the server.
        context: what every client must agree on, bound into the session: a digest of transfer rows, or of a model.
        round_number: number of the round, from 1.
        dropouts: clients that fall silent before they send their input.
        noise_variance: variance of each client's noise in squared steps, rounded down; bound into the session.
    """

    magnitude: int
    threshold: int
    colluders: int
    context: bytes
    round_number: int
    dropouts: frozenset[str] = frozenset()
    noise_variance: int = 0


@dataclass(frozen=True)
class Aggregate:
    """What comes out of a round.

    Attributes:
        total: int64 (d,), the exact sum of the survivors' integers.
        survivors: whose releases are in it.
        upload: bytes that each client sent, by phase of the protocol.
        download: bytes that each client received, likewise.
        decryptor: bytes that the server sent to a decryptor, and got from it; empty where there is none.
    """

    total: np.ndarray
    survivors: tuple[str, ...]
    upload: Mapping[str, BytesByClient]
    download: Mapping[str, BytesByClient]
    decryptor: Mapping[str, int] = field(default_factory=dict)


class Aggregator(Protocol):
    """Adds integer vectors of clients up."""

    @property
    def sums_only(self) -> bool:
        """Whether the server learns the sum alone; if not, every release is in its view."""

    def aggregate(self, releases: Mapping[str, np.ndarray], terms: Terms) -> Aggregate:
        """Sum the survivors' vectors (int64, equal lengths).

        Raises:
            RunError: if fewer than `terms.threshold` clients survive; nothing is opened then.
        """


@runtime_checkable
class LimitedAggregator(Aggregator, Protocol):
    """An aggregator that cannot add up everything, and says so before anything is trained."""

    def refuse_unfit(self, clients: int, values: int, magnitude: int) -> None:
        """Refuse sums of so many clients' vectors of so many values within ±magnitude.

        Raises:
            SettingError: it cannot add them up, or not on this machine.
        """


class PlainAggregator:
    """Every client sends its integers as they are, and the server adds them up."""

    sums_only = False

    def aggregate(self, releases: Mapping[str, np.ndarray], terms: Terms) -> Aggregate:
        """Sum in the clear; 4 bytes a value."""
        survivors = tuple(c for c in releases if c not in terms.dropouts)
        _refuse_too_few(len(survivors), releases, terms)
        total = np.zeros_like(releases[survivors[0]])
        for client in survivors:
            total += releases[client]
        sent = {c: 4 * len(releases[c]) for c in survivors}
        return Aggregate(total, survivors, {"input": sent}, {})


class MaskingAggregator:
    """Pairwise masking (Bonawitz et al. 2017): the server learns the sum of at least `threshold` survivors.

    Everybody shares masks with everybody: in a k-regular graph (Bell et al. 2020) a malicious server can open several
    sums of fewer clients, and the noise that the ledger counts would not be in each.
    """

    sums_only = True

    def __init__(self, on_server_receive: Callable[[bytes], None] | None = None) -> None:
        """Take, for tests and teaching, a witness of every byte string that the server gets."""
        self._on_server_receive = on_server_receive

    def aggregate(self, releases: Mapping[str, np.ndarray], terms: Terms) -> Aggregate:
        """Run one session with fresh keys, every client and the server in this process."""
        survivors = len(releases) - len(terms.dropouts)
        _refuse_too_few(survivors, releases, terms)
        names = list(releases)  # an institution's name may be anything; the session knows numbers
        result = simulate(
            dict(enumerate(releases.values())),
            Policy(
                magnitude=terms.magnitude,
                colluders=terms.colluders,
                threshold=terms.threshold,
                graph="complete",
                noise_variance=terms.noise_variance,
            ),
            context=terms.context,
            round_number=terms.round_number,
            dropouts={i: "masked_input" for i, name in enumerate(names) if name in terms.dropouts},
            on_server_receive=self._on_server_receive,
        )
        return Aggregate(
            result.total,
            tuple(names[int(i)] for i in result.survivors),
            _by_name(result.bytes_up, names),
            _by_name(result.bytes_down, names),
        )


class HomomorphicAggregator:
    """Sums under homomorphic encryption: the server adds ciphertexts, and a decryptor opens one sum of enough clients.

    The decryptor is neither the server nor a client; it must not work with the server. It sees the same sum; with CKKS
    it is trusted to look at nothing else.
    """

    sums_only = True

    def __init__(self, scheme: SchemeName, on_server_receive: Callable[[bytes], None] | None = None) -> None:
        """Take, for tests and teaching, a witness of every byte string that the server gets."""
        self._scheme = scheme
        self._on_server_receive = on_server_receive

    @property
    def trusts_decryptor(self) -> bool:
        """Whether a decryptor that looks at more than the sum could learn more (HOMOMORPHIC.md of the protocols)."""
        return self._scheme is SchemeName.CKKS

    def refuse_unfit(self, clients: int, values: int, magnitude: int) -> None:
        """See `LimitedAggregator`; also refused where TenSEAL is not installed."""
        try:
            require_seal()
            choose_scheme(self._scheme, clients, magnitude, values)
        except ProtocolError as error:
            raise SettingError(f"aggregation = {self._scheme.value!r}: {error}") from error

    def aggregate(self, releases: Mapping[str, np.ndarray], terms: Terms) -> Aggregate:
        """Run one session with fresh keys; every client, the server and the decryptor in this process."""
        _refuse_too_few(len(releases) - len(terms.dropouts), releases, terms)
        names = list(releases)
        result = simulate_homomorphic(
            dict(enumerate(releases.values())),
            HomomorphicSettings(
                self._scheme,
                magnitude=terms.magnitude,
                threshold=terms.threshold,
                colluders=terms.colluders,
                noise_variance=terms.noise_variance,
            ),
            context=terms.context,
            round_number=terms.round_number,
            dropouts=[i for i, name in enumerate(names) if name in terms.dropouts],
            on_server_receive=self._on_server_receive,
        )
        return Aggregate(
            result.total,
            tuple(names[int(i)] for i in result.survivors),
            _by_name(result.bytes_up, names),
            _by_name(result.bytes_down, names),
            {"upload": result.decryptor_up, "download": result.decryptor_down},
        )


def _by_name(counts: Mapping[str, Mapping[int | str, int]], names: list[str]) -> dict[str, dict[str, int]]:
    return {phase: {names[int(i)]: count for i, count in by.items()} for phase, by in counts.items()}


def _refuse_too_few(survivors: int, releases: Mapping[str, np.ndarray], terms: Terms) -> None:
    if survivors < terms.threshold:
        raise RunError(
            f"{survivors} of {len(releases)} clients survived round {terms.round_number}, "
            f"and {terms.threshold} are needed"
        )


AGGREGATORS: dict[str, Callable[[], Aggregator]] = {
    "masking": MaskingAggregator,
    "ckks": partial(HomomorphicAggregator, SchemeName.CKKS),
    "bfv": partial(HomomorphicAggregator, SchemeName.BFV),
    "plain": PlainAggregator,
}


def aggregator_named(name: str) -> Aggregator:
    """The aggregator that a configuration names."""
    return named("aggregation", name, AGGREGATORS)
