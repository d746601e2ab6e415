"""An endpoint over a real socket: every kind of answer, every failure that may pass, and everything hostile."""

import contextlib
import json
import socket
import threading
import time
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from securekd_attacks.targets import BadAnswer, EndpointTarget, Manners, TargetFailed, TargetUnusable
from securekd_attacks.targets.endpoint import LONGEST_WAIT, answers_in
from tests.attacks.targets.server import Reply, ok, serving

P = np.array([[0.2, 0.8], [0.5, 0.5], [1.0, 0.0]])
with np.errstate(divide="ignore"):
    LOG_P = np.log(P)


def target(url: str, **manners: float) -> tuple[EndpointTarget, list[float]]:
    waits: list[float] = []
    return EndpointTarget(url, Manners(**manners), sleep=waits.append), waits  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"probs": P.tolist()}, LOG_P),
        ({"log_probs": LOG_P.tolist()}, LOG_P),
        ({"logits": (LOG_P[:2] + 3.0).tolist()}, LOG_P[:2]),
    ],
)
def test_outputs_become_log_probabilities(answer: dict[str, object], expected: np.ndarray) -> None:
    found = answers_in(json.dumps(answer).encode(), len(expected)).log_probs
    assert found is not None
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_floats_come_over_the_wire_bit_by_bit() -> None:
    exact = np.log(np.random.default_rng(0).dirichlet(np.ones(5), size=64))
    with serving(lambda inputs, _: ok({"log_probs": exact[: len(inputs)].tolist()})) as url:
        found = target(url)[0].ask(["x"] * 64)
    np.testing.assert_array_equal(found.log_probs, exact)


def test_labels_alone_and_tokens() -> None:
    assert answers_in(b'{"labels": [1, 0]}', 2).predicted is not None
    found = answers_in(b'{"token_log_probs": [[-1, -2.5], [-Infinity]], "token_means": [[-1, -1], [-2]]}', 2)
    assert found.token_log_probs is not None
    assert [len(text) for text in found.token_log_probs] == [2, 1]
    assert np.isfinite(found.token_log_probs[1]).all()
    assert found.token_means is not None


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\xff\xfe", "no JSON"),
        (b"[" * 100_000, "too much beside its numbers .*100000 brackets"),
        (b"[1, 2]", "not one kind"),
        (b"{}", "not one kind"),
        (b'{"labels": [0, 1], "probs": [[1, 0], [1, 0]]}', "not one kind"),
        (b'{"labels": [0]}', "another number"),
        (b'{"labels": [0, -1]}', r"a label out of range in row 1 \(got -1\)"),
        (b'{"labels": [0.5, 1.5]}', "labels are none"),
        (b'{"labels": [true, false]}', "no numbers"),
        (b'{"labels": [1e400, 1]}', "labels are none"),
        (b'{"probs": [[0.5, 0.6], [1, 0]]}', "do not sum to one"),
        (b'{"probs": [[0.5, 0.5], [1]]}', "no regular list"),
        (b'{"probs": [["a", "b"], ["c", "d"]]}', "no numbers"),
        (b'{"probs": [[1, 0], [NaN, 1]]}', r"probabilities are NaN .* first in row 1 \(got nan\)"),
        (b'{"probs": [[1, 0], [-0.5, 1.5]]}', r"below zero .* first in row 1 \(got -0.5\)"),
        (b'{"log_probs": [[NaN, 0], [0, -1]]}', "log-probabilities are NaN .* in row 0"),
        (b'{"log_probs": [[Infinity, 0], [0, -1]]}', "in row 0 .*got inf"),
        (b'{"logits": [[0, 1], [0, NaN]]}', "logits are NaN .* in row 1"),
        (b'{"logits": [[0, 1], [0, null]]}', r"no numbers, first in row 1 \(got None\)"),
        (b'{"token_log_probs": [[-1]]}', "not a list for each"),
        (b'{"token_log_probs": [[-1], []]}', "unfit"),
        (b'{"token_log_probs": [[-1], [0.5]]}', "unfit"),
        (b'{"token_log_probs": [[-1], [-1]], "token_means": [[-1], [-1, -1]]}', "differ in number"),
    ],
)
def test_hostile_bytes_are_refused_by_name(content: bytes, why: str) -> None:
    with pytest.raises(BadAnswer, match=why):
        answers_in(content, 2)


