"""Which ring, which moduli, which scale: chosen from the session's size, with the proof that the sum comes out exact.

Nobody is asked for parameters. `choose_scheme` takes the number of clients, the bound on entries and the vector's
length, and gives the cheapest parameters under which every sum of the clients' integers is decrypted to those very
integers except with probability 2⁻⁴⁰; where there are none, it says so.

All ciphertexts live in ℤ_q[X]/(X^4096 + 1) with ternary secrets, and q times the special prime has at most 104 bits.
The HomomorphicEncryption.org standard (Albrecht et al. 2018, table 1, ternary secret) allows 109 bits at 128-bit
security. The special prime serves encryption alone: SEAL encrypts modulo q·P and divides by P, which leaves little of
the fresh error but a rounding.

In BFV the plaintext modulus p is one of the primes of q. So Δ = q/p is whole, nothing of a plaintext is rounded, and
whatever wraps around modulo p is a multiple of q: the noise of a sum has nothing to do with what is in it.

Notation of the proofs: N = 4096 coefficients, n clients, s the secret (N values in {−1, 0, 1}), ŝ(ζ) its value at ζ.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from itertools import product

from securekd_protocols.errors import BadParameter, NoParametersFit

DEGREE = 4096
SPECIAL_BITS = 40
MOST_MODULUS_BITS = 109
TAG_BITS = 80
FAILURE_BITS = 40
_FRESH_ERROR = 21 * (1 + 2 * DEGREE)
"""Largest coefficient of e₀ + u·e₁ + s·e₂: SEAL's centred binomial errors are at most 21, u and s ternary."""
_BFV_SLOT_BITS = (24, 32, 40, 46)
_BFV_SCALE_BITS = (16, 24)
_MOST_BFV_BITS = 64
_CKKS_CHAINS = ((32,), (40,), (48,), (56,))
_SPARE_PLAIN_BITS = 3
"""BFV: SEAL decrypts to the nearest of 8p steps; that and a noise below Δ/4 leave less than 7/16 of a step of p."""
_FEWEST_TAGS = 5  # with coefficients of 16 bits, no fixed combination of slots goes untagged but with 2^-80
_LEAST_SLOT_MODULUS = 1 << 16
GRID_TOLERANCE = 3 / 8
"""CKKS: how far from an integer a decrypted slot may lie. The error stays below 1/4, that of floats below 1/16."""
_FLOAT_ERROR = 2.0**-44
"""Relative to the largest slot: what two transforms of length 4096 in double precision can be off by, with room."""


class SchemeName(Enum):
    """The two schemes, by the word that a configuration uses and the byte that travels."""

    BFV = "bfv"
    CKKS = "ckks"

    @property
    def code(self) -> int:
        """The byte on the wire."""
        return {SchemeName.BFV: 1, SchemeName.CKKS: 2}[self]


