"""What is promised."""

from typing import Literal

from pydantic import Field

from securekd.settings.table import Settings


class Privacy(Settings):
    """What is promised, for which unit, and where the noise comes from."""

    dp_sgd: bool = Field(True, description="train with DP-SGD; false: no guarantee for examples")
    epsilon: float = Field(8.0, gt=0, description="ε for one example of a client, over the whole run")
    delta: float = Field(
        1e-5, gt=0, lt=1, description="δ that goes with epsilon; below 1/(examples of the largest client)"
    )
    client_epsilon: float | None = Field(
        None,
        gt=0,
        description="ε for a whole client in the server's view: sets the release noise; unset: release.noise does",
    )
    client_delta: float = Field(1e-5, gt=0, lt=1, description="δ of the client-level guarantee; below 1/(clients)")
    client_neighbours: Literal["zero_out", "replace_one"] = Field(
        "zero_out", description="neighbouring relation of the client-level ε: a client sends zeros, or anything else"
    )
    neighbours: Literal["add_remove", "zero_out", "replace_one"] = Field(
        "add_remove",
        description="relation of the example-level ε: an example is there or not, counted or blanked out, or another",
    )
    noise: Literal["os", "seeded"] = Field(
        "os", description="os: the system's CSPRNG; seeded: repeatable, and protects nothing"
    )
