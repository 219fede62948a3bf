"""The `llamafactory` and `axolotl` trainers: files in those programs' forms, and the programs run.

Without the program, the files are written all the same and the message says how to run it. Sources
of the forms: LLaMA-Factory's `data/README.md` and `src/llamafactory/hparams`; axolotl's
configuration reference.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

import yaml

from stillroom.errors import SetupError
from stillroom.train.finetune import Finetune, complete
from stillroom.train.tool import check_model, gpus, run_tool, write_conversations
from stillroom.train.trainer import Job, Setting, Trained


class LlamaFactorySettings(Finetune):
    """Settings of LLaMA-Factory.

    Attributes:
        template: Its name of the chat template; ``qwen`` is that of Qwen2.5.
    """

    template: str = "qwen"


class _Program:
    """What the two have in common.

    Attributes:
        EXECUTABLE: Its command.
        FORM: Its settings.
    """

    VERSION = 1
    TOGETHER = 1
    EXECUTABLE: ClassVar[str]
    FORM: ClassVar[type[Finetune]] = Finetune

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
        devices = max(1, gpus())
        sharding = None
        if devices > 1:
            sharding = folder / "zero3.json"
            text = files("stillroom.train").joinpath("zero3.json").read_text("utf-8")
            sharding.write_text(text, "utf-8")
        settings = self.FORM.model_validate(job.settings)
        config = self.config(settings, job, folder, devices, sharding)
        path = folder / "config.yaml"
        path.write_text(yaml.safe_dump(config, sort_keys=False), "utf-8")
        command = [self.EXECUTABLE, "train", str(path)]
        out = folder / "out"
        if shutil.which(self.EXECUTABLE):
            run_tool(command, folder / "train.log", environment={"WANDB_DISABLED": "true"})
        elif not out.exists():
            raise SetupError(
                f"{self.EXECUTABLE}: no such program; expected it to train. Its files are "
                f"{path} and {folder / 'data'}. Install it and run again; or run "
                f"`{shlex.join(command)}` where it is, leave the model in {out}, and run again."
            )
        check_model(out, self.EXECUTABLE)
        model = folder / "model"
        shutil.rmtree(model, ignore_errors=True)
        model.mkdir()
        for file in sorted(out.iterdir()):
            kept = (".json", ".jinja", ".txt", ".model", ".safetensors")
            if file.is_file() and file.suffix in kept:
                shutil.copyfile(file, model / file.name)
        return Trained(rows=rows, losses=_losses(out), details={"devices": devices})

    def config(
        self, settings: Any, job: Job, folder: Path, devices: int, sharding: Path | None
    ) -> dict[str, Any]:
        """Return the program's configuration.

        Args:
            settings: Of ``FORM``.
            job: What to train.
            folder: Work folder; rows are in ``data``, the model goes to ``out``.
            devices: GPUs.
            sharding: DeepSpeed's configuration, where there are several.
        """
        raise NotImplementedError


class LlamaFactory(_Program):
    """Trains with LLaMA-Factory, what OpenThoughts used. See `Finetune`, and ``template``."""

    EXECUTABLE = "llamafactory-cli"
    FORM = LlamaFactorySettings

    def config(
        self,
        settings: LlamaFactorySettings,
        job: Job,
        folder: Path,
        devices: int,
        sharding: Path | None,
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
            "template": settings.template,
            "cutoff_len": settings.max_length,
            "packing": settings.packing,
            "neat_packing": settings.packing,
            "enable_liger_kernel": settings.liger,
            "disable_gradient_checkpointing": not settings.gradient_checkpointing,
            "preprocessing_num_workers": 16,
            "overwrite_cache": True,
            "output_dir": str(folder / "out"),
            "save_only_model": False,
            "report_to": "none",
            "logging_steps": 1,
            **_shared(settings, job, devices),
            "num_train_epochs": settings.epochs,
            "per_device_train_batch_size": settings.per_device_batch,
            "lr_scheduler_type": settings.schedule,
            "optim": "adamw_torch",
            "bf16": settings.precision == "bf16",
            "save_strategy": "steps" if settings.checkpoint_steps else "epoch",
            "ddp_timeout": 180000000,
            "deepspeed": str(sharding) if sharding else None,
        })  # fmt: skip


class Axolotl(_Program):
    """Trains with axolotl, by the base model's own chat template. See `Finetune`."""

    VERSION = 2
    EXECUTABLE = "axolotl"

    def config(
        self, settings: Finetune, job: Job, folder: Path, devices: int, sharding: Path | None
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
            "dataset_prepared_path": str(folder / "prepared"),
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
            "logging_steps": 1,
            **_shared(settings, job, devices),
            "num_epochs": settings.epochs,
            "micro_batch_size": settings.per_device_batch,
            "lr_scheduler": settings.schedule,
            "optimizer": "adamw_torch",
            "bf16": settings.precision == "bf16",
            "gradient_checkpointing": settings.gradient_checkpointing,
            "saves_per_epoch": None if settings.checkpoint_steps else 1,
            "deepspeed": str(sharding) if sharding else None,
        })  # fmt: skip


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


def _losses(out: Path) -> list[float]:
    """Read the losses that transformers' trainer notes, where it did."""
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
        state = json.loads((out / "trainer_state.json").read_text("utf-8"))
        return [float(entry["loss"]) for entry in state["log_history"] if "loss" in entry]
    return []
