"""SPEC.md and the code say the same: labels, sizes, numbers, offsets, tables, diagrams, failures."""

import json
import re
import struct
from pathlib import Path

import pytest

from securekd_protocols import GraphDemand, choose_graph, frame, graph, graph_rule, keys, messages, parameters, shamir
from securekd_protocols.drawing import client_diagram, server_diagram
from securekd_protocols.messages import Kind
from securekd_protocols.parameters import SessionParameters
from securekd_protocols.simulation import LARGEST_COMPLETE
from securekd_protocols.thresholds import FEWEST_CLIENTS
from tests.protocols.harness import SMALL_RING, SMALL_RING_THRESHOLD, Session

ROOT = Path(__file__).parents[2]
SPEC = (ROOT / "protocols" / "SPEC.md").read_text()
GAMMAS = (20, 10, 5)  # 1/γ


def section(title):
    return re.split(r"\n## ", SPEC.split(f"## {title}\n", 1)[1], maxsplit=1)[0]


def table(title):
    """The rows of a section's first table, without its head."""
    rows = []
    for line in section(title).splitlines():
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        elif rows:
            break
    return rows[2:]


def test_labels():
    assert {name: text.strip("`").encode() + b"\0" for name, text, _ in table("Labels")} == {
        label.name: label.value for label in keys.Label
    }


def test_sizes_and_numbers():
    assert {name: int(value) for name, value in table("Sizes and numbers")} == {
        "protocol version": frame.VERSION,
        "frame header": frame.HEADER_BYTES,
        "signature, or tag of a message": keys.SIGNATURE_BYTES,
        "public or private key": keys.KEY_BYTES,
        "share": shamir.SHARE_BYTES,
        "box": messages.BOX_BYTES,
        "input tag": keys.TAG_BYTES,
        "reveal": graph.REVEAL_BYTES,
        "coefficient drawn for sharing": shamir._COEFFICIENT_BYTES,
        "fewest clients": FEWEST_CLIENTS,
        "most clients": parameters.MOST_CLIENTS,
        "most neighbours": graph_rule.MOST_NEIGHBOURS,
        "clients up to which the graph is complete by default": LARGEST_COMPLETE,
        "security bits σ": graph_rule.SECURITY_BITS,
        "correctness bits η": graph_rule.CORRECTNESS_BITS,
    }


def test_the_prime():
    text = re.search(r"modulo 2\^(\d+) \+ (\d+)", section("Primitives"))
    assert 2 ** int(text[1]) + int(text[2]) == shamir.PRIME


def test_kinds():
    assert {name: int(number) for name, number, _, _ in table("Messages")} == {kind.name: kind.value for kind in Kind}


def test_the_parameters_stand_where_the_table_says():
    session = Session(n=8, graph=SMALL_RING, threshold=SMALL_RING_THRESHOLD, ring_bits=24, noise_tail=5)
    p = session.parameters
    values = [p.nonce, p.context, p.server_public, p.round_number, p.threshold, p.colluders, p.vector_length]
    values += [p.magnitude, p.noise_tail, p.noise_variance, p.ring_bits, p.graph.degree, p.graph.dropouts]
    values += [p.graph.restarts, p.graph.malicious_server, p.clients]
    rows = table("Session parameters")
    assert len(rows) == len(values)
    for (offset, size, _), value in zip(rows, values, strict=True):
        field = p.encoded[int(offset) : int(offset) + int(size)]
        assert field == (value if isinstance(value, bytes) else value.to_bytes(int(size), "little"))
    assert SessionParameters.decode(p.encoded) == p


def test_the_frame_stands_where_the_table_says():
    data = Session(n=3).server.invitation()
    rows = table("The frame")
    offsets = [int(offset) for offset, _, _ in rows[:7]]
    sizes = [int(size) for _, size, _ in rows[:7]]
    assert offsets == [sum(sizes[:i]) for i in range(7)]
    magic, version, kind, sender, _, _, length = struct.unpack("<4sBBH32s32sI", data[: frame.HEADER_BYTES])
    assert (magic, version, kind, sender, length) == (frame.MAGIC, frame.VERSION, 0, frame.SERVER, len(data) - 140)
    assert f"`{magic.decode()}`" in rows[0][2]


def graph_row(n):
    cells = [str(n)]
    for part in GAMMAS:
        for malicious in (False, True):
            choice = choose_graph(GraphDemand(n, -(-n // part), -(-n // part), malicious, restarts=16))
            cells.append(f"{choice.degree}, {choice.threshold}")
    return cells


def test_the_table_of_degrees_and_thresholds():
    rows = table("The rule for k and t")
    assert [int(row[0]) for row in rows] == [101, 150, 200, 300, 500, 1000, 2000, 5000, 10000]
    for row in rows:
        assert row == graph_row(int(row[0]))


@pytest.mark.parametrize(("name", "draw"), [("client", client_diagram), ("server", server_diagram)])
def test_the_diagrams_are_those_of_the_table_of_states(name, draw):
    drawn = re.search(rf"<!-- {name} diagram -->\n```mermaid\n(.*?)\n```", SPEC, re.DOTALL)[1]
    assert drawn == draw()


def failure_rows():
    rows = []
    for path in sorted((ROOT / "tests" / "vectors").glob("failure-*.json")):
        vector = json.loads(path.read_text())
        after = vector.get("after")
        then = "the session ends" if after == "aborted" else "refused"
        rows.append([f"`{vector['scenario']}`", f"`{vector['error']}`", then])
    return rows


def test_the_failures_are_those_of_the_vectors():
    assert table("Failures that must be detected") == failure_rows()
