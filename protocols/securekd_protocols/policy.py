"""What one client insists on, whatever the server would like.

A session's parameters reach a client from the server, which may be malicious. They are safe in themselves
(`SessionParameters` sees to that); whether they are safe *enough for this client* is decided here, before it sends
its first byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from securekd_protocols.errors import PolicyRefused
from securekd_protocols.parameters import FEWEST_CLIENTS, SessionParameters


@dataclass(frozen=True)
class LocalPolicy:
    """A client's own floors and expectations.

    Attributes:
        server_public: Ed25519 identity key of the one server whose invitations count.
        known: Identity key by name of every client that this one is ready to be summed with. A roster that the server
            could fill with keys of its own invention would protect nobody.
        context: What this client answers for (for distillation: transfer-set indices and class map), unhashed.
        round_number: The round that is due.
        colluders: Fewest colluding clients that the session must withstand.
        fewest_clients: Smallest roster.
        lowest_threshold: Fewest survivors that a sum may have.
    """

    server_public: bytes
    known: Mapping[str, bytes]
    context: bytes = b""
    round_number: int = 0
    colluders: int = 1
    fewest_clients: int = FEWEST_CLIENTS
    lowest_threshold: int = FEWEST_CLIENTS

    def check(self, parameters: SessionParameters) -> None:
        """Refuse parameters that ask for less.

        Raises:
            PolicyRefused: The server, round, roster, threshold or corruption bound is not as this client wants it.
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
        floors = (
            ("clients", parameters.clients, self.fewest_clients),
            ("threshold", parameters.threshold, self.lowest_threshold),
            ("colluders withstood", parameters.colluders, self.colluders),
        )
        for what, offered, floor in floors:
            if offered < floor:
                raise PolicyRefused(
                    f"{what}: {offered} offered, at least {floor} wanted", "stay away, or lower the floor knowingly"
                )
        parameters.check_context(self.context)
