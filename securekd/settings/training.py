"""How a client trains."""

from pydantic import Field

from securekd.settings.table import Settings


class Training(Settings):
    """How a client trains, on its private data and on the consensus."""

    epochs: float = Field(
        30, gt=0, le=1_000_000, description="expected passes over the private data, over all rounds together"
    )
    sampling_rate: float = Field(
        0.5, gt=0, le=1, description="probability with which each example enters a step (Poisson)"
    )
    learning_rate: float = Field(0.5, gt=0, description="of SGD on private data")
    momentum: float = Field(0.9, ge=0, lt=1, description="of SGD on private data")
    clip: float = Field(
        1.0, ge=1e-20, le=1e20, description="L2 norm to which each example's gradient is clipped (DP-SGD)"
    )
    plain_epochs: int = Field(40, ge=1, description="passes over the private data where there is no DP, in each round")
    plain_batch_size: int = Field(32, ge=1, description="examples in a step where there is no DP")
    plain_learning_rate: float = Field(3e-3, gt=0, description="of Adam where there is no DP")
    digest_epochs: int = Field(
        20, ge=0, description="passes over the transfer set with which a client learns the consensus"
    )
    digest_learning_rate: float = Field(3e-3, gt=0, description="of Adam on the consensus, and in pre-training")
    pretrain_epochs: int = Field(30, ge=0, description="passes over a labelled transfer set before the first round")
