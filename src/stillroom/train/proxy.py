"""The `proxy` trainer: small Qwen2 models, on a CPU core each, or many at once on a GPU.

It is for students of about a million parameters. What holds for them is a fact about them.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from stillroom.errors import ModelError, SetupError
from stillroom.models.chat import Message
from stillroom.models.local.checkpoint import Checkpoint, PromptError
from stillroom.train.tool import gpus
from stillroom.train.trainer import Job, Scalar, Setting, Trained, TrainingFailed

if TYPE_CHECKING:
    from stillroom.train.batches import TokenRow
    from stillroom.train.loop import TrainRecord, TrainSettings
    from stillroom.train.model import Qwen2

GROUP = 64
"""Students in one process on a GPU."""

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

    Where there is a GPU, a study trains students in groups instead (`stillroom.train.ensemble`).

    Settings: ``steps``, ``tokens_per_step``, ``muon_lr``, ``adam_lr``, ``warmup_share`` and
    ``decay`` (``linear`` or ``cosine``). Presets: ``quick`` (60 steps) and ``thorough`` (1,200).
    Rows longer than the longest line, 1,024 tokens, are skipped and counted.
    """

    VERSION = 2

    @property
    def TOGETHER(self) -> int:
        """One for each core: two processes do more than two threads of one."""
        return usable_cores()

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
        lesson = _lesson(job)
        from stillroom.train.loop import train

        settings = lesson.settings

        def report(step: int, loss: float, cpu_s: float) -> None:
            if not math.isfinite(loss):
                raise _not_finite(loss, step, settings.steps)
            job.report(step / settings.steps, loss)

        return _graduate(job, lesson, train(lesson.model, lesson.rows, settings, report=report))

    def train_many(self, jobs: Sequence[Job]) -> list[Trained | TrainingFailed]:
        """Train students of one base and the same settings together, and write their models.

        On the GPU if there is one. A student that fails does not stop the others.
        """
        found: dict[int, Trained | TrainingFailed] = {}
        lessons: dict[int, _Lesson] = {}
        for number, job in enumerate(jobs):
            try:
                lessons[number] = _lesson(job)
            except TrainingFailed as error:
                found[number] = error
        if lessons:
            import torch

            from stillroom.train.ensemble import train_together

            device = "cuda" if torch.cuda.is_available() else "cpu"
            each = list(lessons.values())
            records = train_together(
                [lesson.model for lesson in each],
                [lesson.rows for lesson in each],
                [lesson.settings for lesson in each],
                device=device,
            )
            for (number, lesson), record in zip(lessons.items(), records, strict=True):
                last = record.losses[-1]
                found[number] = (
                    _graduate(jobs[number], lesson, record, device=device)
                    if math.isfinite(last)
                    else _not_finite(last, record.steps, record.steps)
                )
        return [found[number] for number in range(len(jobs))]


def usable_cores() -> int:
    """Count the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def group_size() -> int:
    """Return how many students share a process: many where there is a GPU, else one."""
    if not gpus():
        return 1
    import torch

    return GROUP if torch.cuda.is_available() else 1


class _Lesson(NamedTuple):
    model: Qwen2
    rows: list[TokenRow]
    skipped: int
    settings: TrainSettings


def _lesson(job: Job) -> _Lesson:
    """Read the base model, and turn the rows into tokens."""
    try:
        from stillroom.train.batches import BUCKETS, TokenRow
        from stillroom.train.loop import TrainSettings
        from stillroom.train.model import load_model
    except ImportError as error:
        raise SetupError(
            f"trainer proxy: {error.name} is not installed; expected the extra. "
            "Run pip install 'stillroom[study]'."
        ) from error
    checkpoint = Checkpoint(job.base)
    rows, skipped = [], 0
    for example in job.examples():
        try:
            prompt = checkpoint.prompt((Message("user", example.question),))
            said = checkpoint.reply(prompt, example.reasoning, example.answer)
        except PromptError:
            skipped += 1
            continue
        tokens = [*prompt.tokens, *said]
        if len(tokens) > BUCKETS[-1]:
            skipped += 1
            continue
        rows.append(TokenRow(tokens, len(prompt.tokens)))
    if not rows:
        raise TrainingFailed(
            f"no row fits: {skipped} of {skipped} are longer than {BUCKETS[-1]} tokens or "
            "refused by the chat template"
        )
    try:
        model = load_model(job.base)
    except ValueError as error:
        raise ModelError(f"{error}; expected a Qwen2 model. Train it with trl.") from None
    return _Lesson(model, rows, skipped, TrainSettings(**dict(job.settings), seed=job.seed))


def _graduate(job: Job, lesson: _Lesson, record: TrainRecord, **details: str) -> Trained:
    """Write the model, and say what was done."""
    from stillroom.train.model import save_weights

    out = job.folder / "model"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    for path in job.base.iterdir():
        if path.suffix in (".json", ".jinja") and path.name != "training.json":
            shutil.copyfile(path, out / path.name)
    save_weights(lesson.model, out / "model.safetensors")
    return Trained(
        rows=record.distinct,
        unseen=len(lesson.rows) - record.distinct,
        skipped=lesson.skipped,
        tokens=record.tokens,
        losses=record.losses,
        details={"dtype": record.dtype, "cpu_s": round(record.cpu_s, 2), **details},
    )


def _not_finite(loss: float, step: int, steps: int) -> TrainingFailed:
    return TrainingFailed(f"the loss is {loss} at step {step} of {steps}; lower the learning rates")
