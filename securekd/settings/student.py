"""The global model."""

from typing import Literal

from pydantic import Field

from securekd.settings.models import AnyModel, Model
from securekd.settings.table import Settings


class Student(Settings):
    """The global model, and how it learns from the consensus."""

    model: AnyModel = Field(Model(kind="mlp"), validate_default=True, description="the student's model")
    consensus: Literal["mean", "weighted", "entropy_reduced"] = Field(
        "entropy_reduced",
        description="mean, mean weighted by (capped) examples, or entropy-reduced mean (DS-FL; of weights the mean)",
    )
    denoise: bool = Field(
        False, description="smooth noisy scores over alike transfer rows before they are learnt (strategy = 'distil')"
    )
    sharpness: float = Field(
        5.0, gt=0, description="exponent of the entropy reduction: the consensus' softmax at 1/sharpness"
    )
    memory: float = Field(
        0.3, ge=0, lt=1, description="share that the rounds before keep in the consensus' mean scores"
    )
    temperature: float = Field(1.0, gt=0, description="of teacher and student in the distillation loss")
    settle: bool = Field(
        False, description="settle each transfer row's class by those of alike rows before it is learnt (likewise)"
    )
    loss: Literal["forward_kl", "reverse_kl", "jensen_shannon", "least_squares"] = Field(
        "forward_kl",
        description="divergence that is minimised; or least_squares of probabilities, in closed form, of a linear head "
        "on fixed features (clients of other kinds learn the consensus by forward_kl)",
    )
    epochs: int = Field(100, ge=1, description="passes over the transfer set in each round")
    batch_size: int = Field(
        64, ge=1, description="rows in a step on the transfer set (the student's, and in a client's digest)"
    )
    learning_rate: float = Field(3e-3, gt=0, description="of Adam")
