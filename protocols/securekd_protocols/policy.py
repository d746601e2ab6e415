"""What one client insists on, whatever the server would like.

A session's parameters reach a client from the server, which may be malicious. They are safe in themselves
(`SessionParameters` sees to that); whether they are safe *enough for this client* is decided here, before it sends
its first byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

from securekd_protocols.diary import Diary
from securekd_protocols.errors import BadParameter, PolicyRefused
from securekd_protocols.parameters import Member, SessionParameters, within
from securekd_protocols.thresholds import FEWEST_CLIENTS, majority


class Offer(Protocol):
    """What a policy looks at, whichever protocol the session follows; see `SessionParameters` for the meanings."""

    @property
    def roster(self) -> tuple[Member, ...]: ...  # noqa: D102
    @property
    def server_public(self) -> bytes: ...  # noqa: D102
    @property
    def round_number(self) -> int: ...  # noqa: D102
    @property
    def clients(self) -> int: ...  # noqa: D102
    @property
    def session_id(self) -> bytes: ...  # noqa: D102
    @property
    def fewest_survivors(self) -> int: ...  # noqa: D102
    @property
    def fewest_honest(self) -> int: ...  # noqa: D102
    @property
    def colluders(self) -> int: ...  # noqa: D102
    @property
    def magnitude(self) -> int: ...  # noqa: D102
    @property
    def noise_variance(self) -> int: ...  # noqa: D102
    def check_context(self, context: bytes) -> None: ...  # noqa: D102


@dataclass(frozen=True)
class LocalPolicy:
    """A client's own floors and expectations.

    Attributes:
        server_public: Ed25519 identity key of the one server whose invitations count.
        known: Identity key by name of every client that this one is ready to be summed with, each key under one name. A
            roster that the server could fill with keys of its own invention would protect nobody.
        context: What this client answers for (in securekd: a digest of the agreement and of what is asked), unhashed.
        round_number: The round that is due.
        colluders: Fewest colluding clients that the session must withstand.
        fewest_clients: Smallest roster.
        lowest_threshold: Fewest survivors that clients sign for, which in a complete graph are those in the sum; `None`
            asks for what a complete graph needs, more than half of clients and colluders together
            (`thresholds.majority`). In a k-regular graph a malicious server opens sums of fewer: see `lowest_honest`.
        lowest_honest: Fewest honest clients that every sum which one session can open contains, whatever the server
            does.
        highest_magnitude: Largest magnitude, which is the clipping range in steps; `None` for any. What bounds an input
            bounds what noise has to hide.
        lowest_noise_variance: Least noise, as `SessionParameters.noise_variance` declares it.
        malicious_server: Refuse a k-regular graph whose threshold trusts the server to follow the protocol.
        restarts: Invitations that this client accepts in one round, the same one again included; a k-regular graph must
            be made for at least as many.
        diary: What is remembered from session to session, or `None` where nothing is. Without one, neither cohorts nor
            invitations are limited, and a client that is restored from an old state is not protected.

    Raises:
        BadParameter: On construction: a key is known under two names, the diary's cohort rule does not fit the
            colluders, or restarts are out of range.
    """

    server_public: bytes
    known: Mapping[str, bytes]
    context: bytes = b""
    round_number: int = 0
    colluders: int = 1
    fewest_clients: int = FEWEST_CLIENTS
    lowest_threshold: int | None = None
    lowest_honest: int = 2
    highest_magnitude: int | None = None
    lowest_noise_variance: int = 0
    malicious_server: bool = True
    restarts: int = 16
    diary: Diary | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        within("restarts", self.restarts, 1, 2**16 - 1)
        object.__setattr__(self, "known", MappingProxyType(dict(self.known)))  # nobody adds a name after the check
        names: dict[bytes, str] = {}
        for name, public in self.known.items():
            if names.setdefault(public, name) != name:  # cohorts are told apart by names
                raise BadParameter(f"one key is known as {names[public]!r} and {name!r}", "give each key one name")
        if self.diary is not None:
            self.diary.rule.check_colluders(self.colluders)

    def __getstate__(self) -> dict[str, Any]:
        """As a dict, since what cannot be changed cannot be copied or pickled either."""
        return self.__dict__ | {"known": dict(self.known)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Check again what `__getstate__` gave."""
        LocalPolicy.__init__(self, **state)

    def check(self, parameters: SessionParameters) -> None:
        """Refuse parameters of a masking session that ask for less.

        Raises:
            PolicyRefused: As `check_offer`, or the graph is not as this client wants it.
            ContextMismatch: The session is about something else.
        """
        self.check_offer(parameters)
        if parameters.graph is None:
            return
        if self.malicious_server and not parameters.graph.malicious_server:
            raise PolicyRefused("the graph's threshold trusts the server", "stay away, or trust it knowingly")
        if self.diary is not None and self.diary.rule.limits:
            raise PolicyRefused(
                "a cohort rule in a k-regular graph, where few sign for any client and no two sets need a common one",
                "ask for the complete graph, or do without: CohortRule(1) limits nothing",
            )
        if parameters.graph.restarts < self.restarts:
            raise PolicyRefused(
                f"a graph for {parameters.graph.restarts} restarts, at least {self.restarts} wanted",
                "ask for a graph that allows for as many, or accept fewer invitations a round",
            )

    def accept(self, parameters: Offer, client: int) -> None:
        """Have the diary note that an invitation is accepted, which is checked before.

        Args:
            parameters: What it is about.
            client: This client's index in the roster.

        Raises:
            BadParameter: The diary is that of another client of this session.
            TooManyRestarts: As many have been accepted in this round as this client accepts.
        """
        if self.diary is not None:
            self.diary.begin(parameters.round_number, parameters.session_id, self.restarts, client=client)

    def check_offer(self, parameters: Offer) -> None:
        """Refuse parameters of any session that ask for less.

        Raises:
            PolicyRefused: Server, round, roster, threshold, corruption bound, clipping range or noise are not as this
                client wants them, or its diary's cohort rule does not fit so many colluders.
            ContextMismatch: The session is about something else.
        """
        if parameters.server_public != self.server_public:
            raise PolicyRefused("the invitation names another server", "take invitations from the known server only")
        if parameters.round_number != self.round_number:
            raise PolicyRefused(
                f"the invitation is for round {parameters.round_number}, and {self.round_number} is due",
                "wait for the invitation that is due",
            )
        for member in parameters.roster:
            if self.known.get(member.name) != member.public:
                raise PolicyRefused(
                    f"client {member.name!r} with key {member.public.hex()[:16]}… is not known here",
                    "verify the client and add it to `known`, or stay away",
                )
        self._check_floors(parameters)
        self._check_rule(parameters.colluders)
        parameters.check_context(self.context)

    def _check_floors(self, parameters: Offer) -> None:
        lowest = self.lowest_threshold
        floors = (
            ("clients", parameters.clients, self.fewest_clients),
            (
                "survivors",
                parameters.fewest_survivors,
                majority(parameters.clients, parameters.colluders) if lowest is None else lowest,
            ),
            ("honest clients in a sum", parameters.fewest_honest, self.lowest_honest),
            ("colluders withstood", parameters.colluders, self.colluders),
            ("noise variance", parameters.noise_variance, self.lowest_noise_variance),
        )
        for what, offered, floor in floors:
            if offered < floor:
                raise PolicyRefused(
                    f"{what}: {offered} offered, at least {floor} wanted", "stay away, or lower the floor knowingly"
                )
        if self.highest_magnitude is not None and parameters.magnitude > self.highest_magnitude:
            raise PolicyRefused(
                f"magnitude {parameters.magnitude}, at most {self.highest_magnitude} wanted",
                "stay away, or widen the range knowingly",
            )

    def _check_rule(self, colluders: int) -> None:
        if self.diary is None:
            return
        try:
            self.diary.rule.check_colluders(colluders)
        except BadParameter as error:
            raise PolicyRefused(
                f"the invitation allows for more colluders than the diary's rule: {error.what}", error.remedy
            ) from error
