"""The stages of the `trl` trainer: ``python -m stillroom.train.trl_worker STAGE job.json``.

`prepare` turns rows into tokens, `train` trains (alone, or as one of several processes that
`accelerate launch` started), `finish` saves the weights in the base model's type. Each stage leaves
what is done where it is, so that a killed run goes on.

Checkpoints are torch's own files. They are read from the work folder alone, and with weights_only.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import jinja2
import polars as pl

from stillroom.errors import SetupError
from stillroom.models.chat import Message
from stillroom.models.local.checkpoint import PromptError
from stillroom.store.store import sync, write_synced
from stillroom.train.finetune import Finetune
from stillroom.train.learnt import learnt_rows
from stillroom.train.trainer import Job, TrainingFailed
from stillroom.train.weights import take_student

_PART = 4096  # rows of one file of tokens
_IGNORED = -100
_WHOLE = "whole"  # marks a checkpoint that was written to its end


def main(stage: str, description: str) -> int:
    """Run a stage; a failure that can be told in a message is left in failure.json."""
    told = json.loads(Path(description).read_text("utf-8"))
    folder = Path(told["folder"])
    job = Job(Path(told["base"]), Path(told["rows"]), told["settings"], told["seed"], folder)
    try:
        {"prepare": prepare, "train": train, "finish": finish}[stage](job)
    except (TrainingFailed, SetupError) as error:
        kind = "setup" if isinstance(error, SetupError) else "training"
        partial = folder / f"failure.{os.getpid()}.partial"
        partial.write_text(json.dumps({"kind": kind, "message": str(error)}), "utf-8")
        partial.replace(folder / "failure.json")
        return 3
    return 0


def prepare(job: Job) -> None:
    """Write the rows as tokens: Parquet parts with ``input_ids`` and ``labels``, and a summary."""
    done = job.folder / "tokens"
    if done.exists():
        return
    settings = Finetune.model_validate(job.settings)
    speech = _Speech(_tokenizer(job))
    partial = job.folder / "tokens.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    summary = {"rows": 0, "truncated": 0, "skipped": 0, "tokens": 0, "learnt": 0}

    def rows() -> Iterator[tuple[list[int], list[int]]]:
        for learnt in learnt_rows(speech, job):
            if learnt.start >= settings.max_length:
                summary["skipped"] += 1
                continue
            tokens = learnt.tokens[: settings.max_length]
            summary["rows"] += 1
            summary["truncated"] += len(tokens) < len(learnt.tokens)
            summary["tokens"] += len(tokens)
            summary["learnt"] += len(tokens) - learnt.start
            yield tokens, [_IGNORED] * learnt.start + tokens[learnt.start :]

    stream = rows()
    schema = {"input_ids": pl.List(pl.Int32), "labels": pl.List(pl.Int32)}
    for number in range(1 << 30):
        part = list(islice(stream, _PART))
        if not part:
            break
        columns = dict(zip(schema, zip(*part, strict=True), strict=True))
        pl.DataFrame(columns, schema=schema).write_parquet(partial / f"{number:05}.parquet")
    if not summary["rows"]:
        raise TrainingFailed(
            f"no row fits: the questions of {summary['skipped']} of {summary['skipped']} rows "
            f"have {settings.max_length} tokens or more. Raise max_length"
        )
    write_synced(partial / "summary.json", json.dumps(summary))
    partial.rename(done)
    sync(job.folder)


class _Speech:
    """A tokenizer of transformers, which is also what servers of the student read."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.end: int = tokenizer.eos_token_id

    def rendered(self, messages: tuple[Message, ...], *, ask: bool) -> str:
        told = [{"role": message.role, "content": message.content} for message in messages]
        render = self._tokenizer.apply_chat_template
        try:
            return str(render(told, tokenize=False, add_generation_prompt=ask))
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, KeyError) as error:
            raise PromptError(str(error)) from error

    def encoded(self, texts: Sequence[str]) -> list[list[int]]:
        found: list[list[int]] = self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return found

    def decoded(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=False))


