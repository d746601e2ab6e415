"""What can go wrong, by name, and by whose fault.

Every refusal is a `ProtocolError`. `LocalProtocolError` says that the caller on this side asked for something that the
protocol does not allow; `RemoteProtocolError` says that a peer, or the network in its name, sent something that it must
not. Catch classes, never texts: a text is for people, and tells what was wrong and what to do about it.
"""

# ruff: noqa: N818 - the names say what happened; that they are errors is said by their base.

from __future__ import annotations


class ProtocolError(Exception):
    """Base of every refusal of this package.

    Args:
        what: What was wrong, with the value that was wrong.
        remedy: What the reader of the error can do now.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}; {remedy}")
        self.what = what
        self.remedy = remedy


class LocalProtocolError(ProtocolError):
    """This side asked for what the protocol does not allow."""


class RemoteProtocolError(ProtocolError):
    """A peer, or the network in its name, sent what the protocol does not allow."""


# --- ours: parameters -------------------------------------------------------------------------------------------------


class BadParameter(LocalProtocolError):
    """A session parameter has the wrong size, type or range."""


class TooFewClients(LocalProtocolError):
    """Fewer clients than any sum can protect: of two, each learns the other's input by subtraction."""


class ThresholdUnsafe(LocalProtocolError):
    """The threshold lets a server split the clients in two halves, or leaves one honest client alone in the sum."""


class GraphUnsafe(LocalProtocolError):
    """A k-regular graph has too few neighbours or too low a threshold for the stated colluders and dropouts."""


class RingTooSmall(LocalProtocolError):
    """Clients times magnitude and noise tail reach half of the ring, so that the sum could wrap around."""


class NoParametersFit(LocalProtocolError):
    """No parameters of homomorphic encryption keep a sum of this size exact."""


class SchemeUnavailable(LocalProtocolError):
    """The library that computes an encryption scheme is not installed, or has no build for this Python."""


class UnknownClient(LocalProtocolError):
    """The caller named a client, or holds an identity, that is not on the roster."""


class UnknownStage(LocalProtocolError):
    """The caller named a stage that the protocol does not have."""


# --- ours: inputs and calls -------------------------------------------------------------------------------------------


class NotIntegers(LocalProtocolError):
    """The input vector does not hold integers; floats are encoded by `FixedPoint` first."""


class WrongLength(LocalProtocolError):
    """The input is not a one-dimensional vector of the agreed length."""


class ValueOutOfRange(LocalProtocolError):
    """A value lies outside the declared range."""


class NotFinite(LocalProtocolError):
    """A value is NaN or infinite."""


class SecondInput(LocalProtocolError):
    """A second vector was given to one session; its masks would then be used twice."""


class CallOutOfOrder(LocalProtocolError):
    """A method was called in a state that does not allow it."""


class BadSavedState(LocalProtocolError):
    """Bytes that are no saved client of this release, or not one of this identity."""


class AnsweredBefore(LocalProtocolError):
    """This client has already answered another story in this session: it was restored from an old state."""


class SignedBefore(AnsweredBefore):
    """This client has already signed another survivor set in this session."""


class CopyRefused(LocalProtocolError):
    """What may happen once would happen once in each copy, of a session's participant as of a diary."""


# --- theirs: single messages ------------------------------------------------------------------------------------------


class MalformedMessage(RemoteProtocolError):
    """Bytes that are not the one canonical encoding of a message of this session."""


class UnknownVersion(MalformedMessage):
    """A message of a version of the protocol that this package does not speak."""


class UnknownSender(RemoteProtocolError):
    """A message in the name of somebody who has no part in this session or stage."""


class BadSignature(RemoteProtocolError):
    """A message whose signature, or tag, is not its named sender's."""


class ReplayedMessage(RemoteProtocolError):
    """A message of another session, or the same message again."""


class OutOfOrder(RemoteProtocolError):
    """A message in a state in which it must not come; it need not be its named sender's."""


class SecondUnmaskRequest(OutOfOrder):
    """The server asked again for unmasking shares; a second answer could open a single client's input."""


class TranscriptMismatch(RemoteProtocolError):
    """The sender has seen other keys or other participants than this side has."""


class InconsistentSurvivors(TranscriptMismatch):
    """Clients were told different survivor sets; the mark of a server that wants both shares of somebody."""


class LiveClientCalledDead(RemoteProtocolError):
    """The server tells a client which has delivered its input that it has dropped out."""


class ContextMismatch(RemoteProtocolError):
    """The server invites to a session about another context than this client's, say another transfer set."""


class PolicyRefused(RemoteProtocolError):
    """The server invites to a session that this client's own policy does not accept."""


class SecondOpening(OutOfOrder):
    """The decryptor was asked again to open a sum of this session."""


class CohortRefused(PolicyRefused):
    """A survivor set so close to an earlier one that the difference of the two sums would concern a few clients."""


class TooManyRestarts(PolicyRefused):
    """One more invitation for a round than this client's policy allows it to accept."""


# --- theirs: keys and shares ------------------------------------------------------------------------------------------


class LowOrderPoint(RemoteProtocolError):
    """A public key of low order: every shared secret with it is zero (RFC 7748, section 6.1)."""


class NonCanonicalKey(RemoteProtocolError):
    """A public key that is a second spelling of another one, by which a duplicate could hide."""


class DuplicateKey(RemoteProtocolError):
    """The same public key was advertised twice."""


class BrokenCommitment(RemoteProtocolError):
    """A revealed part of the graph seed is not what was committed to."""


class WithheldReveal(RemoteProtocolError):
    """Somebody who has committed to a part of the graph seed does not reveal it; who sees the seed may not choose."""


class TamperedInput(RemoteProtocolError):
    """A masked input whose authentication tag does not hold."""


class TamperedShare(RemoteProtocolError):
    """A share that does not authenticate, or that recovers something else than its owner committed to."""


# --- theirs: ciphertexts ----------------------------------------------------------------------------------------------


class NotAPublicKey(MalformedMessage):
    """Key material that is not one public key of this session: too long (a secret key beside it?), short or empty."""


class BadCiphertext(MalformedMessage):
    """Ciphertexts of the wrong number or size, or with a residue that is not reduced."""


class TransparentCiphertext(RemoteProtocolError):
    """A key or a ciphertext with a polynomial of zeros, under which a plaintext can be read without any key."""


class NotTheSurvivorsSum(RemoteProtocolError):
    """What was decrypted is not the sum of exactly the named clients' vectors: its tags do not hold."""


class SumOffGrid(RemoteProtocolError):
    """A decrypted slot is not close to an integer, or a sum is out of range; nothing of it is released."""


# --- nobody's fault, but the end --------------------------------------------------------------------------------------


class TooFewSurvivors(RemoteProtocolError):
    """So many clients have dropped out that the sum can not, or must not, be opened."""
