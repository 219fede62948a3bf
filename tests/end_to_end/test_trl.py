"""The `trl` trainer on a tiny model on the CPU: what is learnt, cut, packed, killed and resumed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from stillroom.errors import SetupError
from stillroom.models.chat import Message
from stillroom.models.local.checkpoint import Checkpoint
from stillroom.store.store import Store
from stillroom.text.think import join_thinking
from stillroom.train import trl
from stillroom.train.trainer import Example, Job, TrainingFailed, train
from stillroom.train.trl import Trl, launcher
from tiny_checkpoints import TEMPLATE, write_checkpoint

for module in trl.NEEDED:
    pytest.importorskip(module)

import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

TESTS = Path(__file__).parents[1]
PROGRAMS = os.environ.get("STILLROOM_PROGRAMS")
TINY = {
    "learning_rate": 1e-2, "global_batch": 4, "epochs": 1, "max_length": 192, "max_steps": 4,
    "schedule": "cosine", "warmup_ratio": 0.1, "precision": "float32",
    "gradient_checkpointing": False,
}  # fmt: skip
ROWS = [Example(f"What is {i}+{i}?", f"{i}+{i}={2 * i}", f"\\boxed{{{2 * i}}}") for i in range(24)]


def job(folder, rows=ROWS, template=TEMPLATE, **settings):
    folder.mkdir(exist_ok=True)
    base = write_checkpoint(folder / "base", template=template)
    (folder / "rows").mkdir()
    frame = pl.DataFrame(rows, schema=["question", "reasoning", "answer"], orient="row")
    frame.write_parquet(folder / "rows" / "00000.parquet")
    full = Trl().settings(None, {**TINY, **settings})
    return Job(base, folder / "rows", full, seed=0, folder=folder / "work")


def prepared(one):
    from stillroom.train.trl_worker import prepare

    one.folder.mkdir()
    prepare(one)
    summary = json.loads((one.folder / "tokens/summary.json").read_text())
    return summary, pl.read_parquet(one.folder / "tokens/*.parquet")


def test_tokens_are_what_the_engine_reads_and_only_answers_are_learnt(tmp_path):
    rows = [*ROWS[:2], Example("Sum \u00e9?\n", None, "4 <|x|> caf\u00e9"), Example("x", "", "y")]
    one = job(tmp_path, rows)
    summary, tokens = prepared(one)
    engine = Checkpoint(one.base)
    for row, (ids, labels) in zip(rows, tokens.iter_rows(), strict=True):
        prompt = list(engine.prompt((Message("user", row.question),)).tokens)
        learnt = [token for token in labels if token != -100]
        assert ids[: len(prompt)] == prompt
        assert labels[: len(prompt)] == [-100] * len(prompt)
        assert labels[len(prompt) :] == ids[len(prompt) :] == learnt
        said = join_thinking(row.reasoning, row.answer)
        assert engine.text(learnt).removesuffix("\n") == said
        assert learnt[: len(engine.completion(said))] == engine.completion(said)
    assert summary["learnt"] == sum(token != -100 for row in tokens["labels"] for token in row)
    assert (summary["rows"], summary["truncated"], summary["skipped"]) == (4, 0, 0)


def test_a_prompt_that_opens_the_thinking_is_learnt_from_there(tmp_path):
    opening = TEMPLATE.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
    one = job(tmp_path, ROWS[:1], template=opening)
    _, tokens = prepared(one)
    learnt = [token for token in tokens["labels"].to_list()[0] if token != -100]
    assert Checkpoint(one.base).text(learnt) == "0+0=0\n</think>\n\n\\boxed{0}"
    (tmp_path / "other").mkdir()
    without = [ROWS[0]._replace(reasoning=None)]
    with pytest.raises(TrainingFailed, match="writes another prompt before an answer"):
        prepared(job(tmp_path / "other", without, template=opening))


def test_long_rows_are_cut_and_counted_and_hopeless_ones_skipped(tmp_path):
    rows = [ROWS[0], Example("short", "t " * 200, "a"), Example("q " * 200, "t", "a")]
    summary, tokens = prepared(job(tmp_path, rows, max_length=128))
    assert (summary["rows"], summary["truncated"], summary["skipped"]) == (2, 1, 1)
    assert tokens["input_ids"].list.len().to_list()[1] == 128
    (tmp_path / "other").mkdir()
    with pytest.raises(TrainingFailed, match="the questions of 1 of 1 rows have 128 tokens"):
        prepared(job(tmp_path / "other", rows[2:], max_length=128))


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (TEMPLATE.replace("message.content", "message.content.split('</think>')[-1]"),
         "changes what is said: '<think>.*expected think tags"),
        (TEMPLATE.replace("assistant\n{% endif %}", "assistant\nWell.{% endif %}"),
         "writes another prompt before an answer"),
        (TEMPLATE.replace("<|im_end|>", ""), "ends an answer with .*the token at which"),
        (None, "has no chat template; expected one"),
    ],
)  # fmt: skip
def test_templates_that_lose_what_rows_say_are_refused(tmp_path, template, words):
    with pytest.raises(TrainingFailed, match=words):
        prepared(job(tmp_path, template=template))


def test_a_missing_extra_and_a_wrong_launch_are_matters_of_setup(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv(trl.LAUNCH, "nothing")
    with pytest.raises(SetupError, match="STILLROOM_ACCELERATE is nothing; expected zero3, fsdp"):
        launcher(tmp_path)
    monkeypatch.setattr(trl, "NEEDED", ("no_such_module",))
    with pytest.raises(SetupError, match=r"no_such_module is not installed; .*stillroom\[trl\]"):
        Trl().train(job(tmp_path))


@pytest.mark.parametrize("name", trl.SHIPPED)
def test_shipped_configurations_are_read_by_accelerate(tmp_path, monkeypatch, name):
    from accelerate.commands.config import load_config_from_file

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    monkeypatch.setenv(trl.LAUNCH, name)
    command = launcher(tmp_path)
    assert command[command.index("--num_processes") + 1] == "3"
    config = load_config_from_file(command[command.index("--config_file") + 1])
    wanted = {"zero3": "DEEPSPEED", "fsdp": "FSDP", "ddp": "MULTI_GPU"}[name]
    assert str(config.distributed_type).endswith(wanted)
    # What is trained in is a setting of the student, and not of the machine.
    assert config.mixed_precision in (None, "no")
    if name == "zero3":
        sharding = json.loads(Path(config.deepspeed_config["deepspeed_config_file"]).read_text())
        # Fields of DeepSpeed 0.19.8; it refuses any other.
        assert sharding["zero_optimization"] == {
            "stage": 3,
            "overlap_comm": True,
            "contiguous_gradients": True,
            "reduce_bucket_size": "auto",
            "stage3_prefetch_bucket_size": "auto",
            "stage3_param_persistence_threshold": "auto",
            "stage3_gather_16bit_weights_on_model_save": True,
        }
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert "accelerate" not in " ".join(launcher(tmp_path))


def test_packed_rows_do_not_see_each_other(tmp_path):
    import torch
    from transformers import AutoModelForCausalLM
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    model = AutoModelForCausalLM.from_pretrained(
        write_checkpoint(tmp_path), dtype=torch.float32, attn_implementation="sdpa"
    ).eval()
    rows = [[7, 9, 11, 13, 15], [40, 41, 42], [99, 98, 97, 96]]
    collate = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    line = [token for row in rows for token in row]
    lengths = [len(row) for row in rows]
    batch = collate([{"input_ids": line, "labels": line, "seq_lengths": lengths}])
    batch.pop("labels")
    with torch.inference_mode():
        together = model(**batch, use_cache=False).logits[0]
        for row, found in zip(rows, together.split(lengths), strict=True):
            alone = model(torch.tensor([row]), use_cache=False).logits[0]
            assert torch.allclose(found, alone, atol=1e-4)


def test_a_library_that_would_learn_from_other_tokens_is_stopped():
    import torch
    from datasets import Dataset

    from stillroom.train.trl_worker import check_labels

    class Library:
        def __init__(self, labels, forgets=False):
            self.train_dataset = Dataset.from_dict({"labels": labels})
            self.forgets = forgets

        def data_collator(self, rows):
            labels = torch.tensor([row["labels"] for row in rows])
            return {"labels": torch.full_like(labels, 1) if self.forgets else labels}

    check_labels(Library([[-100, 5, 6], [-100, -100, 7]]), 3)
    with pytest.raises(TrainingFailed, match="would learn from 4 tokens, and 4 of its first rows"):
        check_labels(Library([[-100, 5, 6], [-100, 4, 7]]), 3)
    with pytest.raises(TrainingFailed, match="would learn from 3 tokens, and 6 of its first rows"):
        check_labels(Library([[-100, 5, 6], [-100, -100, 7]], forgets=True), 3)


def weights(folder):
    return load_file(folder / "model.safetensors")


def run(one, store):
    return train(Store(store), "k", Trl(), one, {})


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full", "lora", "packed"])
def test_a_student_is_trained_and_the_engine_can_serve_it(tmp_path, kind):
    more = {
        "full": {},
        "lora": {"method": "lora", "lora_rank": 4, "lora_alpha": 8},
        "packed": {"packing": True, "global_batch": 2},
    }[kind]
    one = job(tmp_path, max_steps=6, **more)
    heard = []
    alumnus = run(replace(one, report=lambda *told: heard.append(told)), tmp_path / "store")
    assert alumnus.trained.rows == 24
    assert alumnus.trained.details["steps"] == 6
    assert len(alumnus.trained.losses) == 6
    assert alumnus.trained.losses[-1] < alumnus.trained.losses[0]
    assert heard[-1][0] == 1.0
    before, after = weights(one.base), weights(alumnus.path)
    assert {n: (v.shape, v.dtype) for n, v in after.items()} == {
        n: (v.shape, v.dtype) for n, v in before.items()
    }
    assert any((before[n] != after[n]).any() for n in before)
    text = (alumnus.path / "tokenizer_config.json").read_text()
    assert text == (one.base / "tokenizer_config.json").read_text()
    assert Checkpoint(alumnus.path).prompt((Message("user", "hi"),)).tokens
    assert not (tmp_path / "store/building/student-k").exists()


KILLED = """
import sys, pathlib
from stillroom.store.store import Store
from stillroom.train.trainer import Job, train
from stillroom.train.trl import Trl
import json
told = json.loads(sys.argv[1])
job = Job(pathlib.Path(told["base"]), pathlib.Path(told["rows"]), told["settings"], 0)
train(Store(pathlib.Path(told["store"])), "k", Trl(), job, {})
"""


@pytest.mark.slow
def test_a_killed_training_goes_on_at_its_checkpoint_and_ends_the_same(tmp_path):
    one = job(tmp_path, max_steps=60, checkpoint_steps=2)
    calm = run(one, tmp_path / "calm")
    store = tmp_path / "store"
    told = {"base": str(one.base), "rows": str(one.rows), "settings": dict(one.settings),
            "store": str(store)}  # fmt: skip
    process = subprocess.Popen([sys.executable, "-c", KILLED, json.dumps(told)])
    folder = store / "building/student-k"
    while not list(folder.glob("checkpoints/*/whole")):
        assert process.poll() is None
        time.sleep(0.02)
    worker = next(
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if b"trl_worker" in path.read_bytes() and str(folder).encode() in path.read_bytes()
    )
    os.kill(worker, signal.SIGKILL)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (folder / "trained.json").exists()
    # A checkpoint that was being written when the kill came.
    (folder / "checkpoints/checkpoint-59").mkdir()
    again = run(one, store)
    assert again.trained.losses == pytest.approx(calm.trained.losses, abs=1e-3)
    assert not folder.exists()
    wanted, found = weights(calm.path), weights(again.path)
    assert all((wanted[n] - found[n]).abs().max() < 1e-4 for n in wanted)


SHARED = {"max_steps": 4, "per_device_batch": 2, "checkpoint_steps": 2}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A student of one process, and what it said of its training."""
    with pytest.MonkeyPatch.context() as patch:
        # As a configuration of accelerate sets it; what counts is `precision`.
        patch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
        one = job(tmp_path_factory.mktemp("alone") / "alone", **SHARED)
        one.folder.mkdir()
        trained = Trl().train(one)
        return weights(one.folder / "model"), trained


