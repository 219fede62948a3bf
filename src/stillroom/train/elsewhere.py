"""The `llamafactory` and `axolotl` trainers: files in those programs' forms, and the programs run.

Without the program, the files are written all the same and the message says how to run it. Sources
of the forms: LLaMA-Factory's `data/README.md` and `src/llamafactory/hparams`; axolotl's
configuration reference.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shlex
import shutil
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

import yaml

from stillroom.errors import SetupError
from stillroom.train.finetune import Finetune, complete
from stillroom.train.retold import Retold, read_retold
from stillroom.train.tool import check_model, gpus, run_tool, write_conversations
from stillroom.train.trainer import Job, Setting, Trained, TrainingFailed
from stillroom.train.weights import take_student


class LlamaFactorySettings(Finetune):
    """Settings of LLaMA-Factory.

    Attributes:
        template: Its name of the chat template; the base model's own if unset.
    """

    template: str | None = None


class _Program:
    """What the two have in common.

    Rows become tokens first, in one process and without a GPU; they are read back and compared with
    the rows before anything is trained.

    Attributes:
        EXECUTABLE: Its command, found in PATH.
        NAMED: Environment variable that may hold the path of the command instead.
        FORM: Its settings.
        PREPARES: Its word for turning rows into tokens.
    """

    VERSION: int
    TOGETHER = 1
    EXECUTABLE: ClassVar[str]
    NAMED: ClassVar[str]
    FORM: ClassVar[type[Finetune]] = Finetune
    PREPARES: ClassVar[str]

    def settings(self, preset: str | None, given: Mapping[str, Setting]) -> dict[str, Any]:
        """Complete the settings."""
        settings = complete(self.FORM, preset, given)
        if settings.method != "full":
            raise ValueError(f"method is {settings.method!r}; expected full. Use trainer trl")
        return settings.model_dump(exclude_none=True)

    def train(self, job: Job) -> Trained:
        """Write the files, run the program, and take the model that it leaves."""
        folder = job.folder.resolve()
        rows = write_conversations(job, folder / "data" / "rows.jsonl")
        settings = self.FORM.model_validate(job.settings)
        devices = max(1, gpus())
        config = self.config(settings, job, folder, rows, devices)
        _write(folder / "config.yaml", config)
        _write(folder / "prepare.yaml", self.preparation(config))
        program, out = self._program(), folder / "out"
        retold = None
        if not _brought(out, program):
            if program is None:
                raise SetupError(self._missing(folder))
            if not _finished(folder / "tokens"):
                shutil.rmtree(folder / "tokens", ignore_errors=True)
                self._run(program, self.PREPARES, folder / "prepare.yaml", alone=True)
            retold = self._read(job, settings, folder)
            # Now it is known how many rows there are for it.
            _write(folder / "config.yaml", self.config(settings, job, folder, retold.rows, devices))
            _drop_torn(out)
            self._run(program, "train", folder / "config.yaml")
        elif _finished(folder / "tokens"):
            retold = self._read(job, settings, folder)
        check_model(out, self.EXECUTABLE)
        take_student(out, job.base, folder / "model")
        return _trained(rows, retold, out, devices)

    def _program(self) -> str | None:
        named = os.environ.get(self.NAMED)
        if named and shutil.which(named) is None:
            raise SetupError(
                f"{self.NAMED} is {named}; expected the path of {self.EXECUTABLE}. Correct it."
            )
        return shutil.which(named or self.EXECUTABLE)

    def _missing(self, folder: Path) -> str:
        commands = [
            shlex.join([self.EXECUTABLE, verb, str(folder / name)])
            for verb, name in ((self.PREPARES, "prepare.yaml"), ("train", "config.yaml"))
        ]
        return (
            f"{self.EXECUTABLE}: no such program; expected it to train. Its files are in {folder}. "
            f"Install it, or name it in {self.NAMED}, and run again; or run `{commands[0]}` and "
            f"`{commands[1]}` where it is, leave the model in {folder / 'out'}, and run again."
        )

    def _run(self, program: str, verb: str, config: Path, *, alone: bool = False) -> None:
        # What it starts itself, such as torchrun, lies beside it.
        beside = str(Path(program).resolve().parent)
        environment = {
            "PATH": f"{beside}{os.pathsep}{os.environ.get('PATH', '')}",
            "HF_DATASETS_CACHE": str(config.parent / "cache"),
            "WANDB_DISABLED": "true", "DO_NOT_TRACK": "1", "PYTHONUNBUFFERED": "1",
        }  # fmt: skip
        if alone:
            environment.update(CUDA_VISIBLE_DEVICES="", FORCE_TORCHRUN="0")
        run_tool([program, verb, str(config)], config.with_suffix(".log"), environment=environment)

    def _read(self, job: Job, settings: Finetune, folder: Path) -> Retold:
        files = sorted((folder / "tokens").rglob("*.arrow"))
        return read_retold(files, job, settings.max_length, self.EXECUTABLE)

    def preparation(self, config: dict[str, Any]) -> dict[str, Any]:
        """Return the configuration with which it only turns rows into tokens."""
        return config

    def config(
        self, settings: Any, job: Job, folder: Path, rows: int, devices: int
    ) -> dict[str, Any]:
        """Return the program's configuration.

        Args:
            settings: Of ``FORM``.
            job: What to train.
            folder: Work folder; rows are in ``data``, tokens go to ``tokens``, the model to
                ``out``.
            rows: How many there are.
            devices: GPUs.
        """
        raise NotImplementedError


class LlamaFactory(_Program):
    """Trains with LLaMA-Factory, what OpenThoughts used. See `Finetune`, and ``template``."""

    VERSION = 2
    EXECUTABLE = "llamafactory-cli"
    NAMED = "STILLROOM_LLAMAFACTORY"
    FORM = LlamaFactorySettings
    PREPARES = "train"

    def config(
        self, settings: LlamaFactorySettings, job: Job, folder: Path, rows: int, devices: int
    ) -> dict[str, Any]:
        """Return its configuration, and describe the rows in dataset_info.json."""
        columns = {
            "rows": {
                "file_name": "rows.jsonl",
                "formatting": "sharegpt",
                "columns": {"messages": "messages"},
                "tags": {
                    "role_tag": "role", "content_tag": "content",
                    "user_tag": "user", "assistant_tag": "assistant",
                },
            }
        }  # fmt: skip
        info = folder / "data" / "dataset_info.json"
        info.write_text(json.dumps(columns, indent=1) + "\n", "utf-8")
        return _given({
            "model_name_or_path": str(job.base.resolve()),
            "trust_remote_code": False,
            "stage": "sft",
            "do_train": True,
            "finetuning_type": "full",
            "dataset": "rows",
            "dataset_dir": str(folder / "data"),
            "tokenized_path": str(folder / "tokens"),
            "template": settings.template,
            "cutoff_len": settings.max_length,
            "packing": settings.packing,
            "neat_packing": settings.packing,
            "enable_liger_kernel": settings.liger,
            "disable_gradient_checkpointing": not settings.gradient_checkpointing,
            # Each packs its own rows, a thousand at a time: how many there are changes the lines.
            "preprocessing_num_workers": max(1, min(16, rows // 1000)),
            "overwrite_cache": True,
            "output_dir": str(folder / "out"),
            "save_only_model": False,
            "save_total_limit": 2,
            "report_to": "none",
            "logging_steps": 1,
            # Otherwise a loss that is no number is left out of the mean, and nobody hears of it.
            "logging_nan_inf_filter": False,
            **_shared(settings, job, devices),
            "num_train_epochs": settings.epochs,
            "per_device_train_batch_size": settings.per_device_batch,
            "lr_scheduler_type": settings.schedule,
            "optim": "adamw_torch",
            "bf16": settings.precision == "bf16",
            "save_strategy": "steps" if settings.checkpoint_steps else "epoch",
            "ddp_timeout": 180000000,
            "deepspeed": _sharding(folder, devices),
        })  # fmt: skip

    def preparation(self, config: dict[str, Any]) -> dict[str, Any]:
        """Return its configuration without training; tokens are saved, and the model is read."""
        left = {name: value for name, value in config.items() if name != "deepspeed"}
        return {**left, "do_train": False, "use_cpu": True, "bf16": False}


class Axolotl(_Program):
    """Trains with axolotl, by the base model's own chat template. See `Finetune`."""

    VERSION = 3
    EXECUTABLE = "axolotl"
    NAMED = "STILLROOM_AXOLOTL"
    PREPARES = "preprocess"

    def config(
        self, settings: Finetune, job: Job, folder: Path, rows: int, devices: int
    ) -> dict[str, Any]:
        """Return its configuration."""
        return _given({
            "base_model": str(job.base.resolve()),
            "trust_remote_code": False,
            "datasets": [{
                "path": str(folder / "data" / "rows.jsonl"),
                "ds_type": "json",
                "type": "chat_template",
                "chat_template": "tokenizer_default",
                "field_messages": "messages",
                "message_property_mappings": {"role": "role", "content": "content"},
                "roles_to_train": ["assistant"],
                "train_on_eos": "turn",
            }],
            "dataset_prepared_path": str(folder / "tokens"),
            "shuffle_merged_datasets": False,  # the order is that of the seed, and of no more
            "val_set_size": 0,
            "sequence_len": settings.max_length,
            "excess_length_strategy": "truncate",
            "sample_packing": settings.packing,
            # Without it, rows that share a line would see each other.
            "attn_implementation": "flash_attention_2" if settings.packing else None,
            "plugins": ["axolotl.integrations.liger.LigerPlugin"] if settings.liger else None,
            "liger_fused_linear_cross_entropy": True if settings.liger else None,
            "output_dir": str(folder / "out"),
            "auto_resume_from_checkpoints": True,
            "save_total_limit": 2,
            "logging_steps": 1,
            **_shared(settings, job, devices),
            "max_steps": settings.max_steps or _steps(settings, rows),
            "num_epochs": settings.epochs,
            "micro_batch_size": settings.per_device_batch,
            "lr_scheduler": settings.schedule,
            "optimizer": "adamw_torch",
            "bf16": settings.precision == "bf16",
            "gradient_checkpointing": settings.gradient_checkpointing,
            "saves_per_epoch": None if settings.checkpoint_steps else 1,
            "deepspeed": _sharding(folder, devices),
        })  # fmt: skip


