"""The only reader of params.yaml: frozen, typed, checked whole before any work starts."""

from pydantic import BaseModel, ConfigDict, model_validator


class Section(BaseModel):
    """One section of params.yaml: every field is required, nothing else is allowed, no conversion.

    A YAML list becomes a tuple, so a section cannot be changed once it is read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _lists_are_tuples(cls, values: object) -> object:
        if not isinstance(values, dict):
            return values
        return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
