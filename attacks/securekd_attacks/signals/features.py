"""What is known of records without asking any model: numbers for a classifier that never sees it."""

import zlib
from collections.abc import Sequence

import numpy as np

from securekd_attacks.errors import BadSetting, TooFewRecords
from securekd_attacks.inputs import FloatArray


def text_features(texts: Sequence[str], width: int = 128) -> FloatArray:
    """Features of texts for the blind classifier: hashed counts of byte trigrams, in proportion, and the length.

    Args:
        texts: n texts, at least one.
        width: of the hash, at least 1.

    Returns:
        Shape (n, width + 1).

    Raises:
        TooFewRecords: no text.
        BadSetting: a width below 1.
    """
    if width < 1:
        raise BadSetting("width out of range", value=width, remedy="choose at least 1")
    if not texts:
        raise TooFewRecords("no texts", value=0, remedy="pass at least one")
    features = np.zeros((len(texts), width + 1))
    for row, text in enumerate(texts):
        content = text.encode("utf-8", errors="surrogatepass")
        for start in range(len(content) - 2):
            features[row, zlib.crc32(content[start : start + 3]) % width] += 1.0
        features[row, :width] /= max(1, len(content) - 2)
        features[row, width] = np.log1p(len(content))
    return features