def _steps(settings: Finetune, rows: int) -> int | None:
    """Count the steps of whole epochs; axolotl alone would leave out the last of some.

    Packed lines are known to axolotl only.
    """
    if settings.packing:
        return None
    return math.ceil(settings.epochs * math.ceil(rows / settings.global_batch))


def _sharding(folder: Path, devices: int) -> str | None:
    """Write DeepSpeed's configuration if there are several GPUs, and return its path."""
    if devices < 2:
        return None
    path = folder / "zero3.json"
    path.write_text(files("stillroom.train").joinpath("zero3.json").read_text("utf-8"), "utf-8")
    return str(path)


def _shared(settings: Finetune, job: Job, devices: int) -> dict[str, Any]:
    """Return what both programs call by the same names."""
    return {
        "gradient_accumulation_steps": settings.accumulation(devices),
        "learning_rate": settings.learning_rate,
        "max_steps": settings.max_steps,
        "warmup_ratio": settings.warmup_ratio,
        "weight_decay": settings.weight_decay,
        "adam_beta1": settings.adam_beta1,
        "adam_beta2": settings.adam_beta2,
        "adam_epsilon": settings.adam_epsilon,
        "max_grad_norm": settings.max_grad_norm,
        "save_steps": settings.checkpoint_steps,
        "seed": settings.first_seed + job.seed,
    }


