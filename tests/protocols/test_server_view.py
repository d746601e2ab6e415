"""What the server sees: no input in it, and nothing by which inputs of equal sum could be told apart.

The tests look, over many sessions, at three things that the server can compute: the masked words, the sum of all
clients' masked words (which only the self-masks hide), and the difference to the session before (which repeated masks
would open). For each, and for each of the four bytes of a word, a chi-square test of homogeneity compares two views
(256 values, 255 degrees of freedom), and a chi-square test of fit compares each view with the uniform distribution.
Every test is at level 10^-7: with 3 statistics × 4 bytes × 3 tests the stated rate of false alarms is at most
3.6 · 10^-6, and the randomness is seeded, so that the outcome does not change from run to run. Sessions without masks,
without self-masks, or with weak or repeated masks are found out by the same tests.
"""

import numpy as np
from scipy.stats import chi2_contingency, chisquare

from securekd_protocols import Policy, simulate
from securekd_protocols.masking import answers as client_module
from securekd_protocols.messages import Kind
from securekd_protocols.randomness import InsecureSeededRandomness

LENGTH, SESSIONS, CLIENTS, LEVEL = 128, 60, 3, 1e-7
FRAME_HEADER, SIGNATURE = 76 + 16, 64  # with the tag in front of the vector


def inputs(kind):
    """Two sets of inputs with the same sum: nothing but zeros, or values that cancel."""
    ramp = np.arange(LENGTH) * 7 - 400
    return {
        "flat": {i: np.zeros(LENGTH, np.int64) for i in range(CLIENTS)},
        "steep": {0: ramp, 1: 2 * ramp, 2: -3 * ramp},
    }[kind]


def view(kind, seeds):
    """Every byte string that the server gets, session by session."""
    sessions = []
    for seed in seeds:
        seen = []
        result = simulate(
            inputs(kind),
            Policy(magnitude=3000),
            on_server_receive=seen.append,
            insecure_randomness_for_tests=InsecureSeededRandomness(seed),
        )
        sessions.append((seen, result))
    return sessions


def statistics(sessions):
    """Words that a curious server would look at, each of shape (sessions, …)."""
    masked = np.array(
        [
            [np.frombuffer(data[FRAME_HEADER:-SIGNATURE], "<u4") for data in seen if data[5] == Kind.MASKED_INPUT]
            for seen, _ in sessions
        ]
    )
    return {
        "words": masked,
        "sum over clients": masked.sum(axis=1, dtype=np.uint32),
        "difference to the session before": masked[1:] - masked[:-1],
    }


def byte_counts(words):
    """How often each byte value stands at each of the four places, shape (4, 256)."""
    return np.array([np.bincount(((words >> (8 * place)) & 255).ravel(), minlength=256) for place in range(4)])


def told_apart_by(a, b):
    """The statistics by which the two-sample test tells two views apart."""
    others, found = statistics(b), set()
    for name, words in statistics(a).items():
        for pair in zip(byte_counts(words), byte_counts(others[name]), strict=True):
            counts = np.array(pair)[:, np.sum(pair, axis=0) > 0]
            if counts.shape[1] > 1 and chi2_contingency(counts).pvalue < LEVEL:
                found.add(name)
    return found


def not_uniform(sessions):
    """The statistics of a view that are not uniformly distributed."""
    return {
        name
        for name, words in statistics(sessions).items()
        if any(chisquare(counts).pvalue < LEVEL for counts in byte_counts(words))
    }


def seeds(word):
    return [f"{word} {i}".encode() for i in range(SESSIONS)]


def windows(data):
    """Every four bytes in a row, read in both byte orders."""
    return {
        int(value)
        for start in range(4)
        for order in ("<u4", ">u4")
        for value in np.frombuffer(data[start : start + 4 * ((len(data) - start) // 4)], order)
    }


def leaks(sessions, vectors):
    """Clients whose input stands in the view, in any byte order and at any alignment, or much of whose input does."""
    found = set()
    for seen, _ in sessions:
        everything = b"".join(seen)
        words = windows(everything)
        for client, vector in vectors.items():
            encodings = [vector.astype(dtype).tobytes() for dtype in ("<i4", ">i4", "<i8", ">i8", "<f4", "<f8")]
            present = sum(int(value) % 2**32 in words for value in set(vector.tolist()))
            if any(encoding in everything for encoding in encodings) or present > 2:
                found.add(client)
    return found


def unmasked(monkeypatch, keep):
    """Take masks away from the clients: apply only those that `keep` chooses of a client's list."""
    genuine = client_module.apply_masks
    monkeypatch.setattr(client_module, "apply_masks", lambda words, masks: genuine(words, keep(masks)))


def test_no_input_is_in_the_view():
    vectors = {i: np.random.default_rng(i).integers(-(10**8), 10**8, LENGTH) for i in range(CLIENTS)}
    seen = []
    simulate(vectors, Policy(magnitude=10**8), on_server_receive=seen.append)
    assert leaks([(seen, None)], vectors) == set()


def test_the_search_for_inputs_finds_them_where_masks_are_missing(monkeypatch):
    unmasked(monkeypatch, lambda masks: [])
    vectors = {i: np.random.default_rng(i).integers(-(10**8), 10**8, LENGTH) for i in range(CLIENTS)}
    seen = []
    simulate(vectors, Policy(magnitude=10**8), on_server_receive=seen.append)
    assert leaks([(seen, None)], vectors) == {0, 1, 2}


def test_the_search_for_inputs_knows_every_alignment():
    vector = np.random.default_rng(0).integers(-(10**8), 10**8, LENGTH)
    for offset in range(4):
        for order in ("<i4", ">i4"):
            assert leaks([([bytes(offset) + vector.astype(order).tobytes()], None)], {7: vector}) == {7}


def test_inputs_of_equal_sum_can_not_be_told_apart():
    flat, steep = view("flat", seeds("a")), view("steep", seeds("b"))
    assert all((result.total == 0).all() for _, result in flat + steep)
    assert told_apart_by(flat, steep) == set()
    assert not_uniform(flat) == not_uniform(steep) == set()
    assert {tuple(map(len, seen)) for seen, _ in flat} == {tuple(map(len, seen)) for seen, _ in steep}


def test_views_without_masks_are_told_apart(monkeypatch):
    unmasked(monkeypatch, lambda masks: [])
    flat, steep = view("flat", seeds("a")), view("steep", seeds("b"))
    assert told_apart_by(flat, steep) >= {"words"}
    assert not_uniform(steep) >= {"words"}


def test_views_without_self_masks_are_found_out(monkeypatch):
    unmasked(monkeypatch, lambda masks: masks[1:])
    assert not_uniform(view("steep", seeds("b"))) == {"sum over clients"}


def test_views_with_weak_masks_are_told_apart(monkeypatch):
    """Masks whose words have only 16 random bits."""
    genuine = client_module.apply_masks

    def weak(words, masks):
        stream = np.zeros_like(words)
        genuine(stream, masks)
        words += stream & np.uint32(0xFFFF)

    monkeypatch.setattr(client_module, "apply_masks", weak)
    assert told_apart_by(view("flat", seeds("a")), view("steep", seeds("b"))) >= {"words"}


def test_views_with_repeated_masks_are_found_out():
    flat, steep = view("flat", [b"one seed"] * SESSIONS), view("steep", [b"one seed"] * SESSIONS)
    assert "difference to the session before" in not_uniform(flat) & not_uniform(steep)
    assert told_apart_by(flat, steep)
