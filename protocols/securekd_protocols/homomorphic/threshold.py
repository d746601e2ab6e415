"""BFV without a decryptor: n parties make the key together, and all n have to help to open a sum (extra `threshold`).

    shares      each party in turn adds its part to the joint key (`extend_key`)
    inputs      each party encrypts its vector under the joint key (`encrypt`)
    partials    each party adds all inputs up by itself, and decrypts its part of the sum, once (`partially_open`)
    `open_sum`  puts the parts together

It computes with OpenFHE, whose wheels exist for few Python versions. What holds: whoever does not have all n secret
keys learns the sum and nothing else, **as long as everybody follows the protocol** (semi-honest parties and server;
the joint key is made in turn, and OpenFHE has no common random string against who chooses its part by the others').
Partial decryptions are flooded with noise, uniform over 120 bits or more. All n must last to the end: one dropout ends
the session.

OpenFHE parses what others have sent, so everything is signed by a known identity, capped in size, and parsed first in a
process of its own, which may die of it.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from securekd_protocols.errors import (
    BadCiphertext,
    BadParameter,
    BadSignature,
    CallOutOfOrder,
    MalformedMessage,
    NoParametersFit,
    OutOfOrder,
    ReplayedMessage,
    SchemeUnavailable,
    SecondInput,
    SecondOpening,
    SumOffGrid,
    TooFewClients,
    TooFewSurvivors,
)
from securekd_protocols.homomorphic.packing import possible_sum
from securekd_protocols.homomorphic.scheme import is_prime
from securekd_protocols.keys import SIGNATURE_BYTES, Identity, Label, signature_holds
from securekd_protocols.parameters import Member, check_roster, index_on, sized
from securekd_protocols.ring import check_vector
from securekd_protocols.thresholds import FEWEST_CLIENTS
from securekd_protocols.turns import TakesTurns, in_turn
from securekd_protocols.wire import Bytes, Reader, Writer

_SLOT_STEP = 1 << 17  # a plain modulus that is 1 modulo this has slots in every ring up to degree 65,536
_MOST_PLAIN_BITS = 48
"""OpenFHE 1.6.1 adds up to two residues modulo t for each prime of q in one double, exact below 2^53, and says nothing
beyond: with four primes values go wrong from 51 bits on, and up to sixteen are sound at 48."""
_FLOODED_BITS = 58
"""Parts are flooded modulo q without its first prime of 60 bits, in which n·t has to have room."""
_SPARE_BITS = 20
"""A plain modulus is this much larger than any sum if it may be, so that wrong values show as impossible ones."""
_MOST_BYTES_A_RING = 1 << 21  # no key and no ciphertext of these parameters is larger
_PATIENCE_S = 600
_CHILD = """
import sys
from openfhe import *
kind = sys.argv[1]
for _ in range(int(sys.argv[2])):
    data = sys.stdin.buffer.read(int.from_bytes(sys.stdin.buffer.read(8), "little"))
    (DeserializePublicKeyString if kind == "key" else DeserializeCiphertextString)(data, BINARY)
