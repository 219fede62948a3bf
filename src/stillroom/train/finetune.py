"""Settings of supervised fine-tuning, shared by the trainers that drive other programs.

A setting that nobody gives stays unset: it is not handed on, and the program's own default counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from stillroom.train.trainer import Setting, TrainingFailed

REQUIRED = ("learning_rate", "global_batch", "epochs", "max_length")


class Finetune(BaseModel):
    """How a model is fine-tuned.

    Attributes:
        method: ``full``, or ``lora``: low-rank adapters, merged into the model at the end.
        learning_rate: The highest of the schedule.
        global_batch: Rows (packed lines, with ``packing``) per optimizer step, over all GPUs.
        per_device_batch: Of these, rows on one GPU at a time; the rest is accumulated.
        epochs: Times that the rows are gone through.
        max_steps: Optimizer steps to stop after, in place of ``epochs``.
        max_length: Tokens of a row; longer rows are cut at the end and counted.
        packing: Whether rows share a line of ``max_length`` tokens. They do not see each other.
        schedule: How the learning rate falls.
        warmup_ratio: Share of the steps over which it rises first, 0 to 1.
        weight_decay: Of AdamW.
        adam_beta1: Of AdamW.
        adam_beta2: Of AdamW.
        adam_epsilon: Of AdamW.
        max_grad_norm: Norm at which gradients are clipped.
        precision: Of the passes; master weights are float32.
        liger: Whether Liger kernels are used where there is a GPU. Same results, less memory.
        gradient_checkpointing: Whether activations are computed twice to save memory.
        checkpoint_steps: Steps between checkpoints; at the end of each epoch when unset.
        first_seed: Seed of replication 0; replication n trains with n more.
        lora_rank: Rank of the adapters.
        lora_alpha: Their scale.
        lora_dropout: Their dropout, 0 to 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["full", "lora"] = "full"
    learning_rate: float = Field(gt=0, le=1)
    global_batch: int = Field(ge=1, le=1 << 20)
    per_device_batch: int = Field(1, ge=1, le=4096)
    epochs: float = Field(gt=0, le=10_000)
    max_steps: int | None = Field(None, ge=1)
    max_length: int = Field(ge=16, le=1 << 20)
    packing: bool = False
    schedule: Literal["cosine", "linear", "constant"] | None = None
    warmup_ratio: float | None = Field(None, ge=0, lt=1)
    weight_decay: float | None = Field(None, ge=0, le=1)
    adam_beta1: float | None = Field(None, ge=0, lt=1)
    adam_beta2: float | None = Field(None, ge=0, lt=1)
    adam_epsilon: float | None = Field(None, gt=0, le=1)
    max_grad_norm: float | None = Field(None, gt=0)
    precision: Literal["bf16", "float32"] = "bf16"
    liger: bool = False
    gradient_checkpointing: bool = True
    checkpoint_steps: int | None = Field(None, ge=1)
    first_seed: int = Field(42, ge=0, lt=1 << 31)
    lora_rank: int | None = Field(None, ge=1, le=4096)
    lora_alpha: int | None = Field(None, ge=1)
    lora_dropout: float | None = Field(None, ge=0, lt=1)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_as_number(cls, value: Any, info: Any) -> Any:
        numeric = info.field_name not in ("packing", "liger", "gradient_checkpointing")
        if numeric and isinstance(value, bool):
            raise ValueError("a number or a word, not true or false")
        return value

    @model_validator(mode="after")
    def _adapters(self) -> Self:
        given = [name for name in type(self).model_fields if name.startswith("lora_")]
        if self.method == "full":
            named = [name for name in given if getattr(self, name) is not None]
            if named:
                raise ValueError(f"{named[0]} is given, but method is full; expected method: lora")
        elif self.lora_rank is None or self.lora_alpha is None:
            raise ValueError("method is lora; expected lora_rank and lora_alpha too")
        return self

    def accumulation(self, devices: int) -> int:
        """Return how many passes make one optimizer step.

        Raises:
            TrainingFailed: If the batch does not divide among the devices.
        """
        together = self.per_device_batch * devices
        if self.global_batch % together:
            raise TrainingFailed(
                f"global_batch is {self.global_batch}; expected a multiple of {together}, "
                f"per_device_batch times {devices} devices. Use another number of devices"
            )
        return self.global_batch // together


def complete(form: type[Finetune], preset: str | None, given: Mapping[str, Setting]) -> Finetune:
    """Check settings and complete them by a preset.

    Raises:
        ValueError: If there is no such preset or setting, or a value is out of range.
    """
    known = presets()
    if preset is not None and preset not in known:
        raise ValueError(f"preset is {preset!r}; expected one of {', '.join(known)}")
    for name in given:
        if name not in form.model_fields:
            known_names = ", ".join(form.model_fields)
            raise ValueError(f"{name} is no setting; expected one of {known_names}")
    values = {**(known[preset] if preset else {}), **given}
    for name in REQUIRED:
        if name not in values:
            why = f"preset {preset} leaves it open" if preset else "there is no preset"
            raise ValueError(f"{name} is not set: {why}; expected it among the settings")
    try:
        return form.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        if not first["loc"]:
            raise ValueError(message) from None
        wanted = message.removeprefix("Input should be ")
        raise ValueError(f"{first['loc'][0]} is {first['input']!r}; expected {wanted}") from None


@cache
def presets() -> Mapping[str, Mapping[str, Any]]:
    """Return the hyper-parameters of published fine-tunings, by name."""
    text = files("stillroom.train").joinpath("presets.yaml").read_text("utf-8")
    return {
        name: {**group["shared"], **own}
        for group in yaml.safe_load(text)
        for name, own in group["presets"].items()
    }
