"""The small models that come with the toolkit: logistic regression, an MLP, a CNN.

Each takes a batch of inputs as `securekd.data.Examples` holds them and gives logits (N, classes). Nothing in them
mixes examples (no batch norm), so each has well-defined per-example gradients.
"""

import math

import torch
from torch import Tensor, nn

from securekd.errors import ModelError
from securekd.models.public import headed
from securekd.models.shape import InputShape


class Centre(nn.Module):
    """Subtract the public mean and divide by the public deviation (without them: map [0, 1] to [-1, 1]).

    Both come from the transfer set. Under DP-SGD centred inputs matter: a constant background would take most of
    each clipped gradient.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, shape: InputShape) -> None:
        super().__init__()
        known = bool(shape.public_mean)
        mean = torch.tensor(shape.public_mean).view(shape.dimensions) if known else torch.full(shape.dimensions, 0.5)
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", torch.tensor(shape.public_deviation if known else 0.5))

    def forward(self, x: Tensor) -> Tensor:
        """Inputs (N, ...) to the same shape."""
        return (x - self.mean) / self.deviation


class MeanEmbedding(nn.Module):
    """Average of the token embeddings of a text; token 0 is padding and does not count."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width, padding_idx=0)

    def forward(self, tokens: Tensor) -> Tensor:
        """Token ids (N, L) to means (N, width)."""
        weight = (tokens != 0).unsqueeze(-1).to(self.embedding.weight.dtype)
        mean: Tensor = (self.embedding(tokens) * weight).sum(1) / weight.sum(1).clamp(min=1.0)
        return mean


def _head_inputs(shape: InputShape, embedding: int) -> tuple[nn.Module, int]:
    if shape.modality == "text":
        return MeanEmbedding(shape.vocabulary, embedding), embedding
    return nn.Sequential(Centre(shape), nn.Flatten()), math.prod(shape.dimensions)


def logistic(
    shape: InputShape, *, embedding: int = 64, components: int | None = None, whitening: float = 1.0
) -> nn.Module:
    """Multinomial logistic regression on the flattened inputs (texts: on the mean of learnt embeddings).

    Args:
        shape: of the inputs.
        embedding: length of the embeddings.
        components: principal components of the transfer set that it sees; None: the inputs. Texts have none.
        whitening: see `Principal`.

    Raises:
        ModelError: for components of texts.
    """
    first, width = _head_inputs(shape, embedding)
    if components is not None and shape.modality == "text":
        raise ModelError(f"components = {components} of learnt embeddings are not public; take tfidf, which has some")
    return headed([first], width, shape, None, components, whitening)


def mlp(shape: InputShape, *, hidden: int = 64, layers: int = 1, embedding: int = 64) -> nn.Module:
    """A perceptron with `layers` hidden layers of `hidden` tanh units.

    Tanh, being bounded, keeps its features under DP-SGD where ReLU loses them (Papernot et al. 2021).
    """
    first, width = _head_inputs(shape, embedding)
    blocks: list[nn.Module] = [first]
    for _ in range(layers):
        blocks += [nn.Linear(width, hidden), nn.Tanh()]
        width = hidden
    return nn.Sequential(*blocks, nn.Linear(width, shape.classes))


def cnn(shape: InputShape, *, channels: int = 16, layers: int = 1) -> nn.Module:
    """`layers` 3×3 convolutions, each with group norm, tanh and 2×2 average pooling, and a linear head.

    Group norm stays within one example, and gives the head features whose gradients stand out of the noise: without
    it, a hundred examples at ε = 8 train this network no better than chance would.
    """
    depth, height, width = shape.image()
    if min(height, width) < 2**layers:
        raise ModelError(f"{layers} poolings need images of {2**layers} pixels or more, not {height}×{width}")
    body: list[nn.Module] = [Centre(shape)]
    for i in range(layers):
        out = channels * 2**i
        body += [nn.Conv2d(depth, out, 3, padding=1), nn.GroupNorm(math.gcd(4, out), out), nn.Tanh(), nn.AvgPool2d(2)]
        depth, height, width = out, height // 2, width // 2
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(depth * height * width, shape.classes))
