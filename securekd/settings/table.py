"""A table of settings: what every table has in common."""

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

PLUGIN = "a `module:attribute` of your own"


class Settings(BaseModel):
    """A table of settings: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _kept_exactly(cls, value: object, info: ValidationInfo) -> object:
        """An integer is what was written, or refused: TOML's have 64 bits, and not every one is a float."""
        if isinstance(value, int):
            if not -(2**63) <= value < 2**63:
                raise ValueError("an integer of more than 64 bits; write a smaller one")
            number = cls.model_fields[str(info.field_name)].annotation in (float, float | None)
            if number and float(value) != value:
                raise ValueError(f"no floating-point number is this integer; write {float(value)!r} if that will do")
        return value
