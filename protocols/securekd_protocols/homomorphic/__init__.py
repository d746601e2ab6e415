"""Sums under homomorphic encryption: the server adds ciphertexts, and a decryptor opens one sum, once.

BFV (exact) and CKKS (approximate arithmetic, made exact by rounding), through Microsoft SEAL as TenSEAL ships it; the
extra `ckks` installs it. Client, server and decryptor are state machines that take bytes and give bytes, as in the
masking protocol. `simulate_homomorphic` runs a whole session in one process. `protocols/HOMOMORPHIC.md` is the
specification.
"""

from securekd_protocols.homomorphic.client import HomomorphicClient, HomomorphicClientState
from securekd_protocols.homomorphic.decryptor import Decryptor, DecryptorState
from securekd_protocols.homomorphic.messages import DECRYPTOR, HomomorphicSum
from securekd_protocols.homomorphic.parameters import HomomorphicParameters, HomomorphicPolicy
from securekd_protocols.homomorphic.scheme import Scheme, SchemeName, choose_scheme
from securekd_protocols.homomorphic.seal import require_seal
from securekd_protocols.homomorphic.server import HomomorphicServer, HomomorphicServerState
from securekd_protocols.homomorphic.simulation import HomomorphicResult, HomomorphicSettings, simulate_homomorphic

__all__ = [
    "DECRYPTOR",
    "Decryptor",
    "DecryptorState",
    "HomomorphicClient",
    "HomomorphicClientState",
    "HomomorphicParameters",
    "HomomorphicPolicy",
    "HomomorphicResult",
    "HomomorphicServer",
    "HomomorphicServerState",
    "HomomorphicSettings",
    "HomomorphicSum",
    "Scheme",
    "SchemeName",
    "choose_scheme",
    "require_seal",
    "simulate_homomorphic",
]
