"""Homomorphic sums: bytes and CPU time of this library's BFV and CKKS, of NVFLARE's parameters, and of masking.

Everything is measured in one run, in CPU time of one process. NVFLARE encrypts weights with TenSEAL's CKKS vectors at
N = 8192, primes of 60, 40 and 40 bits and a scale of 2^40 (its `HEModelEncryptor`); the same calls are made here. The
floor is what a ciphertext of 128-bit security has to have: two residues of log q ≤ 109 bits for each of 4096
coefficients, of which everything but the noise's room carries values.

    pip install 'securekd[ckks]' matplotlib
    python benchmarks/homomorphic.py            # a few minutes of one core
    python benchmarks/homomorphic.py --quick    # small sizes
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from textwrap import fill
from typing import Any, TypeVar

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "protocols")]

import numpy as np  # noqa: E402

from securekd_protocols import Policy, simulate  # noqa: E402
from securekd_protocols.homomorphic import SchemeName, choose_scheme  # noqa: E402
from securekd_protocols.homomorphic.packing import pack, unpack  # noqa: E402
from securekd_protocols.homomorphic.pads import (  # noqa: E402
    add_pads,
    no_pads,
    open_slots,
    reduced,
    seal_slots,
    tag_coefficients,
)
from securekd_protocols.homomorphic.residues import add_residues, decode_residues, encode_residues  # noqa: E402
from securekd_protocols.homomorphic.scheme import DEGREE, MOST_MODULUS_BITS, bfv_noise  # noqa: E402
from securekd_protocols.homomorphic.seal import DecryptionKey, EncryptionKey  # noqa: E402
from securekd_protocols.keys import Binding  # noqa: E402

BOUND = 2**15  # 16-bit values, noise included
DISTINCT = 10  # vectors that are really encrypted; with 100 clients each is added ten times
BINDING = Binding(bytes(32), bytes(32))
T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """One way to add up: seconds of CPU, bytes, and the largest error of the sum in encoding steps."""

    way: str
    clients: int
    length: int
    bytes_a_value: float
    encrypt_s: float
    add_s: float
    decrypt_s: float
    error: float


def timed(work: Callable[[], T]) -> tuple[T, float]:
    begin = time.process_time()
    done = work()
    return done, time.process_time() - begin


def ours(name: SchemeName, vectors: list[np.ndarray], clients: int) -> Row:
    """The client's, the server's and the decryptor's work as the protocol does it, but for hashes and signatures."""
    length, copies = len(vectors[0]), clients // len(vectors)
    scheme = choose_scheme(name, clients, BOUND, length)
    count = scheme.ciphertexts(length)
    key, coefficients = DecryptionKey(scheme), tag_coefficients(scheme, BINDING)

    def encrypt(i: int) -> bytes:
        own = no_pads(count)
        add_pads(own, bytes([i]) * 32, BINDING, i)
        slots = seal_slots(scheme, pack(scheme, vectors[i]), coefficients, reduced(scheme, own))
        return encode_residues(EncryptionKey(scheme, key.public_key).encrypt(slots), scheme.moduli)

    def add(total: np.ndarray, data: bytes) -> None:
        add_residues(total, decode_residues(data, count, scheme.moduli), scheme.moduli)

    encrypt_s, add_s, total = [], [], np.zeros((count, 2, len(scheme.moduli), DEGREE), np.uint64)
    for i in range(len(vectors)):
        data, spent = timed(partial(encrypt, i))
        encrypt_s.append(spent)
        for _ in range(copies):
            add_s.append(timed(partial(add, total, data))[1])

    def decrypt() -> np.ndarray:
        everybody = no_pads(count)
        for i in range(clients):
            add_pads(everybody, bytes([i % len(vectors)]) * 32, BINDING, i % len(vectors))
        entries = open_slots(scheme, key.decrypt(total), coefficients, reduced(scheme, everybody))
        return unpack(scheme, entries, clients, length)

    found, decrypt_s = timed(decrypt)
    error = float(np.abs(found - copies * sum(vectors)).max())
    return Row(name.value.upper(), clients, length, len(data) / length, *_medians(encrypt_s, add_s), decrypt_s, error)


def nvflare(vectors: list[np.ndarray], clients: int) -> Row:
    """TenSEAL's CKKS vectors with NVFLARE's parameters; every client holds the key there."""
    import tenseal

    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[60, 40, 40])
    context.global_scale = 2**40
    length, copies, step = len(vectors[0]), clients // len(vectors), 8192 // 2
    chunks = range(0, length, step)

    def encrypt(vector: np.ndarray) -> list[bytes]:
        return [tenseal.ckks_vector(context, vector[i : i + step].astype(float)).serialize() for i in chunks]

    def add(total: list[Any], data: list[bytes]) -> list[Any]:
        parts = [tenseal.ckks_vector_from(context, one) for one in data]
        return [a + b for a, b in zip(total, parts, strict=True)] if total else parts

    encrypt_s, add_s, total = [], [], []
    for vector in vectors:
        data, spent = timed(partial(encrypt, vector))
        encrypt_s.append(spent)
        for _ in range(copies):
            total, spent = timed(partial(add, total, data))
            add_s.append(spent)
    found, decrypt_s = timed(lambda: np.concatenate([one.decrypt() for one in total]))
    error = float(np.abs(found - copies * sum(vectors)).max())
    size = sum(map(len, data)) / length
    return Row("NVFLARE's CKKS", clients, length, size, *_medians(encrypt_s, add_s), decrypt_s, error)


