"""An instruction comes from somebody else: what is no number or no phase becomes neither a file nor a charge."""

from typing import Any

import pytest

from securekd.errors import RunError
from securekd.federation.messages import Instruction


@pytest.mark.parametrize("number", [True, 1.0, 0, -1, "1", None, float("nan")])
@pytest.mark.parametrize("name", ["round", "exchange"])
def test_what_is_no_number_from_1_is_refused(name: str, number: Any) -> None:
    """`True == 1 == 1.0`, and so the ledger would charge once for what lies in three files."""
    with pytest.raises(RunError, match=f"{name} .* is no number from 1"):
        Instruction(**{"round": 1, "phase": "train", "agreement": b""} | {name: number})


@pytest.mark.parametrize("phase", ["", "Train", "baseline", "../outside", "release.1", None, 1])
def test_what_is_no_phase_is_refused(phase: Any) -> None:
    with pytest.raises(RunError, match="there are train, threshold, release"):
        Instruction(1, phase, b"")


def test_the_digest_tells_instructions_apart() -> None:
    made = [
        Instruction(1, "release", b"a"), Instruction(2, "release", b"a"), Instruction(1, "threshold", b"a"),
        Instruction(1, "release", b"b"), Instruction(1, "release", b"a", texts=("x",)),
        Instruction(1, "release", b"a", about=b"x"), Instruction(1, "release", b"a", exchange=2),
    ]  # fmt: skip
    assert len({one.digest for one in made}) == len(made)