@pytest.fixture
def devices(monkeypatch):
    """Two devices that are processes on the CPU; see `cpu_devices`."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setenv("PYTHONPATH", str(TESTS), prepend=os.pathsep)
    monkeypatch.setattr(trl, "_WORKER", "cpu_devices")


@pytest.mark.slow
@pytest.mark.usefixtures("devices")
@pytest.mark.parametrize("way", trl.SHIPPED)
def test_two_devices_give_the_student_of_one(tmp_path, monkeypatch, alone, way):
    """What one accumulates, two share; sharded weights are gathered, and checkpoints are read."""
    if way == "zero3":
        pytest.importorskip("deepspeed", reason="deepspeed is not installed")
    wanted, said = alone
    monkeypatch.setenv(trl.LAUNCH, way)
    shared = job(tmp_path / "shared", **SHARED)
    shared.folder.mkdir()
    trained = Trl().train(shared)
    assert trained.details["devices"] == 2
    # Four steps of four rows: the other rows had no turn.
    assert (trained.rows, trained.unseen) == (said.rows, said.unseen) == (16, 8)
    assert trained.losses == pytest.approx(said.losses, abs=1e-3)
    same(weights(shared.folder / "model"), wanted)
    files = {path.name for path in (shared.folder / "checkpoints" / "checkpoint-2").iterdir()}
    sharded = {"fsdp": "pytorch_model_fsdp.bin", "zero3": "global_step2", "ddp": "optimizer.pt"}
    assert sharded[way] in files


@pytest.mark.slow
@pytest.mark.skipif(not PROGRAMS, reason="STILLROOM_PROGRAMS is not set; this takes minutes")
@pytest.mark.usefixtures("devices")
@pytest.mark.parametrize("way", ["fsdp", "zero3"])
def test_sharded_training_goes_on_at_its_checkpoint(tmp_path, monkeypatch, alone, way):
    if way == "zero3":
        pytest.importorskip("deepspeed", reason="deepspeed is not installed")
    monkeypatch.setenv(trl.LAUNCH, way)
    one = job(tmp_path / "one", **SHARED)
    one.folder.mkdir()
    calm = Trl().train(one)
    # As a kill after two steps leaves it.
    for name in ("saved", "model", "checkpoints/checkpoint-4"):
        shutil.rmtree(one.folder / name)
    (one.folder / "trained.json").unlink()
    mark = one.folder / "checkpoints" / "checkpoint-2" / "whole"
    written = mark.stat().st_mtime_ns
    assert Trl().train(one).losses == calm.losses
    assert mark.stat().st_mtime_ns == written
    same(weights(one.folder / "model"), alone[0])


def same(found, wanted):
    assert found.keys() >= wanted.keys()
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype
        assert torch.allclose(found[name], value, atol=1e-4), name