@dataclass(frozen=True)
class Scheme:
    """Parameters of one session.

    Attributes:
        name: BFV (Fan and Vercauteren 2012) or CKKS (Cheon et al. 2017).
        moduli: The primes whose product q is the ciphertext modulus. BFV: p, and then Δ = q/p.
        special: The prime P that encryption divides by.
        plain_modulus: BFV: what SEAL decrypts modulo, from which the residue modulo p is rounded. CKKS: 0.
        scale: CKKS: Δ, by which slots are multiplied before they are rounded. BFV: 0.
        clients: n, for which exactness is proved.
        bound: Largest absolute value of an entry of a client's vector.
        digits: Values in one slot, which is a coefficient in BFV, and in CKKS the real or the imaginary part of a slot.
        slot_modulus: The prime p > 2nB modulo which slots are padded and tagged, see `pads`.
        tags: Slots of each ciphertext that are tags: at least five, and slot_modulus^tags ≥ 2⁸⁰.
    """

    name: SchemeName
    moduli: tuple[int, ...]
    special: int
    plain_modulus: int
    scale: int
    clients: int
    bound: int
    digits: int
    slot_modulus: int
    tags: int

    @property
    def radix(self) -> int:
        """BFV: one more than the largest sum of shifted values, so that digits never carry."""
        return 2 * self.clients * self.bound + 1

    @property
    def entries(self) -> int:
        """Slots of a ciphertext that hold values; real parts and imaginary parts count apart in CKKS."""
        return DEGREE - self.tags

    @property
    def widths(self) -> tuple[int, ...]:
        """Bytes of a residue, for each prime of q."""
        return tuple(byte_width(prime) for prime in self.moduli)

    @property
    def ciphertext_bytes(self) -> int:
        """Bytes of one ciphertext: two polynomials, a residue for each coefficient and prime."""
        return 2 * DEGREE * sum(self.widths)

    @property
    def public_key_bytes(self) -> int:
        """Bytes of a public key: two polynomials modulo q·P."""
        return self.ciphertext_bytes + 2 * DEGREE * byte_width(self.special)

    def ciphertexts(self, vector_length: int) -> int:
        """How many ciphertexts hold a vector."""
        return -(-vector_length // (self.entries * self.digits))


def choose_scheme(name: SchemeName, clients: int, bound: int, vector_length: int) -> Scheme:
    """The parameters with the fewest bytes a value under which a sum is exact except with probability 2⁻⁴⁰.

    Args:
        name: Which scheme.
        clients: At least 1.
        bound: Largest absolute value of an entry, noise included, at least 1.
        vector_length: Entries of a vector, at least 1; more of them make the exception likelier.

    Raises:
        NoParametersFit: No parameters of this library keep such a sum exact.
        BadParameter: A number below 1.
    """
    for what, value in (("clients", clients), ("bound", bound), ("vector length", vector_length)):
        if value < 1:
            raise BadParameter(f"{what}: {value}", "pass at least 1")
    build = _bfv if name is SchemeName.BFV else _ckks
    found = list(build(clients, bound, vector_length))
    if not found:
        raise NoParametersFit(
            f"{name.value}: no parameters sum {clients} vectors with entries up to ±{bound} exactly",
            "take a coarser encoding step, a smaller clip or fewer clients"
            + ("" if name is SchemeName.BFV else "; bfv reaches further than ckks"),
        )
    return min(found, key=lambda scheme: (scheme.ciphertexts(vector_length) * scheme.ciphertext_bytes, scheme.digits))


def bfv_noise(clients: int, coefficients: int) -> float:
    """Bound on |noise| in each of a sum's coefficients, except with probability 2⁻⁴⁰ for all of them together.

    For each client: dividing by P rounds both polynomials, which adds ρ₀ + ρ₁·s with ρ uniform on [−½, ½], ρ₁
    independent of s. Given s, that is sub-Gaussian with proxy (1 + ‖s‖)²/12 ≤ (1 + √N)²/12, whatever ρ₀ has to do
    with the rest. The fresh error after division is at most 21(1 + 2N)/P. The plaintext adds nothing, since q/p is
    whole.

    Args:
        clients: n.
        coefficients: How many coefficients the whole sum has.
    """
    rounding = _tail(coefficients) * math.sqrt(clients / 12) * (1 + math.sqrt(DEGREE))
    return rounding + clients * _FRESH_ERROR / (1 << (SPECIAL_BITS - 1))


def ckks_error(clients: int, slots: int) -> float:
    """Bound on the error of real and imaginary part of each slot of a sum, times Δ, except with probability 2⁻⁴⁰.

    A slot is the value at a root ζ of X^N + 1. The real part of ρ̂₀ + ρ̂₁·ŝ is, given s, sub-Gaussian with proxy at
    most (N/2)(1 + |ŝ(ζ)|)²/12, whatever ρ₀ and ρ₁ have to do with each other: Σ cos² over the N powers of ζ is N/2.
    Each part of ŝ(ζ) is sub-Gaussian with proxy N/3 (a uniform ternary variable is strictly sub-Gaussian), so
    |ŝ(ζ)|² ≤ 4NL/3 at all N/2 slots except with probability 2N·e^−L, which is 2⁻⁴² for L = ln(2N·2^42). Rounding a
    plaintext's N coefficients moves a slot by at most N/2, and the fresh error after division by at most
    N·21(1 + 2N)/P.

    Args:
        clients: n.
        slots: How many real values the whole sum has.
    """
    level = math.log(2 * DEGREE) + (FAILURE_BITS + 2) * math.log(2)
    proxy = clients * (DEGREE / 2) * (1 + math.sqrt(4 * DEGREE * level / 3)) ** 2 / 12
    fixed = DEGREE / 2 + DEGREE * _FRESH_ERROR / (1 << (SPECIAL_BITS - 1))
    return _tail(slots) * math.sqrt(proxy) + clients * fixed


def byte_width(prime: int) -> int:
    """Bytes of a residue modulo a prime."""
    return -(-prime.bit_length() // 8)


def _bfv(clients: int, bound: int, vector_length: int) -> Iterator[Scheme]:
    radix = 2 * clients * bound + 1
    for slot_bits, scale_bits in product(_BFV_SLOT_BITS, _BFV_SCALE_BITS):
        modulus, scale = moduli = chain_of((slot_bits, scale_bits))
        digits = _digits(radix, modulus)
        if not digits or slot_bits + scale_bits > _MOST_BFV_BITS:
            continue
        tags = _tags(modulus)
        count = -(-vector_length // ((DEGREE - tags) * digits))
        if scale >= 4 * bfv_noise(clients, count * DEGREE):
            plain = 1 << (slot_bits + _SPARE_PLAIN_BITS)
            yield Scheme(SchemeName.BFV, moduli, _special(), plain, 0, clients, bound, digits, modulus, tags)


def _digits(radix: int, modulus: int) -> int:
    """The most digits that a residue has room for."""
    digits = 0
    while radix ** (digits + 1) <= modulus:
        digits += 1
    return digits


def _ckks(clients: int, bound: int, vector_length: int) -> Iterator[Scheme]:
    modulus = prime_from(max(2 * clients * bound + 1, _LEAST_SLOT_MODULUS))
    tags = _tags(modulus)
    count = -(-vector_length // (DEGREE - tags))
    error = ckks_error(clients, count * DEGREE)
    scale = 1 << math.ceil(math.log2(4 * error))
    reach = clients * modulus / 2
    if reach * _FLOAT_ERROR > 1 / 16:
        return
    for chain in _CKKS_CHAINS:
        moduli = chain_of(chain)
        if math.prod(moduli) > 2 * math.sqrt(2) * (scale * reach + error):
            yield Scheme(SchemeName.CKKS, moduli, _special(), 0, scale, clients, bound, 1, modulus, tags)
            return


def _tags(modulus: int) -> int:
    return max(_FEWEST_TAGS, math.ceil(TAG_BITS / math.log2(modulus)))


def _tail(variables: int) -> float:
    """Standard deviations beyond which any of so many sub-Gaussian variables lies with probability at most 2⁻⁴¹."""
    deviations: float = math.sqrt(2 * (math.log(2 * variables) + (FAILURE_BITS + 1) * math.log(2)))
    return deviations


@lru_cache
def chain_of(bits: tuple[int, ...]) -> tuple[int, ...]:
    """The largest distinct primes of so many bits that are 1 modulo 2N, as number-theoretic transforms want them."""
    found: list[int] = []
    for size in bits:
        candidate = (1 << size) - 2 * DEGREE + 1
        while candidate in found or not is_prime(candidate):
            candidate -= 2 * DEGREE
        found.append(candidate)
    return tuple(found)


def _special() -> int:
    return chain_of((SPECIAL_BITS, SPECIAL_BITS))[1]  # the second, for the first may be in q


@lru_cache
def prime_from(low: int) -> int:
    """The smallest prime from `low` on."""
    while not is_prime(low):
        low += 1
    return low


def is_prime(number: int) -> bool:
    """Whether a number below 2^64 is prime: Miller–Rabin with the bases that decide it (Sinclair's seven)."""
    if number < 2 or number % 2 == 0:
        return number == 2
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in (2, 325, 9375, 28178, 450775, 9780504, 1795265022):
        witness = pow(base, odd, number)
        if base % number == 0 or witness in (1, number - 1):
            continue
        for _ in range(twos - 1):
            witness = witness * witness % number
            if witness == number - 1:
                break
        else:
            return False
    return True