def test_failures_that_may_pass_are_retried_with_backoff() -> None:
    replies: list[Reply] = [(503, b"", {}), (429, b"", {"Retry-After": "7"}), (500, b"", {}), ok({"labels": [1]})]
    with serving(lambda inputs, _: replies.pop(0)) as url:
        asked, waits = target(url, backoff=0.5, retries=3)
        assert asked.ask(["x"]).predicted is not None
    assert waits == [0.5, 7.0, 2.0]


def test_it_gives_up_and_never_waits_without_end() -> None:
    with serving(lambda inputs, _: (429, b"", {"Retry-After": "86400"})) as url:
        asked, waits = target(url, retries=2)
        with pytest.raises(TargetFailed, match=r"failed 3 times \(got status 429\)"):
            asked.ask(["x"])
    assert waits == [LONGEST_WAIT, LONGEST_WAIT]


@pytest.mark.parametrize(
    ("status", "remedy"), [(401, "bearer token"), (404, "look into"), (302, "redirects to"), (400, "look into")]
)
def test_refusals_are_not_retried(status: int, remedy: str) -> None:
    asked_for = []
    with serving(lambda inputs, _: asked_for.append(inputs) or (status, b"", {"Location": "http://127.0.0.1/"})) as url:
        asked, waits = target(url)
        with pytest.raises(TargetFailed, match=remedy):
            asked.ask(["x"])
    assert len(asked_for) == 1
    assert waits == []


def test_an_answer_without_end_is_cut_off() -> None:
    with serving(lambda inputs, _: (200, b"1" * 3_000_000, {})) as url:
        asked, _ = target(url, largest_answer=1_000_000)
        with pytest.raises(BadAnswer, match="too large"):
            asked.ask(["x"])


def test_an_answer_that_breaks_off_is_a_failure() -> None:
    with serving(lambda inputs, _: (200, b"{", {"Content-Length": "1000"})) as url:
        asked, waits = target(url, retries=1, timeout=0.5)
        with pytest.raises(TargetFailed, match="failed 2 times"):
            asked.ask(["x"])
    assert len(waits) == 1


def test_an_answer_that_drips_does_not_hold_the_audit_up() -> None:
    def drip(inputs: list[object], _: dict[str, str]) -> Reply:
        time.sleep(3.0)  # well within the timeout of a pause
        return ok({"labels": [1]})

    with serving(drip) as url:
        asked, _ = target(url, timeout=30.0, longest=0.2, retries=0)
        start = time.monotonic()
        with pytest.raises(TargetFailed, match="failed 1 times"):
            asked.ask(["x"])
        assert time.monotonic() - start < 2.0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)
KINDS = st.sampled_from(["log_probs", "probs", "logits", "labels", "token_log_probs", "token_means"])


@given(st.binary(max_size=200) | st.dictionaries(KINDS, JSON, max_size=2).map(lambda d: json.dumps(d).encode()))
@example(b'{"logits": [[], []]}')
@example(b'{"log_probs": [[], []]}')
@example(b'{"probs": [[], []]}')
@example(b'{"labels": [[], []]}')
@example(b'{"token_log_probs": [[], []]}')
def test_any_bytes_are_an_answer_or_refused(content: bytes) -> None:
    with contextlib.suppress(BadAnswer):
        found = answers_in(content, 2)
        assert found.gives


@pytest.mark.parametrize("encoding", ["gzip", "identity, gzip", "br", "deflate", "X-Gzip", "utf-8, zstd"])
def test_compression_is_refused_since_it_hides_its_size(encoding: str) -> None:
    with serving(lambda inputs, _: (200, b"x", {"Content-Encoding": encoding})) as url:
        asked, _ = target(url)
        with pytest.raises(BadAnswer, match="compresses") as refused:
            asked.ask(["x"])
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("encoding", ["identity", "Identity", "IDENTITY", " identity ", "identity, Identity", ""])
def test_an_encoding_that_changes_nothing_is_no_compression(encoding: str) -> None:
    with serving(lambda inputs, _: (*ok({"labels": [1]})[:2], {"Content-Encoding": encoding})) as url:
        assert target(url)[0].ask(["x"]).predicted is not None


@pytest.mark.parametrize("status", [200, 201, 202, 203, 299])
def test_every_success_with_an_answer_is_one(status: int) -> None:
    with serving(lambda inputs, _: (status, ok({"labels": [1]})[1], {})) as url:
        assert target(url)[0].ask(["x"]).predicted is not None


