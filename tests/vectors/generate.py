"""Makes the test vectors of sessions, good and bad: `python tests/vectors/generate.py` from the repository's root.

Good sessions (`session-*.json`) give all private keys, every random byte that a participant draws, in order, the
inputs, who falls silent when, and every message in the order in which it is sent. Failures (`failure-*.json`) give one
participant, what it does step by step, and the name of the error that its last step must raise. The primitives' vectors
(`primitive-*.json`) are copied from the standards that they name.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "protocols")]

from securekd_protocols.states import ServerState  # noqa: E402
from tests.protocols.failures_messages import FAILURES  # noqa: E402
from tests.protocols.harness import SMALL_RING, SMALL_RING_THRESHOLD, WIDE_RING, WIDE_RING_THRESHOLD, Session  # noqa: E402

HERE = Path(__file__).parent
STAGES = ("commit", "advertise", "share", "masked_input", "consistency", "unmask")

GOOD = {
    "complete": ({"n": 4, "d": 5}, {}),
    "complete-dropouts": ({"n": 7, "d": 3}, {5: "masked_input", 6: "unmask"}),
    "complete-64-bit": ({"n": 3, "d": 2, "ring_bits": 64, "magnitude": 2**40}, {}),
    "complete-24-bit": ({"n": 5, "d": 6, "ring_bits": 24, "noise_tail": 30}, {2: "share"}),
    "regular": ({"n": 8, "d": 4, "graph": SMALL_RING, "threshold": SMALL_RING_THRESHOLD}, {7: "unmask"}),
    "regular-dropouts": (
        {"n": 9, "d": 4, "graph": WIDE_RING, "threshold": WIDE_RING_THRESHOLD, "ring_bits": 16},
        {1: "masked_input", 4: "commit"},
    ),
}


def good(name: str) -> dict[str, object]:
    """Run one session and write everything down."""
    arguments, dropouts = GOOD[name]
    session = Session(**arguments, seed=name.encode(), record=True)
    stages = STAGES if session.parameters.graph else STAGES[1:]
    messages: list[dict[str, str]] = []
    for stage in stages:
        messages += [{"from": "server", "to": f"client {m.recipient}", "bytes": m.data.hex()} for m in session.inbox]
        silent = {client for client, when in dropouts.items() if stages.index(stage) >= stages.index(when)}
        messages += [
            {"from": f"client {int.from_bytes(data[6:8], 'little')}", "to": "server", "bytes": data.hex()}
            for data in session.stage(silent)
        ]
    assert session.server.state is ServerState.FINISHED
    result = session.server.result
    assert (result.total == session.expected(result.survivors)).all()
    return {
        "scenario": name,
        "parameters": session.parameters.encoded.hex(),
        "identities": {f"client {i}": identity.private.hex() for i, identity in enumerate(session.identities)}
        | {"server": session.operator.private.hex()},
        "random": {name: stream.given.hex() for name, stream in session.streams.items()},
        "inputs": {f"client {i}": vector.tolist() for i, vector in enumerate(session.vectors)},
        "silent_from": {f"client {client}": stage for client, stage in dropouts.items()},
        "messages": messages,
        "survivors": list(result.survivors),
        "sum": result.total.tolist(),
    }


def main() -> None:
    for old in (*HERE.glob("session-*.json"), *HERE.glob("failure-*.json")):
        old.unlink()
    for name in GOOD:
        write(f"session-{name}.json", good(name))
    for name, make in FAILURES.items():
        write(f"failure-{name}.json", {"scenario": name, **make()})


def write(name: str, content: dict[str, object]) -> None:
    (HERE / name).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
