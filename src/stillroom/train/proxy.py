"""The `proxy` trainer: small Qwen2 models, on a CPU core each, or many at once on a GPU.

It is for students of about a million parameters. What holds for them is a fact about them.
"""

from __future__ import annotations

import copy
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stillroom.errors import ModelError, SetupError
from stillroom.models.chat import Message
from stillroom.models.local.checkpoint import Checkpoint, PromptError
from stillroom.train.tool import gpus
from stillroom.train.trainer import Example, Job, Scalar, Setting, Trained, TrainingFailed

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
        lesson = _School(job.base).lesson(job)
        from stillroom.train.loop import train

        settings = lesson.settings

        def report(step: int, loss: float, cpu_s: float) -> None:
            if not math.isfinite(loss):
                raise _not_finite(loss, step / settings.steps, settings.steps)
            job.report(step / settings.steps, loss)

        return _graduate(job, lesson, train(lesson.model, lesson.rows, settings, report=report))

    def train_many(self, jobs: Sequence[Job]) -> list[Trained | TrainingFailed]:
        """Train students of one base and the same settings together, and write their models.

        On the GPU if there is one; where it has no room for all, half of them at once, and so on.
        A student that fails does not stop the others.

        Raises:
            RuntimeError: If the GPU has no room for a single student, or breaks down.
        """
        school = _School(jobs[0].base)
        found: dict[int, Trained | TrainingFailed] = {}
        lessons: dict[int, _Lesson] = {}
        for number, job in enumerate(jobs):
            try:
                lessons[number] = school.lesson(job)
            except TrainingFailed as error:
                found[number] = error
        waiting = list(lessons)
        room, details = len(waiting), {"device": _device()}
        while waiting:
            some, waiting = waiting[:room], waiting[room:]
            records = _train_together(
                [jobs[number] for number in some],
                [lessons[number] for number in some],
                details["device"],
            )
            if records is None:
                waiting, room = some + waiting, -(-room // 2)
                details["note"] = (
                    f"the GPU has no room for {len(some)} students at once; {room} are trained at "
                    "once. Free its memory, or lower tokens_per_step."
                )
                continue
            for number, record in zip(some, records, strict=True):
                lost = [not math.isfinite(loss) for loss in record.losses]
                if any(lost):
                    at = lost.index(True)
                    found[number] = _not_finite(
                        record.losses[at], (at + 1) / len(lost), record.steps
                    )
                else:
                    found[number] = _graduate(jobs[number], lessons[number], record, **details)
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


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


class _Lesson(NamedTuple):
    model: Qwen2
    rows: list[TokenRow]
    skipped: int
    settings: TrainSettings


class _School:
    """A base model, read once, and rows in its tokens, made once however many students share them.

    Raises:
        SetupError: If torch is not installed.
        ModelError: If the base is no Qwen2 model.
    """

    def __init__(self, base: Path) -> None:
        try:
            import torch

            from stillroom.train.model import load_model
        except ImportError as error:
            raise SetupError(
                f"trainer proxy: {error.name} is not installed; expected the extra. "
                "Run pip install 'stillroom[study]'."
            ) from error
        # As in training: for tensors of this size, other threads are only waited for.
        torch.set_num_threads(1)
        self.checkpoint = Checkpoint(base)
        try:
            self.model = load_model(base)
        except ValueError as error:
            raise ModelError(f"{error}; expected a Qwen2 model. Train it with trl.") from None
        self.known: dict[Example, TokenRow | None] = {}

    def lesson(self, job: Job) -> _Lesson:
        """Give a student its rows, and a copy of the base model.

        Raises:
            TrainingFailed: If no row fits.
        """
        from stillroom.train.batches import BUCKETS
        from stillroom.train.loop import TrainSettings

        rows, skipped = [], 0
        for example in job.examples():
            if example not in self.known:
                self.known[example] = self._tokens(example)
            row = self.known[example]
            if row is None or len(row.tokens) > BUCKETS[-1]:
                skipped += 1
            else:
                rows.append(row._replace())  # a row that is there twice is seen twice
        if not rows:
            raise TrainingFailed(
                f"no row fits: {skipped} of {skipped} are longer than {BUCKETS[-1]} tokens or "
                "refused by the chat template"
            )
        settings = TrainSettings(**dict(job.settings), seed=job.seed)
        return _Lesson(copy.deepcopy(self.model), rows, skipped, settings)

    def _tokens(self, example: Example) -> TokenRow | None:
        """Turn a row into tokens, unless the chat template refuses it."""
        from stillroom.train.batches import TokenRow

        try:
            prompt = self.checkpoint.prompt((Message("user", example.question),))
            said = self.checkpoint.reply(prompt, example.reasoning, example.answer)
        except PromptError:
            return None
        return TokenRow([*prompt.tokens, *said], len(prompt.tokens))


def _train_together(
    jobs: Sequence[Job], lessons: Sequence[_Lesson], device: str
) -> list[TrainRecord] | None:
    """Train some students at once; None if the device has no room for so many."""
    import torch

    from stillroom.train.ensemble import train_together

    steps = lessons[0].settings.steps

    def report(step: int, losses: Sequence[float]) -> None:
        for job, loss in zip(jobs, losses, strict=True):
            job.report(step / steps, loss)

    try:
        return train_together(
            [lesson.model for lesson in lessons],
            [lesson.rows for lesson in lessons],
            [lesson.settings for lesson in lessons],
            device=device,
            report=report,
        )
    except torch.OutOfMemoryError:
        if len(lessons) == 1:
            raise
    # The error held what the device gave out.
    torch.cuda.empty_cache()
    return None


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


def _not_finite(loss: float, share: float, steps: int) -> TrainingFailed:
    return TrainingFailed(
        f"the loss is {loss} at step {round(share * steps)} of {steps}; lower the learning rates"
    )
