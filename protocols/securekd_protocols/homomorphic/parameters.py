"""What the participants of one homomorphic session agree on, and the parameters of encryption that follow from it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

from securekd_protocols.errors import PolicyRefused
from securekd_protocols.homomorphic.scheme import Scheme, SchemeName, choose_scheme
from securekd_protocols.keys import KEY_BYTES, Label
from securekd_protocols.parameters import (
    NONCE_BYTES,
    Member,
    check_context,
    check_roster,
    check_terms,
    index_on,
    read_roster,
    write_roster,
)
from securekd_protocols.policy import LocalPolicy
from securekd_protocols.thresholds import check_survivors
from securekd_protocols.wire import Bytes, Reader, Writer

_SCHEMES = {name.code: name for name in SchemeName}


@dataclass(frozen=True)
class HomomorphicParameters:
    """Everything that clients, server and decryptor of one session agree on.

    Attributes:
        roster: The invited clients, 3 to 10,000. A client's index is its place in this tuple.
        server_public: The server's Ed25519 identity key.
        decryptor_public: The decryptor's. It must be another's than the server's or any client's.
        scheme_name: BFV or CKKS; all numbers follow, see `scheme`.
        threshold: Fewest summands of a sum that is opened; at least two more than colluders.
        colluders: How many clients may work with the server.
        vector_length: Entries of every input, 1 to 2^28.
        magnitude: Largest absolute value of an entry before noise.
        round_number: The caller's counter, 0 to 2^64 − 1.
        nonce: 32 bytes that the server draws for this session.
        context: SHA-256 of whatever else clients must agree on; see `hash_context`.
        noise_tail: Largest absolute value of the integer noise that a client adds to an entry.
        noise_variance: Least variance of that noise in each entry, in squared steps, rounded down.

    Raises:
        ProtocolError: On construction, one of `BadParameter`, `TooFewClients`, `ThresholdUnsafe`, `DuplicateKey`,
            `NoParametersFit`.
    """

    roster: tuple[Member, ...]
    server_public: bytes
    decryptor_public: bytes
    scheme_name: SchemeName
    threshold: int
    colluders: int
    vector_length: int
    magnitude: int
    round_number: int
    nonce: bytes
    context: bytes
    noise_tail: int = 0
    noise_variance: int = 0

    def __post_init__(self) -> None:
        check_survivors(self.clients, self.threshold, self.colluders)
        check_terms(self, 2**62 - 1)
        check_roster(self.roster, {"server": self.server_public, "decryptor": self.decryptor_public})
        _ = self.scheme  # raises where there is none

    @property
    def clients(self) -> int:
        """How many clients are invited."""
        return len(self.roster)

    @property
    def bound(self) -> int:
        """Largest absolute value of an input's entry, noise included."""
        return self.magnitude + self.noise_tail

    @property
    def fewest_survivors(self) -> int:
        """The smallest sum that can be opened."""
        return self.threshold

    @property
    def fewest_honest(self) -> int:
        """Fewest honest inputs in it: scale noise for these."""
        return self.threshold - self.colluders

    @cached_property
    def scheme(self) -> Scheme:
        """The parameters of encryption, which everybody computes for themselves."""
        return choose_scheme(self.scheme_name, self.clients, self.bound, self.vector_length)

    @property
    def ciphertexts(self) -> int:
        """How many ciphertexts a client sends."""
        return self.scheme.ciphertexts(self.vector_length)

    @property
    def input_bytes(self) -> int:
        """Bytes of a client's ciphertexts."""
        return self.ciphertexts * self.scheme.ciphertext_bytes

    @cached_property
    def encoded(self) -> bytes:
        """The canonical encoding, which is also the body of the invitation."""
        writer = Writer().fixed(self.nonce).fixed(self.context).fixed(self.server_public).fixed(self.decryptor_public)
        writer.integer(self.round_number, 8).integer(self.threshold, 2).integer(self.colluders, 2)
        writer.integer(self.vector_length, 4).integer(self.magnitude, 8).integer(self.noise_tail, 8)
        writer.integer(self.noise_variance, 8).fixed(_encoded_scheme(self.scheme))
        write_roster(writer, self.roster)
        return writer.finish()

    @classmethod
    def decode(cls, data: Bytes) -> HomomorphicParameters:
        """Read the canonical encoding.

        Raises:
            MalformedMessage: It is none, or its encryption parameters are not those that follow from the rest.
            ProtocolError: It is one, of parameters that are not safe.
        """
        reader = Reader(data, "homomorphic session parameters")
        nonce, context = reader.fixed(NONCE_BYTES), reader.fixed(32)
        server, decryptor = reader.fixed(KEY_BYTES), reader.fixed(KEY_BYTES)
        round_number, threshold, colluders = reader.integer(8), reader.integer(2), reader.integer(2)
        length, magnitude, tail, variance = reader.integer(4), reader.integer(8), reader.integer(8), reader.integer(8)
        code, numbers = reader.integer(1), reader.blob(256)
        roster = read_roster(reader)
        reader.finish()
        if code not in _SCHEMES:
            raise reader.malformed(f"unknown scheme {code}")
        base = (roster, server, decryptor, _SCHEMES[code], threshold, colluders, length, magnitude, round_number)
        parameters = cls(*base, nonce, context, tail, variance)
        if _encoded_scheme(parameters.scheme) != bytes([code]) + Writer().blob(numbers).finish():
            raise reader.malformed("encryption parameters that this release would not choose")
        return parameters

    @cached_property
    def session_id(self) -> bytes:
        """SHA-256 over the version's label and everything above."""
        return hashlib.sha256(Label.HOMOMORPHIC_SESSION.value + self.encoded).digest()

    def index_of(self, public: bytes) -> int:
        """The index of the client with this identity key, or `UnknownClient`."""
        return index_on(self.roster, public)

    def check_context(self, context: bytes) -> None:
        """Refuse parameters that are for another context (unhashed), with `ContextMismatch`."""
        check_context(self.context, context)