def masking(vectors: list[np.ndarray], clients: int) -> Row:
    """A whole masked session of this library; its CPU time is given for each client, the server's included."""
    everybody = {i: vectors[i % len(vectors)] for i in range(clients)}
    policy = Policy(magnitude=BOUND, graph="complete" if clients < 50 else "auto")
    done, spent = timed(lambda: simulate(everybody, policy))
    sent = sum(max(by.values()) for by in done.bytes_up.values() if by)
    error = float(np.abs(done.total - (clients // len(vectors)) * sum(vectors)).max())
    each = spent / clients
    return Row("masking", clients, len(vectors[0]), sent / len(vectors[0]), each, 0.0, 0.0, error)


def floor(clients: int, length: int) -> float:
    """Bytes a value that no additive ciphertext of this ring and security can do without."""
    room = MOST_MODULUS_BITS - math.log2(2 * bfv_noise(clients, length))
    return 2 * MOST_MODULUS_BITS / 8 * math.log2(2 * clients * BOUND + 1) / room


def _medians(*figures: list[float]) -> list[float]:
    return [float(np.median(one)) for one in figures]


def markdown(rows: list[Row], about: dict[str, str]) -> str:
    head = [
        "# Homomorphic sums: this library's BFV and CKKS, NVFLARE's parameters, and masking",
        "",
        fill(
            f"Made by `benchmarks/homomorphic.py` in one run on {about['cpu']}, Python {about['python']}, TenSEAL "
            f"{about['tenseal']}. CPU seconds of one process: a client's encryption of its vector (median), the "
            "server's addition of one client's ciphertexts with parsing and checks (median), the decryptor's opening "
            f"with everybody's pads. Values have 16 bits, noise included. With 100 clients, {DISTINCT} vectors are "
            "encrypted and each is added ten times. *Error* is the largest in the sum, in encoding steps; 0 is exact. "
            "*Floor* is the least that an additive ciphertext of 128-bit security in this ring takes. Masking has no "
            "encryption: its column is CPU time for each client, the server's included.",
            120,
        ),
        "",
    ]
    columns = [
        "way",
        "n",
        "d",
        "bytes a value",
        "÷ floor",
        "NVFLARE ÷ this",
        "encrypt, s",
        "add, s",
        "open, s",
        "error",
    ]
    lines = [_cells(columns), _cells(["---"] + ["--:"] * (len(columns) - 1))]
    for row in rows:
        peer = next(x for x in rows if x.way.startswith("NV") and (x.clients, x.length) == (row.clients, row.length))
        least = floor(row.clients, row.length)
        lines.append(
            _cells(
                [
                    *(row.way, str(row.clients), f"{row.length:,}", f"{row.bytes_a_value:.2f}"),
                    "–" if row.way == "masking" else f"{row.bytes_a_value / least:.2f}",
                    f"{peer.bytes_a_value / row.bytes_a_value:.1f} ×",
                    f"{row.encrypt_s:.3f}",
                    *("–" if row.way == "masking" else f"{x:.3f}" for x in (row.add_s, row.decrypt_s)),
                    f"{row.error:.3g}",
                ]
            )
        )
    return "\n".join([*head, *lines, "", "![Bytes and time at the largest size](homomorphic.svg)", ""])


def _cells(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def plot(rows: list[Row], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    largest = max(rows, key=lambda row: (row.length, row.clients))
    shown = [row for row in rows if (row.clients, row.length) == (largest.clients, largest.length)]
    figure, axes = plt.subplots(1, 2, figsize=(9, 2.6), layout="constrained")
    names = [row.way for row in shown]
    for axis, figures, title in (
        (axes[0], [row.bytes_a_value for row in shown], "bytes a value, upload"),
        (axes[1], [row.encrypt_s for row in shown], "CPU seconds of a client"),
    ):
        bars = axis.barh(names, figures, color="#3b6ea5")
        axis.bar_label(bars, fmt="%.2f", padding=3)
        axis.invert_yaxis()
        axis.margins(x=0.18)
        axis.set_title(title, fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{largest.clients} clients, {largest.length:,} values of 16 bits", fontsize=9)
    axes[0].axvline(floor(largest.clients, largest.length), color="#b0413e", linewidth=1)
    axes[0].annotate("floor", (floor(largest.clients, largest.length), -0.45), fontsize=8, color="#b0413e")
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing is written")
    arguments = parser.parse_args()
    rows = []
    for length in (10_000,) if arguments.quick else (100_000, 1_000_000):
        vectors = list(np.random.default_rng(0).integers(-BOUND, BOUND + 1, (DISTINCT, length)))
        for clients in (10, 100):
            for measure in (
                lambda v, n: ours(SchemeName.BFV, v, n),
                lambda v, n: ours(SchemeName.CKKS, v, n),
                nvflare,
                masking,
            ):
                rows.append(measure(vectors, clients))
                print(rows[-1], flush=True)
    about = {"cpu": _cpu(), "python": platform.python_version(), "tenseal": version("tenseal")}
    print(markdown(rows, about))
    if not arguments.quick:
        results = HERE / "results"
        (results / "homomorphic.md").write_text(markdown(rows, about))
        (results / "homomorphic.json").write_text(
            json.dumps({"about": about, "rows": [asdict(r) for r in rows]}, indent=1)
        )
        plot(rows, results / "homomorphic.svg")


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()} ({os.cpu_count()} cores)"


if __name__ == "__main__":
    main()
