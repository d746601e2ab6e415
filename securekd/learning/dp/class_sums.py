"""Class sums: what a linear head learns of the loss `-logit of an example's class`, by DP-SGD's own mechanism.

That loss' gradient is an example's features, in the row of its class. Their mean over the steps, each a Poisson sample
with clipped gradients and noise, is all that there is to learn: no step depends on the one before. With features whose
second moments on the transfer set are alike, it is the least-squares estimate of each class' density over that of the
transfer set (Kanamori et al. 2009, "A least-squares approach to direct importance estimation", section 2), times the
class' share of the examples. It needs no example of any other class. And it is linear: the sum of several clients'
heads, each counted by its examples, is the head of them all, however the classes are dealt to them.
"""

import math

import torch
from torch import Tensor, nn

from securekd.errors import ModelError
from securekd.learning.dp.closed_form import LONGEST, Features, clipped_sums, zero_sums
from securekd.learning.dp.dp_sgd import DpSgdPlan
from securekd.learning.dp.mechanism import Scratch, add_noise
from securekd.models.frozen import Split, split_linear
from securekd.models.public import LENGTH, PublicLayer
from securekd.randomness import Csprng


def split_white(model: nn.Module) -> Split:
    """A model as white public features and one linear layer.

    Raises:
        ModelError: It is something else.
    """
    split, _ = split_linear(model)
    layers = list(split.features.children())
    if not layers or not isinstance(layers[-1], PublicLayer) or not layers[-1].white:
        raise ModelError(
            "loss = 'class_sums' needs features that the transfer set whitens: set options.components of the model, "
            "with whitening = 1"
        )
    return split


@torch.no_grad()
def train_class_sums(
    head: nn.Sequential,
    features: Features,
    labels: Tensor,
    plan: DpSgdPlan | None,
    randomness: Csprng,
    *,
    share: float,
    earlier: int = 0,
    absent: int = 0,
) -> int:
    """Give a head its class sums, in place; gives the number of zeroed gradients.

    Args:
        head: one linear layer.
        features: private (N, D), white: of `LENGTH` each, and with about the same second moment in each entry.
        labels: private classes (N,), on the features' device.
        plan: sampling rate, steps, noise and clip; None sums everything up exactly.
        randomness: secret stream, for the Poisson samples and the noise.
        share: what the sums are multiplied by: the examples of this client over those of a client on average.
        earlier: trainings that `head` is the mean of already; it becomes that of one more.
        absent: see `train_dp`.
    """
    flat, totals = zero_sums(head, labels.device)
    population, zeroed = len(labels) + absent, 0
    if plan is None:
        clipped_sums(head, features, labels, LONGEST, loss="class_sums").add_to(totals, decay=1.0)
        expected = float(population)
    else:
        expected, scratch = plan.sampling_rate * population * plan.steps, Scratch.of(len(flat))
        for _ in range(plan.steps):
            rows = torch.from_numpy(randomness.poisson_sample(len(labels), plan.sampling_rate)).to(labels.device)
            sums = clipped_sums(head, features[rows], labels.index_select(0, rows), plan.clip, loss="class_sums")
            sums.add_to(totals, decay=1.0)
            add_noise(flat, plan.noise_multiplier * plan.clip, randomness, scratch)
            zeroed += sums.zeroed
    length = math.hypot(LENGTH, 1.0)  # of every gradient: the features, and 1 for the bias
    shortened = 1.0 if plan is None else min(1.0, plan.clip / length)
    for parameter, total in totals.items():
        moment = LENGTH**2 / parameter.shape[1] if parameter.dim() == 2 else 1.0
        learnt = total * (-share / (moment * shortened * expected))
        parameter.copy_((earlier * parameter + learnt) / (earlier + 1))
    return zeroed
