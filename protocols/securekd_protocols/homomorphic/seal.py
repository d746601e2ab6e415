"""Microsoft SEAL, through TenSEAL: keys, encryption of one ciphertext's slots, decryption of a sum.

SEAL gives and takes objects as files in its own format: a header, the object's description, and at the end its
residues. Only residues leave this module and come into it (`residues`); a description is always one that SEAL itself
has written here. So nothing that a stranger has sent is ever parsed by SEAL, and what it loads is well-formed.
"""

from __future__ import annotations

import math
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from securekd_protocols.errors import SchemeUnavailable, SumOffGrid
from securekd_protocols.homomorphic.packing import Entries
from securekd_protocols.homomorphic.residues import Residues, decode_residues, encode_residues
from securekd_protocols.homomorphic.scheme import DEGREE, GRID_TOLERANCE, Scheme, SchemeName
from securekd_protocols.wire import Bytes

_HEADER = struct.Struct("<HBBBBHQ")  # magic, size of the header, version, subversion, compression, reserved, size
_NO_COMPRESSION, _ZLIB, _ZSTANDARD = 0, 1, 2


class _Engine:
    """SEAL's context for a scheme, and a scratch file of our own through which its objects pass."""

    def __init__(self, scheme: Scheme) -> None:
        self.seal = require_seal()
        self.scheme = scheme
        kind = self.seal.SCHEME_TYPE
        parameters = self.seal.EncryptionParameters(kind.BFV if scheme.name is SchemeName.BFV else kind.CKKS)
        parameters.set_poly_modulus_degree(DEGREE)
        parameters.set_coeff_modulus([self.seal.Modulus(prime) for prime in (*scheme.moduli, scheme.special)])
        if scheme.plain_modulus:
            parameters.set_plain_modulus(self.seal.Modulus(scheme.plain_modulus))
        self.context = self.seal.SEALContext(parameters, True, self.seal.SEC_LEVEL_TYPE.TC128)
        if not self.context.parameters_set():
            raise SchemeUnavailable(
                f"SEAL refuses {scheme}: {self.context.parameters_error_message()}", "report this; it is a defect here"
            )
        self.encoder: Any = self.seal.CKKSEncoder(self.context) if scheme.name is SchemeName.CKKS else None
        self._scratch = tempfile.NamedTemporaryFile(prefix="securekd-seal-")  # noqa: SIM115 - lives as long as this does
        self._version = self._written_version()

    def residues_of(self, thing: Any, primes: int) -> tuple[bytes, Residues]:
        """What SEAL writes of a ciphertext or a public key: its description, and its residues (2, primes, N)."""
        thing.save(self._scratch.name)
        content = _decompressed(Path(self._scratch.name).read_bytes())
        tail = 8 * 2 * primes * DEGREE
        return content[:-tail], np.frombuffer(content[-tail:], "<u8").reshape(2, primes, DEGREE)

    def coefficients_of(self, plain: Any) -> NDArray[np.int64]:
        """The coefficients of a plaintext of BFV, (N,)."""
        count = plain.coeff_count()
        plain.save(self._scratch.name)
        content = _decompressed(Path(self._scratch.name).read_bytes())
        found = np.zeros(DEGREE, np.int64)
        found[:count] = np.frombuffer(content[len(content) - 8 * count :], "<u8")
        return found

    def load(self, thing: Any, description: bytes, residues: Residues) -> Any:
        """Make a ciphertext or a public key of a description by SEAL and residues that are known to be reduced."""
        size = _HEADER.size + len(description) + residues.nbytes
        header = _HEADER.pack(0xA15E, _HEADER.size, *self._version, _NO_COMPRESSION, 0, size)
        data = header + description + np.ascontiguousarray(residues, "<u8").tobytes()
        Path(self._scratch.name).write_bytes(data)
        thing.load(self.context, self._scratch.name)
        return thing

    def _written_version(self) -> tuple[int, int]:
        """SEAL's version, as its headers have it; the plaintext's file is as good as any."""
        self.seal.Plaintext("1").save(self._scratch.name)
        _, _, version, subversion, *_ = _HEADER.unpack_from(Path(self._scratch.name).read_bytes())
        return version, subversion


class EncryptionKey:
    """A public key in use: it encrypts, and cannot decrypt.

    Args:
        scheme: The session's parameters.
        public_key: Its encoding, from `DecryptionKey.public_key`.

    Raises:
        BadCiphertext, TransparentCiphertext: It is not the encoding of a key, or of one that hides anything.
        SchemeUnavailable: TenSEAL is not installed.
    """

    def __init__(self, scheme: Scheme, public_key: Bytes) -> None:
        residues = decode_residues(public_key, 1, (*scheme.moduli, scheme.special))[0]
        self._engine = engine = _Engine(scheme)
        seal = engine.seal
        own = seal.PublicKey()
        seal.KeyGenerator(engine.context).create_public_key(own)
        description, _ = engine.residues_of(own, len(scheme.moduli) + 1)
        self._encryptor = seal.Encryptor(engine.context, engine.load(seal.PublicKey(), description, residues))
        self._plain, self._cipher = seal.Plaintext(), seal.Ciphertext(engine.context)

    def encrypt(self, slots: Entries) -> Residues:
        """Encrypt slots as `pads.seal_slots` gives them, shape (ciphertexts, N); gives (ciphertexts, 2, primes, N)."""
        scheme = self._engine.scheme
        encrypt = self._encrypt_exactly if scheme.name is SchemeName.BFV else self._encrypt_approximately
        residues = np.empty((len(slots), 2, len(scheme.moduli), DEGREE), np.uint64)
        for row, target in zip(slots, residues, strict=True):
            encrypt(row, target)
        return residues

    def _encrypt_exactly(self, row: Entries, target: Residues) -> None:
        """BFV: an encryption of zero, to which the slots are added modulo p alone.

        What a ciphertext has but them is independent of them, whoever has made the key.
        """
        self._encryptor.encrypt_zero(self._cipher)
        self._write(target)
        target[0, 0] = (target[0, 0] + row.astype(np.uint64)) % np.uint64(self._engine.scheme.slot_modulus)

    def _encrypt_approximately(self, row: Entries, target: Residues) -> None:
        """CKKS: half of the slots as real parts, half as imaginary ones."""
        half = DEGREE // 2
        values = (row[:half] + 1j * row[half:]).tolist()
        self._engine.encoder.encode(values, float(self._engine.scheme.scale), self._plain)
        self._encryptor.encrypt(self._plain, self._cipher)
        self._write(target)

    def _write(self, target: Residues) -> None:
        target[:] = self._engine.residues_of(self._cipher, len(self._engine.scheme.moduli))[1]


