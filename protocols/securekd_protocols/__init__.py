"""Secure aggregation that can be embedded anywhere: a server learns the sum of its clients' vectors and nothing else.

Pairwise masking after Bonawitz et al. 2017 ("Practical Secure Aggregation for Privacy-Preserving Machine Learning"),
along k-regular graphs after Bell et al. 2020 ("Secure Single-Server Aggregation with (Poly)Logarithmic Overhead"), as
state machines that take bytes and give bytes; no network, no clock, no dependency but numpy and cryptography.

`simulate` runs a whole session in one process. `MaskingClient` and `MaskingServer` are what another stack drives.
`FixedPoint` turns floats into the integers that a session sums.
"""

from securekd_protocols import errors
from securekd_protocols.diary import CohortRule, Diary
from securekd_protocols.errors import LocalProtocolError, ProtocolError, RemoteProtocolError
from securekd_protocols.fixed_point import FixedPoint
from securekd_protocols.graph_rule import GraphChoice, GraphDemand, choose_graph
from securekd_protocols.keys import Identity
from securekd_protocols.masking.client import MaskingClient
from securekd_protocols.masking.saved import SecretState
from securekd_protocols.masking.server import MaskedSum, MaskingServer, Outgoing
from securekd_protocols.parameters import Member, RegularGraph, SessionParameters, hash_context
from securekd_protocols.policy import LocalPolicy
from securekd_protocols.randomness import KeystreamRandomness
from securekd_protocols.ring import smallest_ring
from securekd_protocols.simulation import Policy, SessionResult, simulate
from securekd_protocols.states import ClientState, ServerState, Stage
from securekd_protocols.thresholds import recommended_threshold

__all__ = [
    "ClientState",
    "CohortRule",
    "Diary",
    "FixedPoint",
    "GraphChoice",
    "GraphDemand",
    "Identity",
    "KeystreamRandomness",
    "LocalPolicy",
    "LocalProtocolError",
    "MaskedSum",
    "MaskingClient",
    "MaskingServer",
    "Member",
    "Outgoing",
    "Policy",
    "ProtocolError",
    "RegularGraph",
    "RemoteProtocolError",
    "SecretState",
    "ServerState",
    "SessionParameters",
    "SessionResult",
    "Stage",
    "choose_graph",
    "errors",
    "hash_context",
    "recommended_threshold",
    "simulate",
    "smallest_ring",
]
