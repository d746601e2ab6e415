"""Public features of transfer rows: plain vectors, near to each other where inputs are alike.

A noise-aware student smooths released scores over rows that are alike. Nothing here sees a private row.
"""

import numpy as np

from securekd.data.examples import Examples
from securekd.models.shape import SMALLEST_ORIENTED

# Words of a text are projected to so many principal directions.
TEXT_DIRECTIONS = 100


def public_features(transfer: Examples) -> np.ndarray:
    """Features (m, p), float64, of a transfer set.

    Images: histograms of oriented gradients (below 16 pixels, the pixels themselves). Tables: the encoded columns.
    Texts: principal directions of tf–idf word-piece counts.
    """
    if transfer.modality == "text":
        return _latent_semantics(transfer.inputs)
    if transfer.modality == "image" and min(transfer.inputs.shape[2:]) >= SMALLEST_ORIENTED:
        return _oriented_gradients(transfer.inputs)
    return np.asarray(transfer.inputs.reshape(len(transfer), -1), np.float64)


def _oriented_gradients(images: np.ndarray) -> np.ndarray:
    import torch

    from securekd.models.hog import Hog

    with torch.inference_mode():
        parts = [Hog()(torch.tensor(images[i : i + 512])).double().numpy() for i in range(0, len(images), 512)]
    return np.concatenate(parts)


def _latent_semantics(tokens: np.ndarray) -> np.ndarray:
    """Latent semantic analysis (Deerwester et al. 1990) of token ids (m, L), where 0 pads; rows have unit length."""
    from scipy.sparse import coo_matrix
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfTransformer

    rows, places = np.nonzero(tokens)
    counts = coo_matrix((np.ones(len(rows)), (rows, tokens[rows, places])), shape=(len(tokens), int(tokens.max()) + 1))
    weighted = TfidfTransformer(sublinear_tf=True).fit_transform(counts.tocsr())
    size = min(TEXT_DIRECTIONS, weighted.shape[1] - 1, len(tokens) - 1)
    latent = TruncatedSVD(size, random_state=0).fit_transform(weighted)
    return np.asarray(latent / np.maximum(np.linalg.norm(latent, axis=1, keepdims=True), 1e-12))
