"""Layers that are fitted on the transfer set: what they take, what they give, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import TfidfVectorizer

from securekd.data.texts import _bytes, _fast, _pieces, learn
from securekd.errors import FolderError, ModelError
from securekd.learning.dp.suited import refuse_unsuited
from securekd.learning.fits import Fits
from securekd.learning.tasks import network_of, state_of
from securekd.models.folder import load_student, save_model
from securekd.models.frozen import split_frozen
from securekd.models.kernel import GaussianKernel
from securekd.models.public import LENGTH, Principal, fit_public, give_public, public_of
from securekd.models.registry import build, probe
from securekd.models.shape import InputShape
from securekd.models.tfidf import TfIdf, analyzer, read_back
from securekd.settings.models import Model

TABLE = InputShape("tabular", (12,), 3)
NOUNS = ("minister", "striker", "bank", "telescope", "harbour", "senate")
NOUNS += ("orchestra", "vaccine", "glacier", "reactor", "satellite", "merger")
CORPUS = [
    f"The {noun} of {place} {verb}, said the {noun}."
    for noun in NOUNS
    for place, verb in (("Wien", "won"), ("Zürich", "fell"), ("Oslo", "held"), ("Lyon", "rose"))
]
BPE = learn(CORPUS, 400)
PIECES = {"transfer": _pieces(BPE), "bytes": ("", "", *map(chr, range(256)))}
TOKENIZE = {"transfer": _fast(BPE), "bytes": _bytes(400)}


def rows(count: int, width: int = 12, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((count, width)) * np.geomspace(3, 0.1, width) + 2.0).astype(np.float32)


def ids(texts: list[str], tokenizer: str = "transfer") -> np.ndarray:
    found = TOKENIZE[tokenizer](texts)
    padded = np.zeros((len(texts), max(map(len, found))), np.int64)
    for row, tokens in zip(padded, found, strict=True):
        row[: len(tokens)] = tokens
    return padded


def text_shape(tokenizer: str = "transfer") -> InputShape:
    pieces = PIECES[tokenizer]
    return InputShape("text", (ids(CORPUS, tokenizer).shape[1],), 4, len(pieces), pieces=pieces)


# ---- principal components ----


def test_components_are_those_of_a_peer() -> None:
    x, layer = rows(200), Principal(5, 0.0)
    fit_public(torch.nn.Sequential(layer, torch.nn.Linear(5, 3)), x)
    peer = PCA(5, svd_solver="full").fit_transform(x.astype(np.float64))
    ours = layer(torch.from_numpy(x)).double().numpy()
    peer *= LENGTH / np.linalg.norm(peer, axis=1, keepdims=True)
    np.testing.assert_allclose(np.abs(ours), np.abs(peer), atol=1e-4)


@pytest.mark.parametrize("count", [200, 9])
def test_whitened_components_have_one_length_and_like_moments(count: int) -> None:
    x, layer = rows(count), Principal(6, 1.0)
    fit_public(torch.nn.Sequential(layer, torch.nn.Linear(6, 3)), x)
    mapped = layer(torch.from_numpy(x)).double()
    torch.testing.assert_close(mapped.norm(dim=1), torch.full((count,), LENGTH).double(), rtol=1e-5, atol=0)
    moments = mapped.square().mean(0) * 6 / LENGTH**2
    assert 0.6 < moments.min() < moments.max() < 1.6
    assert moments.sum() == pytest.approx(6, rel=1e-5)


def test_axes_have_signs_of_their_own() -> None:
    one, other = (Principal(6, 1.0).fit(torch.from_numpy(x)) for x in (rows(50), rows(50)[::-1].copy()))
    torch.testing.assert_close(one["axes"], other["axes"], rtol=1e-3, atol=1e-4)
    assert all(axis[axis.abs().argmax()] > 0 for axis in one["axes"].T)


@pytest.mark.parametrize(("count", "most"), [(200, 12), (8, 7)])
def test_more_components_than_directions_are_refused(count: int, most: int) -> None:
    with pytest.raises(ModelError, match=rf"components = 13 is more than the {most} directions .* raise data.transfer"):
        Principal(13, 1.0).fit(torch.from_numpy(rows(count)))


def test_features_that_are_all_zero_have_no_direction() -> None:
    with pytest.raises(
        ModelError, match="components = 1, and the features of the 20 rows of the transfer set are all alike"
    ):
        Principal(1, 1.0).fit(torch.zeros(20, 5))


def test_a_constant_column_counts_for_nothing() -> None:
    x = rows(50)
    x[:, 3] = 0.5
    axes = Principal(6, 1.0).fit(torch.from_numpy(x))["axes"]
    assert axes[3].abs().max() < 1e-6


# ---- TF-IDF ----


@pytest.mark.parametrize("tokenizer", ["transfer", "bytes"])
@given(text=st.text(max_size=60))
@settings(deadline=None)
def test_token_ids_are_read_back_as_text(tokenizer: str, text: str) -> None:
    pieces = [piece.encode("latin-1") for piece in PIECES[tokenizer]]
    ends = np.cumsum([len(piece) for piece in pieces])
    [found] = read_back(ids([text], tokenizer), b"".join(pieces), ends)
    expected = BPE.normalizer.normalize_str(text) if tokenizer == "transfer" else text
    assert found.removeprefix(" ") == expected.removeprefix(" ")


@pytest.mark.parametrize("tokenizer", ["transfer", "bytes"])
def test_tfidf_is_that_of_a_peer(tokenizer: str) -> None:
    layer = TfIdf(300, text_shape(tokenizer))
    layer_ids = torch.from_numpy(ids(CORPUS, tokenizer))
    fit_public(torch.nn.Sequential(layer, torch.nn.Linear(300, 4)), layer_ids.numpy())
    names = layer.vocabulary.numpy().tobytes().decode().split("\n")
    peer = TfidfVectorizer(analyzer=analyzer(), vocabulary=names, sublinear_tf=True)
    texts = [text.lower() for text in CORPUS] if tokenizer == "transfer" else CORPUS
    expected = np.zeros((len(CORPUS), 300))
    expected[:, : len(names)] = peer.fit_transform(texts).toarray()
    np.testing.assert_allclose(layer(layer_ids).numpy(), expected, atol=1e-6)
    frequency = (expected > 0).mean(axis=0)[: len(names)]
    assert frequency.max() <= 0.1
    assert frequency.min() >= 2 / len(CORPUS)


def test_the_most_frequent_grams_are_kept() -> None:
    few, all_of_them = (TfIdf(count, text_shape()).fit(torch.from_numpy(ids(CORPUS))) for count in (10, 2000))
    weights = np.sort(all_of_them["weights"].numpy()[all_of_them["weights"].numpy() > 0])
    np.testing.assert_allclose(np.sort(few["weights"].numpy()), weights[:10])


def test_a_text_without_a_known_word_has_no_features() -> None:
    network = build(Model(kind="tfidf", options={"grams": 100}), text_shape(), seed=0)
    fit_public(network, ids(CORPUS))
    features = network[0](torch.from_numpy(ids(["", "xqj", CORPUS[0]])))
    assert features[:2].abs().max() == 0
    assert features[2].norm() == pytest.approx(1)


def test_texts_that_share_nothing_make_no_vocabulary() -> None:
    with pytest.raises(ModelError, match="no word or part of a word stands in 2 or more of the 3 texts"):
        TfIdf(10, text_shape()).fit(torch.from_numpy(ids(["abc", "defg", "hij"])))
    with pytest.raises(ModelError, match="no word or part of a word"):
        TfIdf(10, text_shape()).fit(torch.from_numpy(ids(["", "", ""])))


def test_ids_that_nobody_can_read_back_are_refused() -> None:
    with pytest.raises(ModelError, match="set data.tokenizer to 'transfer' or 'bytes'"):
        TfIdf(10, InputShape("text", (4,), 2, 9)).fit(torch.ones((3, 4), dtype=torch.int64))


def test_tfidf_is_for_texts_and_components_are_not_for_embeddings() -> None:
    with pytest.raises(ModelError, match="tfidf reads texts, and the data is tabular"):
        build(Model(kind="tfidf"), TABLE, seed=0)
    with pytest.raises(ModelError, match="take tfidf"):
        build(Model(kind="logistic", options={"components": 3}), text_shape(), seed=0)


# ---- kernel ----


def test_inner_products_of_kernel_features_are_the_kernel() -> None:
    x = rows(30)
    layer = GaussianKernel(50)  # more than there are rows
    fit_public(torch.nn.Sequential(layer, torch.nn.Linear(50, 3)), x)
    mapped = layer(torch.from_numpy(x)).double().numpy()
    squares = np.square(x[:, None].astype(np.float64) - x).sum(axis=2)
    bandwidth = np.median(squares[np.triu_indices(30, 1)])
    np.testing.assert_allclose(mapped @ mapped.T, np.exp(-squares / bandwidth), atol=2e-3)


# ---- any of them ----

CASES = {
    "logistic": (Model(kind="logistic", options={"components": 4}), TABLE),
    "kernel": (Model(kind="kernel", options={"landmarks": 10}), TABLE),
    "kernel of components": (Model(kind="kernel", options={"landmarks": 10, "components": 4}), TABLE),
    "hog": (Model(kind="hog", options={"components": 5}), InputShape("image", (1, 16, 16), 3)),
    "tfidf": (Model(kind="tfidf", options={"grams": 50, "components": 6}), text_shape()),
}


def transfer_of(shape: InputShape, count: int = 30) -> np.ndarray:
    if shape.modality == "text":
        return ids(CORPUS)  # of fewer, every word would stand in too many or too few
    if shape.modality == "image":
        return np.random.default_rng(1).random((count, *shape.dimensions)).astype(np.float32)
    return rows(count)


@pytest.mark.parametrize("case", CASES)
def test_what_one_network_took_another_is_given(case: str) -> None:
    model, shape = CASES[case]
    transfer = transfer_of(shape)
    fitted, other = (build(model, shape, seed=0) for _ in range(2))
    public = fit_public(fitted, transfer)
    give_public(other, public)
    x = torch.from_numpy(transfer)
    assert torch.equal(fitted(x), other(x))
    assert not torch.equal(fitted(x), build(model, shape, seed=0)(x))
    assert not public.keys() & state_of(other).keys()  # nothing of it counts as weights
    refuse_unsuited(other, probe(shape, 3))
    assert split_frozen(other.train()) is not None


@pytest.mark.parametrize("case", CASES)
def test_what_was_taken_otherwise_is_refused(case: str) -> None:
    model, shape = CASES[case]
    public = Fits(transfer_of(shape), shape).of(model)
    with pytest.raises(ModelError, match="fitted otherwise on the transfer set"):
        network_of(model, shape, 0, None, {})
    with pytest.raises(ModelError, match="fitted otherwise on the transfer set"):
        network_of(model, shape, 0, None, {**public, "0.other": np.zeros(1)})


def test_models_that_take_nothing_have_no_fit() -> None:
    assert Fits(rows(5), TABLE).of(Model(kind="mlp")) == {}


@pytest.mark.parametrize("case", CASES)
def test_a_student_is_whole_in_its_folder(case: str, tmp_path: Path) -> None:
    model, shape = CASES[case]
    network = network_of(model, shape, 3, None, Fits(transfer_of(shape), shape).of(model))
    save_model(network, model, shape, tuple("abcd"[: shape.classes]), tmp_path / "student")
    x = torch.from_numpy(transfer_of(shape, 5))
    assert torch.equal(load_student(tmp_path / "student")(x), network.eval()(x))


@pytest.mark.parametrize("case", CASES)
def test_a_folder_with_something_else_is_refused(case: str, tmp_path: Path) -> None:
    model, shape = CASES[case]
    network = network_of(model, shape, 3, None, Fits(transfer_of(shape), shape).of(model))
    save_model(network, model, shape, tuple("abcd"[: shape.classes]), tmp_path / "student")
    file = tmp_path / "student" / "model.safetensors"
    whole = load_file(file)
    for name in public_of(network):
        for changed in (whole[name].reshape(-1)[:1].repeat(7), None):
            save_file(
                {k: v for k, v in whole.items() if k != name} | ({} if changed is None else {name: changed}), file
            )
            with pytest.raises(FolderError, match="holds no model of securekd"):
                load_student(tmp_path / "student")


# ---- what cannot be ----


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Model(kind="logistic", options={"components": 0}), "components = 0 is no number from 1"),
        (Model(kind="logistic", options={"components": 2, "whitening": "x"}), "whitening = 'x' is no number from 0"),
        (Model(kind="logistic", options={"components": 2, "whitening": 1e5}), "whitening = 100000.0 is no number"),
        (Model(kind="kernel", options={"landmarks": -1}), "landmarks = -1 is no number from 1"),
        (Model(kind="kernel", options={"landmarks": True}), "landmarks = True is no number from 1"),
    ],
)
def test_options_that_count_nothing_are_refused(model: Model, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        build(model, TABLE, seed=0)


def test_rows_that_are_alike_or_not_finite_are_refused() -> None:
    kernel = Model(kind="kernel", options={"landmarks": 10})
    with pytest.raises(ModelError, match="all alike to a kernel"):
        Fits(np.full((20, 12), 0.3, np.float32), TABLE).of(kernel)
    with pytest.raises(ModelError, match="inputs that are not finite"):
        Fits(np.full((20, 12), np.nan, np.float32), TABLE).of(kernel)


def test_a_kernel_of_mostly_equal_rows_sees_the_others() -> None:
    x = np.concatenate([np.zeros((40, 12), np.float32), rows(10)])
    network = build(Model(kind="kernel", options={"landmarks": 50}), TABLE, seed=0)
    fit_public(network, x)
    assert network[:-1](torch.from_numpy(rows(5, seed=3))).abs().sum(1).min() > 0.01


class Hidden(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = Principal(3, 1.0), torch.nn.Linear(3, 3)


def test_public_layers_that_are_no_sequence_are_refused() -> None:
    with pytest.raises(ModelError, match="is no nn.Sequential"):
        fit_public(Hidden(), rows(20))


def test_a_folder_that_would_take_all_memory_is_refused(tmp_path: Path) -> None:
    """Megabytes of a file, in which a token stands for megabytes of text."""
    model, shape = CASES["tfidf"]
    network = network_of(model, shape, 3, None, Fits(transfer_of(shape), shape).of(model))
    network[0].text = torch.full((2**22,), 97, dtype=torch.uint8)
    network[0].ends = torch.full((shape.vocabulary,), 2**22)
    network[0].ends[0] = 0
    save_model(network, model, shape, tuple("abcd"), tmp_path / "student")
    with pytest.raises(FolderError, match="more than 16777216 bytes"):
        load_student(tmp_path / "student")