@dataclass(frozen=True)
class HomomorphicPolicy:
    """What a client, or a decryptor, insists on.

    Attributes:
        local: Floors and expectations, as for any session. A decryptor's diary keeps it from opening cohorts that are
            too close to each other; a client's counts the invitations that it accepts, and no more, since a client is
            not told who survives.
        decryptor_public: Ed25519 identity key of the one decryptor that is trusted not to work with the server.
        longest_vector: Longest vector that memory is given for.
    """

    local: LocalPolicy
    decryptor_public: bytes
    longest_vector: int = 2**24

    def check(self, parameters: HomomorphicParameters) -> None:
        """Refuse parameters that ask for less.

        Raises:
            PolicyRefused: As `LocalPolicy.check_offer`, another decryptor is named, or vectors are too long.
            ContextMismatch: The session is about something else.
        """
        if parameters.decryptor_public != self.decryptor_public:
            raise PolicyRefused("the invitation names another decryptor", "verify it, or stay away")
        if parameters.vector_length > self.longest_vector:
            raise PolicyRefused(
                f"vectors of {parameters.vector_length} entries, at most {self.longest_vector} wanted",
                "stay away, or raise the limit knowingly",
            )
        self.local.check_offer(parameters)


def _encoded_scheme(scheme: Scheme) -> bytes:
    """The scheme's byte and its numbers, so that who computes other ones is in another session."""
    numbers = Writer().integer(len(scheme.moduli), 1)
    for number in (*scheme.moduli, scheme.special, scheme.plain_modulus, scheme.scale, scheme.slot_modulus):
        numbers.integer(number, 8)
    numbers.integer(scheme.digits, 1).integer(scheme.tags, 1)
    return Writer().integer(scheme.name.code, 1).blob(numbers.finish()).finish()