"""


class PartKind(IntEnum):
    """What a party has signed."""

    KEY = 1
    INPUT = 2
    PARTIAL = 3


@dataclass(frozen=True)
class ThresholdSetup:
    """What all parties agree on.

    Attributes:
        roster: All parties, at least 3, in the order in which they extend the key; the first leads.
        vector_length: Entries of every input.
        bound: Largest absolute value of an entry, noise included.
        session: 32 fresh bytes.

    Raises:
        TooFewClients, BadParameter, DuplicateKey, NoParametersFit: On construction.
    """

    roster: tuple[Member, ...]
    vector_length: int
    bound: int
    session: bytes

    def __post_init__(self) -> None:
        if len(self.roster) < FEWEST_CLIENTS:
            raise TooFewClients(f"{len(self.roster)} parties", f"bring at least {FEWEST_CLIENTS} together")
        if self.vector_length < 1 or self.bound < 1:
            raise BadParameter(f"length {self.vector_length}, bound {self.bound}", "choose 1 or more for each")
        check_roster(self.roster, {})
        sized("session", self.session, 32)
        if (2 * self.parties * self.bound).bit_length() >= self._most_plain_bits:
            raise NoParametersFit(f"{self.parties} entries up to ±{self.bound}", "take a coarser encoding step")

    @property
    def parties(self) -> int:
        """How many there are."""
        return len(self.roster)

    @property
    def _most_plain_bits(self) -> int:
        return min(_MOST_PLAIN_BITS, _FLOODED_BITS - self.parties.bit_length())

    @property
    def plain_modulus(self) -> int:
        """A prime that has slots, above every sum, twice over: no sum can wrap around."""
        least = min((2 * self.parties * self.bound) << _SPARE_BITS, 1 << (self._most_plain_bits - 1))
        candidate = least // _SLOT_STEP * _SLOT_STEP + _SLOT_STEP + 1
        while not is_prime(candidate):
            candidate += _SLOT_STEP
        return candidate


class ThresholdParty(TakesTurns):
    """One party in one session.

    Args:
        identity: Its signing key; its place on the roster is its index.
        setup: What was agreed on.

    Raises:
        SchemeUnavailable: OpenFHE does not load in this Python.
        UnknownClient: The identity is not on the roster.
    """

    def __init__(self, identity: Identity, setup: ThresholdSetup) -> None:
        super().__init__()
        self._index = index_on(setup.roster, identity.public)
        self._identity, self._setup = identity, setup
        self._fhe, self._context = _context(setup)
        self._secret: Any = None
        self._encrypted = self._opened = False

    @in_turn
    def extend_key(self, before: Bytes | None) -> bytes:
        """Add this party's part to the joint key.

        Args:
            before: What the party before it gave; None for the first.

        Raises:
            CallOutOfOrder: It has given its part already, or the first is missing.
            RemoteProtocolError: `before` is not the party before's.
        """
        if self._secret is not None or (before is None) != (self._index == 0):
            raise CallOutOfOrder("the key is extended once by each, in the order of the roster", "ask in that order")
        if before is None:
            pair = self._context.KeyGen()
        else:
            body = _verified(self._setup, PartKind.KEY, self._index - 1, before)
            _survives("key", [body])
            pair = self._context.MultipartyKeyGen(self._fhe.DeserializePublicKeyString(body, self._fhe.BINARY))
        self._secret = pair.secretKey
        return self._signed(PartKind.KEY, self._fhe.Serialize(pair.publicKey, self._fhe.BINARY))

    @in_turn
    def encrypt(self, joint_key: Bytes, vector: NDArray[np.signedinteger]) -> bytes:
        """Encrypt this party's vector, once.

        Args:
            joint_key: What the last party on the roster gave.
            vector: Integers of shape (vector_length,), within ±bound.

        Raises:
            SecondInput: It has encrypted one already.
            NotIntegers, WrongLength, ValueOutOfRange: See `ring.check_vector`.
            RemoteProtocolError: The key is not the last party's.
        """
        if self._encrypted:
            raise SecondInput("this session already has its input", "use a new session for another vector")
        values = check_vector(vector, self._setup.vector_length, self._setup.bound).astype(np.int64)
        body = _verified(self._setup, PartKind.KEY, self._setup.parties - 1, joint_key)
        _survives("key", [body])
        key = self._fhe.DeserializePublicKeyString(body, self._fhe.BINARY)
        writer = Writer()
        slots = self._context.GetRingDimension()
        for start in range(0, len(values), slots):
            plain = self._context.MakePackedPlaintext(values[start : start + slots].tolist())
            writer.blob(self._fhe.Serialize(self._context.Encrypt(key, plain), self._fhe.BINARY))
        self._encrypted = True
        return self._signed(PartKind.INPUT, writer.finish())

    @in_turn
    def partially_open(self, inputs: Sequence[Bytes]) -> bytes:
        """Add everybody's inputs up, and decrypt this party's part of the sum, once.

        Args:
            inputs: What each party's `encrypt` gave, in the order of the roster. That a server adds for the parties is
                not offered: it could have a single input opened.

        Raises:
            SecondOpening: It has done so before.
            TooFewSurvivors: An input is missing.
            RemoteProtocolError: An input is not what its party has sent.
        """
        setup = self._setup
        if self._opened:
            raise SecondOpening("this party has opened its part of a sum already", "run a new session")
        if len(inputs) != setup.parties:
            raise TooFewSurvivors(f"{len(inputs)} inputs of {setup.parties} parties", "all of them are needed")
        bodies = [_verified(setup, PartKind.INPUT, index, data) for index, data in enumerate(inputs)]
        columns = list(zip(*(self._chunks(body) for body in bodies), strict=True))
        _survives("ciphertext", [one for column in columns for one in column])
        self._opened = True
        open_part = self._context.MultipartyDecryptMain if self._index else self._context.MultipartyDecryptLead
        writer = Writer()
        for column in columns:
            total, *others = (self._fhe.DeserializeCiphertextString(one, self._fhe.BINARY) for one in column)
            for other in others:
                total = self._context.EvalAdd(total, other)
            (part,) = open_part([total], self._secret)
            writer.blob(self._fhe.Serialize(part, self._fhe.BINARY))
        self._secret = None
        return self._signed(PartKind.PARTIAL, writer.finish())

    def _chunks(self, body: bytes) -> list[bytes]:
        return _chunks(self._setup, self._context.GetRingDimension(), body)

    def _signed(self, kind: PartKind, body: bytes) -> bytes:
        writer = Writer().integer(kind, 1).integer(self._index, 2).fixed(self._setup.session).blob(body)
        signature = self._identity.sign(_digest(kind, self._index, self._setup.session, body))
        return writer.fixed(signature).finish()


def open_sum(setup: ThresholdSetup, partials: Sequence[Bytes]) -> NDArray[np.int64]:
    """Put the parts together, in the order of the roster; int64, shape (vector_length,).

    Raises:
        TooFewSurvivors: A part is missing.
        RemoteProtocolError: A part is not what its party has sent.
    """
    if len(partials) != setup.parties:
        raise TooFewSurvivors(f"{len(partials)} parts of {setup.parties}", "all of them are needed")
    fhe, context = _context(setup)
    slots = context.GetRingDimension()
    bodies = [_verified(setup, PartKind.PARTIAL, index, data) for index, data in enumerate(partials)]
    columns = list(zip(*(_chunks(setup, slots, body) for body in bodies), strict=True))
    _survives("ciphertext", [one for column in columns for one in column])
    found: list[int] = []
    for column in columns:
        plain = context.MultipartyDecryptFusion([fhe.DeserializeCiphertextString(one, fhe.BINARY) for one in column])
        wanted = min(slots, setup.vector_length - len(found))
        plain.SetLength(wanted)
        found += plain.GetPackedValue()[:wanted]
    total = np.array(found, np.int64)
    if not possible_sum(total, setup.parties, setup.bound):
        raise SumOffGrid(
            f"an entry that no sum of {setup.parties} vectors within ±{setup.bound} has", "run a new session"
        )
    return total


def simulate_threshold(vectors: Mapping[str, NDArray[np.signedinteger]], bound: int) -> NDArray[np.int64]:
    """Run a session of all parties in one process; see the module for what holds.

    Raises:
        ProtocolError: Whatever the session raises.
    """
    identities = {name: Identity.generate(os.urandom) for name in vectors}
    roster = tuple(Member(name, identity.public) for name, identity in identities.items())
    length = len(next(iter(vectors.values()), np.zeros(0)))
    setup = ThresholdSetup(roster, length, bound, os.urandom(32))
    parties = [ThresholdParty(identity, setup) for identity in identities.values()]
    key = parties[0].extend_key(None)
    for party in parties[1:]:
        key = party.extend_key(key)
    inputs = [party.encrypt(key, vector) for party, vector in zip(parties, vectors.values(), strict=True)]
    return open_sum(setup, [party.partially_open(inputs) for party in parties])


def require_openfhe() -> Any:
    """OpenFHE's module, or `SchemeUnavailable` with what would help."""
    try:
        import openfhe
    except ImportError as error:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise SchemeUnavailable(
            f"OpenFHE does not load in Python {version} here: {error}",
            "its wheels are built on Ubuntu 22.04 for Python 3.10 and on Ubuntu 24.04 (glibc 2.39) for Python 3.12; "
            "use Python 3.12 there with pip install 'securekd[threshold]', or a decryptor (aggregation = \"bfv\")",
        ) from error
    return openfhe