class DecryptionKey:
    """A fresh secret key. It never leaves this object, and nothing here writes it anywhere.

    Args:
        scheme: The session's parameters.

    Raises:
        SchemeUnavailable: TenSEAL is not installed.
    """

    def __init__(self, scheme: Scheme) -> None:
        self._engine = engine = _Engine(scheme)
        seal = engine.seal
        generator = seal.KeyGenerator(engine.context)
        public = seal.PublicKey()
        generator.create_public_key(public)
        self._decryptor = seal.Decryptor(engine.context, generator.secret_key())
        moduli = (*scheme.moduli, scheme.special)
        self.public_key = encode_residues(engine.residues_of(public, len(moduli))[1][None], moduli)
        example = seal.Ciphertext(engine.context)
        seal.Encryptor(engine.context, public).encrypt_zero(example)
        if scheme.scale:
            plain = seal.Plaintext()
            engine.encoder.encode(0.0, float(scheme.scale), plain)
            seal.Encryptor(engine.context, public).encrypt(plain, example)
        self._description = engine.residues_of(example, len(scheme.moduli))[0]

    def __repr__(self) -> str:
        return f"DecryptionKey({self._engine.scheme.name.value})"

    def decrypt(self, residues: Residues) -> Entries:
        """Decrypt a sum of ciphertexts, shape (ciphertexts, 2, primes, N), to integers, shape (ciphertexts, N).

        What SEAL gives for CKKS is rounded here and goes nowhere else: it is an approximation whose error tells of the
        key (Li and Micciancio 2021).

        Raises:
            SumOffGrid: A slot is not close to any integer: this is no sum of vectors on the grid.
        """
        engine, seal = self._engine, self._engine.seal
        plain, cipher = seal.Plaintext(), seal.Ciphertext(engine.context)
        slots = np.empty((len(residues), DEGREE), np.int64)
        for one, target in zip(residues, slots, strict=True):
            self._decryptor.decrypt(engine.load(cipher, self._description, one), plain)
            if engine.scheme.name is SchemeName.BFV:
                target[:] = _residues(engine.scheme, engine.coefficients_of(plain))
            else:
                values = np.array(engine.encoder.decode_complex(plain))
                target[:] = _rounded(np.concatenate([values.real, values.imag]))
        return slots


def _residues(scheme: Scheme, coefficients: NDArray[np.int64]) -> NDArray[np.int64]:
    """What was added modulo p, from SEAL's ⌊t·phase/q⌉ modulo its own t; the phase is Δ·m + noise, a slot Δ·m mod p."""
    modulus, plain, factor = scheme.slot_modulus, scheme.plain_modulus, math.prod(scheme.moduli[1:])
    nearest = (2 * coefficients.astype(object) * modulus + plain) // (2 * plain)
    return (nearest * factor % modulus).astype(np.int64)


def _rounded(values: NDArray[np.float64]) -> NDArray[np.int64]:
    nearest = np.rint(values)
    near = np.abs(values - nearest) <= GRID_TOLERANCE  # False for what is not a number
    if not (near & (np.abs(nearest) < 2.0**52)).all():
        # By how much is not said: the error of an approximation tells of the key.
        raise SumOffGrid("a decrypted slot is no integer", "open nothing; the server has changed ciphertexts")
    return nearest.astype(np.int64)


def _decompressed(data: bytes) -> bytes:
    """The content of a file that SEAL has just written here, behind its header."""
    compression = _HEADER.unpack_from(data)[4]
    if compression == _ZSTANDARD:
        import zstandard

        return zstandard.ZstdDecompressor().decompressobj().decompress(data[_HEADER.size :])
    if compression == _ZLIB:
        import zlib

        return zlib.decompress(data[_HEADER.size :])
    return data[_HEADER.size :]


def require_seal() -> Any:
    """TenSEAL's module of SEAL's own interface, or `SchemeUnavailable`."""
    try:
        import tenseal.sealapi
        import zstandard  # noqa: F401
    except ImportError as error:
        raise SchemeUnavailable(
            f"homomorphic sums need {error.name or 'tenseal'}, which is not installed", "pip install 'securekd[ckks]'"
        ) from error
    return tenseal.sealapi