def _tokenizer(job: Job) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(job.base, trust_remote_code=False)
    if tokenizer.chat_template is None or tokenizer.eos_token_id is None:
        lacks = "chat template" if tokenizer.chat_template is None else "end token"
        raise TrainingFailed(
            f"the tokenizer of {job.base} has no {lacks}; expected one. Take the model's "
            "instruct form, or add it"
        )
    return tokenizer


def train(job: Job) -> None:
    """Train from the last whole checkpoint on; the weights go to ``saved``."""
    if (job.folder / "trained.json").exists():
        return
    import torch
    from datasets import load_dataset
    from transformers import TrainerCallback
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    settings = Finetune.model_validate(job.settings)
    # A configuration of accelerate speaks of it too, but what counts is in the student's key.
    os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16" if settings.precision == "bf16" else "no"
    on_gpu = torch.cuda.is_available()
    devices = int(os.environ.get("WORLD_SIZE", "1"))
    accumulation = settings.accumulation(devices)
    if settings.liger and on_gpu:
        _need("liger_kernel", "liger is on", "install liger-kernel, or set liger: false")
    attention = "sdpa"
    if on_gpu and _installed("flash_attn"):
        attention = "flash_attention_2"
    given: dict[str, Any] = {
        "lr_scheduler_type": settings.schedule,
        "warmup_steps": settings.warmup_ratio,
        "weight_decay": settings.weight_decay,
        "adam_beta1": settings.adam_beta1,
        "adam_beta2": settings.adam_beta2,
        "adam_epsilon": settings.adam_epsilon,
        "max_grad_norm": settings.max_grad_norm,
        "save_steps": settings.checkpoint_steps,
        "max_steps": settings.max_steps,
    }
    checkpoints = job.folder / "checkpoints"
    arguments = SFTConfig(
        output_dir=str(checkpoints),
        per_device_train_batch_size=settings.per_device_batch,
        gradient_accumulation_steps=accumulation,
        learning_rate=settings.learning_rate,
        num_train_epochs=settings.epochs,
        max_length=settings.max_length,
        packing=settings.packing,
        packing_strategy="bfd",
        # Otherwise TRL would look for masks of its own making; these rows bring their labels.
        completion_only_loss=False,
        assistant_only_loss=False,
        bf16=settings.precision == "bf16",
        gradient_checkpointing=settings.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        use_liger_kernel=settings.liger and on_gpu,
        optim="adamw_torch",
        seed=settings.first_seed + job.seed,
        data_seed=settings.first_seed + job.seed,
        save_strategy="steps" if settings.checkpoint_steps else "epoch",
        save_total_limit=2,
        logging_steps=0.01,
        # Otherwise a loss that is no number is left out of the mean, and nobody hears of it.
        logging_nan_inf_filter=False,
        include_num_input_tokens_seen="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=not on_gpu,
        ddp_timeout=180_000_000,
        trust_remote_code=False,
        model_init_kwargs={"dtype": "float32", "attn_implementation": attention},
        **{name: value for name, value in given.items() if value is not None},
    )
    adapters = None
    if settings.method == "lora":
        from peft import LoraConfig

        adapters = LoraConfig(
            r=settings.lora_rank or 0,
            lora_alpha=settings.lora_alpha or 0,
            lora_dropout=settings.lora_dropout or 0.0,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
    tokens = sorted(str(path) for path in (job.folder / "tokens").glob("*.parquet"))
    rows = load_dataset("parquet", data_files=tokens, split="train")

    class Watch(TrainerCallback):
        """Reports, stops a loss that is no number, and marks checkpoints that are whole."""

        def on_log(
            self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any
        ) -> None:
            loss = (logs or {}).get("loss")
            if loss is None:
                return
            if not math.isfinite(float(loss)):
                raise TrainingFailed(
                    f"the loss is {loss} at step {state.global_step} of {state.max_steps}; lower "
                    "the learning rate"
                )
            if state.is_world_process_zero:
                partial = job.folder / "progress.partial"
                share = state.global_step / max(1, state.max_steps)
                partial.write_text(json.dumps([share, float(loss)]), "utf-8")
                partial.replace(job.folder / "progress.json")

        def on_save(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            if state.is_world_process_zero:
                (checkpoints / f"checkpoint-{state.global_step}" / _WHOLE).touch()

    trainer = SFTTrainer(
        model=str(job.base),
        args=arguments,
        train_dataset=rows,
        processing_class=_tokenizer(job),
        peft_config=adapters,
        callbacks=[Watch()],
    )
    summary = json.loads((job.folder / "tokens" / "summary.json").read_text("utf-8"))
    check_labels(trainer, summary["learnt"])
    trainer.train(resume_from_checkpoint=_last_whole(checkpoints))
    trainer.save_model(str(job.folder / "saved"))
    if trainer.is_world_process_zero():
        history = [entry for entry in trainer.state.log_history if "loss" in entry]
        steps = trainer.state.global_step
        record = {
            "tokens": round(summary["tokens"] * float(trainer.state.epoch or 0.0)),
            "losses": [round(float(entry["loss"]), 4) for entry in history],
            "steps": steps,
            "devices": devices,
            "device": torch.cuda.get_device_name() if on_gpu else "cpu",
            "attention": attention,
            "liger": settings.liger and on_gpu,
            "versions": _versions(),
        }
        write_synced(job.folder / "trained.json", json.dumps(record))


def check_labels(trainer: Any, learnt: int) -> None:
    """Compare what the trainer will learn with what it was given.

    Raises:
        TrainingFailed: If its rows, or a batch of them, learn from other tokens.
    """
    import pyarrow.compute as pc

    found, rows = 0, trainer.train_dataset
    for batch in rows.with_format("arrow").select_columns(["labels"]).iter(batch_size=1000):
        labels = pc.list_flatten(batch["labels"])
        found += pc.sum(pc.not_equal(labels, _IGNORED)).as_py() or 0
    first = [rows[i] for i in range(min(4, len(rows)))]
    wanted = [token for row in first for token in row["labels"] if token != _IGNORED]
    collated = trainer.data_collator(first)
    told = [token for token in collated["labels"].flatten().tolist() if token != _IGNORED]
    if found != learnt or told != wanted:
        raise TrainingFailed(
            f"the training library would learn from {found} tokens, and {len(told)} of its first "
            f"rows; expected {learnt} and {len(wanted)}, the answers alone. Use the versions of "
            "trl and transformers that docs/trainers.md names"
        )


def _last_whole(checkpoints: Path) -> str | None:
    """Return the last checkpoint that was written to its end, and delete torn ones."""
    found = []
    for path in checkpoints.glob("checkpoint-*"):
        if (path / _WHOLE).exists():
            found.append(path)
        elif int(os.environ.get("RANK", "0")) == 0:
            shutil.rmtree(path)
    return str(max(found, key=lambda path: int(path.name.split("-")[1]))) if found else None


def finish(job: Job) -> None:
    """Write ``model``: merged weights in the base's type, and all else as the base has it."""
    saved = job.folder / "saved"
    if job.settings["method"] == "lora":
        import torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        base = AutoModelForCausalLM.from_pretrained(job.base, dtype=torch.float32)
        adapted, saved = saved, job.folder / "merged"
        PeftModel.from_pretrained(base, adapted).merge_and_unload().save_pretrained(saved)
    take_student(saved, job.base, job.folder / "model")


def _installed(module: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(module) is not None


def _need(module: str, why: str, remedy: str) -> None:
    if not _installed(module):
        raise SetupError(f"trainer trl: {why}, but {module} is not installed; {remedy}.")


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "transformers", "trl", "accelerate")}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
