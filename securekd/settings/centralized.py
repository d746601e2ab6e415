"""The yardstick."""

from pydantic import Field

from securekd.settings.models import AnyClientModel
from securekd.settings.table import Settings


class Centralized(Settings):
    """The yardstick: all data in one place. Tune it as well as the federation, or the comparison flatters it."""

    model: AnyClientModel | None = Field(None, description="the model trained on all data; unset: the student's")
    learning_rate: float = Field(1.0, gt=0, description="of SGD on all private data")