@pytest.mark.parametrize("status", [204, 205, 206])
def test_a_success_without_a_whole_answer_is_refused_by_its_status(status: int) -> None:
    asked_for = []
    refused = pytest.raises(BadAnswer, match=f"no whole answer .*status {status}")
    with serving(lambda inputs, _: asked_for.append(inputs) or (status, b"", {})) as url, refused:
        target(url)[0].ask(["x"])
    assert len(asked_for) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("https://new.example/v2/predict", "https://new.example/v2/predict"),
        ("/v2/predict", r"http://127\.0\.0\.1:\d+/v2/predict"),
        ("//user:word@new.example/x?key=hidden#part", "http://new.example/x"),
        ("https://new.example/\x1b[31mred\x07", r"https://new\.example/\\x1b\[31mred\\x07"),
        ("https://[broken/", "an address that cannot be read"),
    ],
)
def test_a_redirection_tells_where_to_and_is_not_followed(
    status: int, place: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIT_TOKEN", "s3cret")
    asked_for = []
    with serving(lambda inputs, _: asked_for.append(inputs) or (status, b"", {"Location": place})) as url:
        asked = EndpointTarget(url, Manners(token_variable="AUDIT_TOKEN"))
        with pytest.raises(TargetFailed, match=rf"\(got status {status} to {told}\)") as refused:
            asked.ask(["x"])
    assert len(asked_for) == 1
    said = str(refused.value)
    assert said.isprintable()
    assert not {"hidden", "word", "part", "s3cret"} & set(said.replace("?", "/").replace("@", "/").split("/"))


BULK = 4_000_000
"""Bytes of an answer at most, in the tests of what its reading takes; the default is sixteen times as much."""

BULKY = {
    "empty lists": (b'{"probs": [' + b"[]," * (BULK // 3), b"[]]}"),
    "empty objects": (b'{"probs": [' + b"{}," * (BULK // 3), b"{}]}"),
    "short texts": (b'{"probs": [' + b'"ab",' * (BULK // 5), b'"ab"]}'),
    "nothings": (b'{"probs": [[' + b"null," * (BULK // 5), b"null]]}"),
    "digits": (b'{"labels": [' + b"0," * (BULK // 2), b"0]}"),
    "numbers": (b'{"probs": [[' + b"257," * (BULK // 16), b"1]]}"),
    "keys": (b"{" + b",".join(b'"%x":1' % i for i in range(BULK // 12)), b"}"),
    "nested": (b"[" * BULK, b""),
    "nested objects": (b'{"a":' * (BULK // 5), b""),
    "one long number": (b'{"labels": [' + b"1" * (BULK - 20), b"]}"),
    "a wide letter": ('{"a": "\N{GRINNING FACE}'.encode() + b"a" * (BULK - 40), b'"}'),
}


@pytest.mark.parametrize("what", BULKY)
def test_reading_takes_a_small_multiple_of_the_largest_answer(what: str) -> None:
    content = bytearray(BULKY[what][0] + BULKY[what][1])
    tracemalloc.start()
    try:
        with pytest.raises(BadAnswer):
            answers_in(content, 1, BULK)
        assert tracemalloc.get_traced_memory()[1] < 8 * BULK
    finally:
        tracemalloc.stop()


def test_an_answer_as_large_as_allowed_is_read_within_a_small_multiple_of_it() -> None:
    exact = np.random.default_rng(0).dirichlet(np.ones(3_000), size=64)
    content = bytearray(json.dumps({"probs": exact.tolist()}).encode())
    tracemalloc.start()
    try:
        found = answers_in(content, 64, len(content)).log_probs
        assert tracemalloc.get_traced_memory()[1] < 8 * len(content)
    finally:
        tracemalloc.stop()
    np.testing.assert_allclose(found, np.log(exact))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b'{"labels": [0], "labels": [1]}', "key twice .*'labels'"),
        (b'{"probs": [[1, 0]], "about": {"a": 1, "a": 2}}', "key twice .*'a'"),
        (b'{"labels": [' + b"9" * 100_000 + b"]}", "no JSON"),
        (b'{"labels": [9300000000000000000]}', "label out of range in row 0"),
        (b'{"labels": [100000000000000000000]}', "no numbers"),
        (b'{"probs": [[NaN, NaN]]}', "NaN"),
        (b'{"probs": ' + b"[" * 900 + b"1" + b"]" * 900 + b"}", "no regular list|no JSON|must be"),
        (b'{"probs": [[0.5, 0.5]]} {}', "no JSON"),
        (b'{"probs": [[60, 40]]}', "divide percentages by 100"),
    ],
)
def test_json_that_means_something_else_to_others_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(BadAnswer, match=why):
        answers_in(content, 1)


def test_nobody_listening() -> None:
    with serving(lambda inputs, _: ok({})) as url:
        pass
    with pytest.raises(TargetFailed, match="ConnectionRefusedError"):
        target(url, retries=0)[0].ask(["x"])


def test_the_rate_is_kept() -> None:
    with serving(lambda inputs, _: ok({"labels": [1]})) as url:
        asked = EndpointTarget(url, Manners(rate=20.0))
        start = time.monotonic()
        for _ in range(4):
            asked.ask(["x"])
    assert time.monotonic() - start >= 3 / 20.0


def test_a_token_is_sent_and_is_not_part_of_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setenv("AUDIT_TOKEN", "s3cret")
    with serving(lambda inputs, headers: seen.append(headers) or ok({"labels": [1]})) as url:
        asked = EndpointTarget(url + "?key=hidden", Manners(token_variable="AUDIT_TOKEN"))
        asked.ask(["x"])
    assert seen[0]["Authorization"] == "Bearer s3cret"
    assert "s3cret" not in repr(asked)
    assert "hidden" not in asked.name


@pytest.mark.parametrize(
    "url",
    [
        "http://host.example/predict",
        "http://10.0.0.7:8000/",
        "http://127.0.0.1.example/",
        "http://localhost.example/",
        "http://127.1/",
        "http://0.0.0.0/",
        "http://[::2]/",
        "HTTP://HOST/",
    ],
)
def test_a_token_does_not_travel_unencrypted(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIT_TOKEN", "s3cret")
    with pytest.raises(TargetUnusable, match="everybody on the way could read.*https://") as refused:
        EndpointTarget(url, Manners(token_variable="AUDIT_TOKEN"))
    assert "s3cret" not in str(refused.value)
    EndpointTarget(url)  # without a token anybody may be asked


@pytest.mark.parametrize(
    "url",
    ["https://host/", "http://localhost:8000/", "http://LOCALHOST/", "http://127.9.9.9/", "http://[::1]:8000/predict"],
)
def test_a_token_may_go_to_this_machine_and_over_https(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIT_TOKEN", "s3cret")
    EndpointTarget(url, Manners(token_variable="AUDIT_TOKEN"))


@pytest.mark.parametrize("token", ["s3cret\n", "s3cret\r\nX: y", "s3 cret", "s3crét", "\x00s3cret"])
def test_a_token_that_no_header_can_hold_is_not_told(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.environ", {"AUDIT_TOKEN": token})
    with pytest.raises(TargetUnusable, match="AUDIT_TOKEN has a space") as refused:
        EndpointTarget("https://host/", Manners(token_variable="AUDIT_TOKEN"))
    assert "cret" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    ["ftp://host/", "http://", "http://user:word@host/", "http://host:99999/", "x", "http://host/ü", "http://host/a b"],
)
def test_addresses_that_cannot_be_asked(url: str) -> None:
    with pytest.raises(TargetUnusable):
        EndpointTarget(url)


def test_a_token_that_is_not_set_is_named() -> None:
    with pytest.raises(TargetUnusable, match="NO_SUCH_TOKEN is not set"):
        EndpointTarget("http://host/", Manners(token_variable="NO_SUCH_TOKEN"))


def test_missing_numbers_go_as_null_and_nothing_else_changes() -> None:
    """JSON has no NaN; what the target is sent is otherwise what it was sent before."""
    seen: list[Any] = []

    def answer(inputs: list[Any], _: dict[str, str]) -> Reply:
        seen.extend(inputs)
        return ok({"labels": [0] * len(inputs)})

    with serving(answer) as url:
        target = EndpointTarget(url)
        target.ask(np.array([[1.5, np.nan], [np.nan, 2.0]]))
        target.ask(np.array([[1, 2]], dtype=np.uint8))
    assert seen == [[1.5, None], [None, 2.0], [1, 2]]


@pytest.mark.parametrize(
    ("sent", "named"),
    [
        ("gzip, chunked", "gzip, chunked"),
        ("gzip", "gzip"),
        ("Deflate", "deflate"),
        ("\x1b[31m", r"\\x1b\[31m"),
    ],
)
def test_a_transfer_that_is_encoded_is_named(sent: str, named: str) -> None:
    encodes = pytest.raises(BadAnswer, match=f"encodes the transfer .*got '{named}'.*chunked, or with")
    with serving(lambda inputs, _: (*ok({"labels": [1]})[:2], {"Transfer-Encoding": sent})) as url, encodes as refused:
        target(url)[0].ask(["x"])
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("encoding", ["utf-8", "none", "aws-chunked", "UTF-8, identity", "identityy", "\x1b[31m"])
def test_what_is_no_compression_is_not_called_one(encoding: str) -> None:
    none = pytest.raises(BadAnswer, match="Content-Encoding is no compression .*leave that header out")
    with serving(lambda inputs, _: (*ok({"labels": [1]})[:2], {"Content-Encoding": encoding})) as url, none as refused:
        target(url)[0].ask(["x"])
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "interim",
    [
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\n" * 5,
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 199 x\r\n\r\n",
    ],
)
def test_interim_responses_are_passed_over(interim: bytes) -> None:
    final = b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"labels": [1]}'
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(interim + final)
                connection.recv(1)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        found = target(f"http://127.0.0.1:{server.getsockname()[1]}/", retries=0, timeout=5.0)[0].ask(["x"])
        thread.join()
    assert found.predicted is not None


@pytest.mark.parametrize(
    "about",
    [
        {"meta": [{"b": i} for i in range(5000)]},
        {"texts": ['"[{'] * 5000},
        {"shap": [[{"feature": f"f{i}", "value": 0.1} for i in range(600)]] * 4},
    ],
)
def test_much_beside_the_numbers_is_said_to_be_that(about: dict[str, object]) -> None:
    with pytest.raises(BadAnswer, match="for 64 records has too much beside its numbers .*brackets and quotes"):
        answers_in(json.dumps({"probs": [[0.5, 0.5]] * 64} | about).encode(), 64)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({"probs": [[0.5, 0.5], [None, None]]}, r"probs are no numbers, first in row 1 \(got None\)"),
        ({"probs": [[0.5, 0.5], None]}, r"probs are no numbers, first in row 1 \(got None\)|no regular list"),
        ({"probs": [[0.5, 0.5], [0.5, "0.5"]]}, r"probs are no numbers, first in row 1 \(got '0.5'\)"),
        ({"probs": [[0.5, 0.5], [0.5]]}, r"no regular list, first in row 1 \(got 1 values after 2\)"),
        ({"labels": [1, None]}, r"labels are no numbers, first in row 1 \(got None\)"),
        ({"labels": [1, "cat"]}, r"labels are no numbers, first in row 1 \(got 'cat'\)"),
        ({"labels": [1, 10**30]}, r"labels are no numbers, first in row 1 \(got 10000"),
        ({"token_log_probs": [[-1.0], [None]]}, r"token_log_probs are no numbers, first in row 1 \(got None\)"),
        ({"token_log_probs": [[-1.0], [0.5]]}, "tokens are unfit in row 1"),
        ({"probs": [[0.5, 0.5], [0.5, 0.3]]}, r"first in row 1 \(got 0.8"),
        ({"probs": [[0.5, 0.5], [float("nan"), 0.3]]}, r"first in row 1 \(got nan\)"),
    ],
)
def test_one_bad_row_is_named_with_what_stands_there(answer: dict[str, object], why: str) -> None:
    with pytest.raises(BadAnswer, match=why) as refused:
        answers_in(json.dumps(answer).encode(), 2)
    assert refused.value.row == 1


@pytest.mark.parametrize("place", ["/" + "a" * 5000, "http://" + "b" * 300 + ".example/", "/?" + "c" * 500])
def test_no_message_is_longer_than_three_hundred_characters(place: str) -> None:
    with serving(lambda inputs, _: (307, b"", {"Location": place})) as url, pytest.raises(TargetFailed) as refused:
        target(url)[0].ask(["x"])
    assert len(str(refused.value)) <= 300


def test_what_is_too_large_has_a_remedy_that_can_be_followed() -> None:
    with pytest.raises(BadAnswer, match="begin anew with a smaller batch"):
        answers_in(b'{"labels": [' + b"0," * 100 + b"0]}", 1, 160)
