"""The `proxy` trainer: small Qwen2 models on one CPU core, seconds to minutes per student.

It is for students of about a million parameters. What holds for them is a fact about them.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from typing import Any

from stillroom.errors import ModelError, SetupError
from stillroom.models.chat import Message
from stillroom.models.local.checkpoint import Checkpoint, PromptError
from stillroom.text.think import join_thinking
from stillroom.train.trainer import Job, Scalar, Setting, Trained, TrainingFailed

DEFAULTS: Mapping[str, Scalar] = {
    "steps": 400,
    "tokens_per_step": 1024,
    "muon_lr": 2e-3,
    "adam_lr": 1e-3,
    "warmup_share": 0.05,
    "decay": "linear",
}
PRESETS: Mapping[str, Mapping[str, Scalar]] = {
    "quick": {"steps": 60},
    "thorough": {"steps": 1200},
}
_RANGES = {
    "steps": (1, 10_000_000),
    "tokens_per_step": (64, 1 << 20),
    "muon_lr": (0.0, 1.0),
    "adam_lr": (0.0, 1.0),
    "warmup_share": (0.0, 1.0),
}


class Proxy:
    """Trains with the plain loop (`stillroom.train.loop`), one thread for each student.

    Settings: ``steps``, ``tokens_per_step``, ``muon_lr``, ``adam_lr``, ``warmup_share`` and
    ``decay`` (``linear`` or ``cosine``). Presets: ``quick`` (60 steps) and ``thorough`` (1,200).
    Rows longer than the longest line, 1,024 tokens, are skipped and counted.
    """

    VERSION = 1
    TOGETHER = 2

    def settings(self, preset: str | None, given: Mapping[str, Setting]) -> dict[str, Any]:
        """Complete the settings."""
        if preset is not None and preset not in PRESETS:
            raise ValueError(f"preset is {preset!r}; expected one of {', '.join(PRESETS)}")
        for name, value in given.items():
            if name not in DEFAULTS:
                raise ValueError(f"{name} is no setting; expected one of {', '.join(DEFAULTS)}")
            if name == "decay":
                if value not in ("linear", "cosine"):
                    raise ValueError(f"decay is {value!r}; expected linear or cosine")
                continue
            low, high = _RANGES[name]
            whole = name in ("steps", "tokens_per_step")
            number = value if isinstance(value, int if whole else (int, float)) else None
            if isinstance(value, bool) or number is None or not low <= number <= high:
                kind = "a whole number" if whole else "a number"
                raise ValueError(f"{name} is {value!r}; expected {kind}, {low:g} to {high:g}")
        return {**DEFAULTS, **(PRESETS[preset] if preset else {}), **given}

    def train(self, job: Job) -> Trained:
        """Train, and write the model."""
        try:
            from stillroom.train.loop import BUCKETS, TokenRow, TrainSettings, train
            from stillroom.train.model import load_model, save_weights
        except ImportError as error:
            raise SetupError(
                f"trainer proxy: {error.name} is not installed; expected the extra. "
                "Run pip install 'stillroom[study]'."
            ) from error
        checkpoint = Checkpoint(job.base)
        rows, skipped = [], 0
        for example in job.examples():
            try:
                prompt = checkpoint.prompt((Message("user", example.question),)).tokens
            except PromptError:
                skipped += 1
                continue
            text = join_thinking(example.reasoning, example.answer)
            tokens = [*prompt, *checkpoint.completion(text)]
            if len(tokens) > BUCKETS[-1]:
                skipped += 1
                continue
            rows.append(TokenRow(tokens, len(prompt)))
        if not rows:
            raise TrainingFailed(
                f"no row fits: {skipped} of {skipped} are longer than {BUCKETS[-1]} tokens or "
                "refused by the chat template"
            )
        try:
            model = load_model(job.base)
        except ValueError as error:
            raise ModelError(f"{error}; expected a Qwen2 model. Train it with trl.") from None
        settings = TrainSettings(**dict(job.settings), seed=job.seed)

        def report(step: int, loss: float, cpu_s: float) -> None:
            if not math.isfinite(loss):
                raise TrainingFailed(
                    f"the loss is {loss} at step {step} of {settings.steps}; lower the learning "
                    "rates"
                )
            job.report(step / settings.steps, loss)

        record = train(model, rows, settings, report=report)
        out = job.folder / "model"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        for path in job.base.iterdir():
            if path.suffix in (".json", ".jinja") and path.name != "training.json":
                shutil.copyfile(path, out / path.name)
        save_weights(model, out / "model.safetensors")
        return Trained(
            rows=len(rows),
            skipped=skipped,
            tokens=record.tokens,
            losses=record.losses,
            details={"dtype": record.dtype, "cpu_s": round(record.cpu_s, 2)},
        )
