"""Mutated files and answers: read as a plain second reader reads them, or refused by name."""

import os
from pathlib import Path

import numpy as np
import pytest

from tests.securekd.fuzzing import READERS, Reader, fuzz

IDS = [reader.name for reader in READERS]


@pytest.mark.parametrize("reader", READERS, ids=IDS)
def test_what_is_mutated_is_read_rightly_or_refused_by_name(reader: Reader, tmp_path: Path) -> None:
    found = fuzz(reader, 300, 0, tmp_path)
    assert found["read"] > 0
    assert found["refused"] > 0


@pytest.mark.explore
@pytest.mark.parametrize("reader", READERS, ids=IDS)
def test_new_mutations(reader: Reader, tmp_path: Path) -> None:
    seed = int(os.environ.get("SECUREKD_FUZZ_SEED") or np.random.SeedSequence().generate_state(1)[0])
    print(f"SECUREKD_FUZZ_SEED={seed}")
    fuzz(reader, 10_000 // len(READERS) + 1, seed, tmp_path)


def test_the_fuzzer_finds_a_reader_that_lets_errors_through(tmp_path: Path) -> None:
    with pytest.raises(UnicodeDecodeError) as caught:
        fuzz(Reader("careless", ("ä".encode(),), lambda content, _: content.decode() and None), 50, 0, tmp_path)
    assert "careless, seed 0, input" in caught.value.__notes__[0]
