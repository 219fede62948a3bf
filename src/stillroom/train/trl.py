"""The `trl` trainer: full or low-rank fine-tuning by TRL's SFTTrainer, on any number of GPUs.

Each stage runs in a process of its own, so that what it leaves behind on a GPU or in memory ends
with it: rows become tokens, the model is trained, the weights are saved in the base's type. A
killed run goes on at its last whole checkpoint.

Where it runs is no setting: with one GPU, or none, one process; with several, `accelerate launch`
with the configuration that STILLROOM_ACCELERATE names: `zero3`, `fsdp`, `ddp`, or a file.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from stillroom.errors import SetupError
from stillroom.store.store import write_synced
from stillroom.train.finetune import Finetune, complete
from stillroom.train.tool import check_model, gpus, run_tool
from stillroom.train.trainer import Job, Setting, Trained, TrainingFailed

LAUNCH = "STILLROOM_ACCELERATE"
SHIPPED = ("zero3", "fsdp", "ddp")
NEEDED = ("torch", "transformers", "trl", "accelerate", "datasets", "safetensors")
_WORKER = "stillroom.train.trl_worker"


class Trl:
    """Trains with TRL. Settings: see `Finetune`; presets: see presets.yaml.

    Rows are cut at ``max_length`` tokens and counted; rows whose question alone is as long are
    skipped and counted.
    """

    VERSION = 1
    TOGETHER = 1

    def settings(self, preset: str | None, given: Mapping[str, Setting]) -> dict[str, Any]:
        """Complete the settings."""
        return complete(Finetune, preset, given).model_dump(exclude_none=True)

    def train(self, job: Job) -> Trained:
        """Train, and write the model."""
        missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
        if job.settings["method"] == "lora" and importlib.util.find_spec("peft") is None:
            missing.append("peft")
        if missing:
            raise SetupError(
                f"trainer trl: {missing[0]} is not installed; expected the extra. "
                "Run pip install 'stillroom[trl]'."
            )
        description = job.folder / "job.json"
        told = {
            "base": str(job.base.resolve()), "rows": str(job.rows.resolve()),
            "folder": str(job.folder.resolve()), "settings": dict(job.settings), "seed": job.seed,
        }  # fmt: skip
        write_synced(description, json.dumps(told, indent=1) + "\n")
        self._stage(job, "prepare", [sys.executable, "-m", _WORKER])
        self._stage(job, "train", launcher(job.folder))
        self._stage(job, "finish", [sys.executable, "-m", _WORKER])
        check_model(job.folder / "model", "trl")
        prepared = json.loads((job.folder / "tokens" / "summary.json").read_text("utf-8"))
        done = json.loads((job.folder / "trained.json").read_text("utf-8"))
        seen = round(prepared["rows"] * min(1.0, done["tokens"] / prepared["tokens"]))
        return Trained(
            rows=seen,
            unseen=prepared["rows"] - seen,
            truncated=prepared["truncated"],
            skipped=prepared["skipped"],
            tokens=done.pop("tokens"),
            losses=done.pop("losses"),
            details=done,
        )

    def _stage(self, job: Job, stage: str, command: list[str]) -> None:
        failure = job.folder / "failure.json"
        failure.unlink(missing_ok=True)
        try:
            run_tool(
                [*command, stage, str(job.folder / "job.json")],
                job.folder / f"{stage}.log",
                environment={
                    "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
                    "HF_DATASETS_CACHE": str((job.folder / "cache").resolve()),
                    "TOKENIZERS_PARALLELISM": "true", "PYTHONUNBUFFERED": "1",
                },
                look=lambda: _report(job),
            )  # fmt: skip
        except TrainingFailed:
            if not failure.exists():
                raise
            said = json.loads(failure.read_text("utf-8"))
            kind = SetupError if said["kind"] == "setup" else TrainingFailed
            raise kind(said["message"]) from None


def launcher(folder: Path) -> list[str]:
    """Return the command that starts the worker on the GPUs of this machine.

    Args:
        folder: Configuration files are written here.

    Raises:
        SetupError: If STILLROOM_ACCELERATE names no configuration.
    """
    count, named = gpus(), os.environ.get(LAUNCH, "")
    if named and named not in SHIPPED and not Path(named).is_file():
        raise SetupError(
            f"{LAUNCH} is {named}; expected {', '.join(SHIPPED)}, or a configuration file of "
            "accelerate. Correct it."
        )
    if count <= 1 and named in ("", *SHIPPED):
        return [sys.executable, "-m", _WORKER]
    if not named:
        named = "zero3" if importlib.util.find_spec("deepspeed") else "fsdp"
    more = []
    config = Path(named)
    if named in SHIPPED:
        data = files("stillroom.train")
        text = data.joinpath(f"accelerate_{named}.yaml").read_text("utf-8")
        sharding = folder / "zero3.json"
        sharding.write_text(data.joinpath("zero3.json").read_text("utf-8"), "utf-8")
        config = folder / "accelerate.yaml"
        config.write_text(text.replace("zero3.json", json.dumps(str(sharding.resolve()))), "utf-8")
        more = ["--num_processes", str(count)]
    return [
        sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config),
        "--main_process_port", "0", *more, "--module", _WORKER,
    ]  # fmt: skip


def _report(job: Job) -> None:
    progress = job.folder / "progress.json"
    if progress.exists():
        share, loss = json.loads(progress.read_text("utf-8"))
        job.report(share, loss)