def _given(config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if value is not None}


def _write(path: Path, config: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(config, sort_keys=False), "utf-8")


def _finished(tokens: Path) -> bool:
    """Tell whether tokens were written to their end: what describes them is written last."""
    return any(tokens.rglob("dataset_info.json")) and not any(tokens.rglob("*.incomplete"))


def _brought(out: Path, program: str | None) -> bool:
    """Tell whether a model was trained elsewhere and brought here.

    What is trained here has checkpoints beside it.
    """
    if program is None:
        return out.exists()
    return any(out.glob("*.safetensors")) and not any(out.glob("checkpoint-*"))


def _drop_torn(out: Path) -> None:
    """Delete checkpoints that a kill cut short; the state of the trainer is written last."""
    for path in out.glob("checkpoint-*"):
        try:
            json.loads((path / "trainer_state.json").read_text("utf-8"))
        except (OSError, ValueError):
            shutil.rmtree(path)


def _state(out: Path) -> dict[str, Any]:
    """Read the last state of the trainer: beside the model, or in the last checkpoint."""
    last = sorted(out.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    for place in (out, *last[-1:]):
        with contextlib.suppress(OSError, ValueError):
            state = json.loads((place / "trainer_state.json").read_text("utf-8"))
            return state if isinstance(state, dict) else {}
    return {}


def _trained(rows: int, retold: Retold | None, out: Path, devices: int) -> Trained:
    """Tell what transformers' trainer noted in its state, where it did, and of the tokens."""
    state = _state(out)
    history = [entry for entry in state.get("log_history", ()) if "loss" in entry]
    losses = [round(float(entry["loss"]), 4) for entry in history]
    if not all(map(math.isfinite, losses)):
        step = next(e["step"] for e in history if not math.isfinite(float(e["loss"])))
        raise TrainingFailed(f"the loss is no number at step {step}; lower the learning rate")
    details: dict[str, Any] = {"devices": devices}
    if "global_step" in state:
        details["steps"] = state["global_step"]
    if retold is None:
        return Trained(rows=rows, losses=losses, details=details)
    epochs = float(state.get("epoch") or 1.0)
    seen = round(retold.rows * min(1.0, epochs))
    return Trained(
        rows=seen,
        unseen=retold.rows - seen,
        truncated=retold.truncated,
        skipped=retold.skipped,
        tokens=round(retold.tokens * epochs),
        losses=losses,
        details={**details, "lines": retold.lines, "otherwise": retold.otherwise},
    )