def _context(setup: ThresholdSetup) -> tuple[Any, Any]:
    fhe = require_openfhe()
    parameters = fhe.CCParamsBFVRNS()
    parameters.SetPlaintextModulus(setup.plain_modulus)
    parameters.SetMultiplicativeDepth(0)
    parameters.SetEvalAddCount(setup.parties)
    parameters.SetSecurityLevel(fhe.HEStd_128_classic)
    parameters.SetThresholdNumOfParties(setup.parties)
    parameters.SetMultipartyMode(fhe.NOISE_FLOODING_MULTIPARTY)
    context = fhe.GenCryptoContext(parameters)
    for feature in (fhe.PKE, fhe.KEYSWITCH, fhe.LEVELEDSHE, fhe.MULTIPARTY):
        context.Enable(feature)
    return fhe, context


def _chunks(setup: ThresholdSetup, slots: int, body: bytes) -> list[bytes]:
    reader = Reader(body, "ciphertexts")
    chunks = [reader.blob(_MOST_BYTES_A_RING) for _ in range(-(-setup.vector_length // slots))]
    reader.finish()
    return chunks


def _digest(kind: PartKind, index: int, session: bytes, body: bytes) -> bytes:
    head = bytes([kind]) + index.to_bytes(2, "little") + session
    return Label.THRESHOLD_PART.value + hashlib.sha256(head + hashlib.sha256(body).digest()).digest()


def _verified(setup: ThresholdSetup, kind: PartKind, index: int, data: Bytes) -> bytes:
    """What a party has signed, before anything in it is looked at."""
    cap = _MOST_BYTES_A_RING * (1 + setup.vector_length // 1024)
    reader = Reader(data, kind.name.lower())
    found, sender, session = reader.integer(1), reader.integer(2), reader.fixed(32)
    body, signature = reader.blob(cap), reader.fixed(SIGNATURE_BYTES)
    reader.finish()
    if session != setup.session:
        raise ReplayedMessage(f"{kind.name} of another session", "drop it")
    if (found, sender) != (kind, index):
        raise OutOfOrder(f"kind {found} of party {sender} where {kind.name} of {index} belongs", "drop it")
    if not signature_holds(setup.roster[index].public, signature, _digest(kind, index, session, body)):
        raise BadSignature(f"{kind.name} in the name of party {index} is not signed by it", "drop it")
    return body


def _survives(kind: str, blobs: Sequence[bytes]) -> None:
    """Parse bytes in a process that may die; refuse them if it does."""
    fed = b"".join(len(blob).to_bytes(8, "little") + blob for blob in blobs)
    command = [sys.executable, "-c", _CHILD, kind, str(len(blobs))]
    error = MalformedMessage if kind == "key" else BadCiphertext
    try:
        done = subprocess.run(command, input=fed, capture_output=True, timeout=_PATIENCE_S)  # noqa: S603 - our own
    except subprocess.TimeoutExpired as expired:
        raise error(f"a {kind} that OpenFHE reads for over {_PATIENCE_S} s", "trust its signer no further") from expired
    if done.returncode:
        raise error(f"a {kind} that OpenFHE does not read (exit {done.returncode})", "trust its signer no further")
