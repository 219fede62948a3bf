"""Trainers that drive other programs: commands, stand-ins for known programs, and TRL itself."""

import json
import os
import shutil
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import yaml

from stillroom.errors import SetupError
from stillroom.store.store import Store
from stillroom.study.students import _trained_in
from stillroom.text.think import join_thinking
from stillroom.train import tool
from stillroom.train.trainer import Example, Job, TrainingFailed, find, train
from stillroom.train.trainers import TRAINERS
from tiny_checkpoints import write_checkpoint

ROWS = [
    Example("What is <b>1+1</b>?", "1+1 is 2, says \u00e9mile", "It is \\boxed{2}."),
    Example("And {out}?", None, "4"),
    Example("Say it.\nTwice.", "first\n\nsecond", "$HOME `it` 'it'"),
]
TRAINED = """
    import json, os, pathlib, shutil, sys
    base = pathlib.Path(os.environ["STILLROOM_BASE"])
    out = pathlib.Path(os.environ["STILLROOM_OUT"])
    shutil.copytree(base, out)
"""


@pytest.fixture
def work(tmp_path):
    base = write_checkpoint(tmp_path / "base")
    rows = tmp_path / "rows"
    rows.mkdir()
    frame = pl.DataFrame(ROWS, schema=["question", "reasoning", "answer"], orient="row")
    frame.write_parquet(rows / "00000.parquet")
    return Job(base, rows, {}, seed=3)


def script(tmp_path, text, name="script.py"):
    path = tmp_path / name
    path.write_text(textwrap.dedent(text))
    return str(path)


def trained(tmp_path, work, trainer="command", preset=None, **given):
    one = TRAINERS[trainer]
    job = replace(work, settings=one.settings(preset, given))
    return train(Store(tmp_path / "store"), "k", one, job, {})


def test_a_command_gets_rows_and_places_and_its_model_is_kept(tmp_path, work):
    path = script(
        tmp_path,
        TRAINED
        + """
    told = dict(rows=sys.argv[1], seed=os.environ["STILLROOM_SEED"], argument=sys.argv[2],
                settings=json.load(open(os.environ["STILLROOM_SETTINGS"])),
                lines=[json.loads(line) for line in open(sys.argv[1])],
                parquet=os.listdir(os.environ["STILLROOM_PARQUET"]))
    (out / "told.json").write_text(json.dumps(told))
""",
    )
    line = f"{sys.executable} {path} {{rows}} 'seed={{seed}} {{unknown}}'"
    alumnus = trained(tmp_path, work, command=line, learning_rate=0.1)
    told = json.loads((alumnus.path / "told.json").read_text())
    assert told["argument"] == "seed=3 {unknown}"
    assert told["seed"] == "3"
    assert told["settings"]["learning_rate"] == 0.1
    assert told["parquet"] == ["00000.parquet"]
    assert [m["messages"][0]["content"] for m in told["lines"]] == [r.question for r in ROWS]
    said = [join_thinking(r.reasoning, r.answer) for r in ROWS]
    assert [m["messages"][1]["content"] for m in told["lines"]] == said
    assert alumnus.trained.rows == 3
    assert find(Store(tmp_path / "store"), "k").path == alumnus.path


def test_a_command_is_run_by_a_shell_only_when_asked(tmp_path, work):
    line = 'test "$STILLROOM_SEED" = 3 && cp -r "$STILLROOM_BASE" "$STILLROOM_OUT"'
    assert trained(tmp_path, work, command=line, shell=True).path.is_dir()
    with pytest.raises(TrainingFailed, match="test ended with status"):
        trained(tmp_path / "other", work, command=line)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import sys; print('at step 7'); sys.exit('no memory left')",
         "ended with status 1; its log, .*, ends: at step 7 . no memory left"),
        ("pass", "the command left no config.json in .*; expected a model"),
        (TRAINED + "    (out / 'model.safetensors').write_bytes(b'x' * 20)",
         "the command left a torn model.safetensors"),
        (TRAINED + "    (out / 'model.safetensors').unlink()", "the command left no .*safetensors"),
        (TRAINED + "    (out / 'config.json').write_text('[]')", "config.json that is no JSON obj"),
        ("import os; os.kill(os.getpid(), 9)", "ended with status -9; .* ends: .nothing."),
    ],
)  # fmt: skip
def test_a_command_that_leaves_no_model_is_one_message(tmp_path, work, text, words):
    with pytest.raises(TrainingFailed, match=words):
        trained(tmp_path, work, command=[sys.executable, script(tmp_path, text)])
    assert find(Store(tmp_path / "store"), "k") is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "command is None; expected a line, or a list"),
        ({"command": "'x"}, "expected closed quotes"),
        ({"command": ("a", "b"), "shell": True}, "expected a line, as shell is true"),
        ({"command": "a", "shell": "yes"}, "shell is 'yes'; expected true or false"),
        ({"command": "a", "wait": "long"}, "wait is 'long'; expected exit or file"),
    ],
)
def test_settings_of_a_command_are_checked(given, words):
    with pytest.raises(ValueError, match=words):
        TRAINERS["command"].settings(None, given)
    with pytest.raises(ValueError, match="a command has no presets"):
        TRAINERS["command"].settings("openthoughts-ablation", {"command": "a"})


def test_a_command_that_does_not_exist_is_a_matter_of_setup(tmp_path, work):
    with pytest.raises(SetupError, match="no-such-program: no such program"):
        trained(tmp_path, work, command="no-such-program {rows}")


def test_a_submitted_job_is_waited_for_and_never_submitted_twice(tmp_path, work):
    count = tmp_path / "count"
    text = (
        TRAINED.replace("shutil.copytree(base, out)", "")
        + f"""
    with open({str(count)!r}, "a") as file:
        file.write("x")
    folder = pathlib.Path(os.environ["STILLROOM_FOLDER"])
    if len(open({str(count)!r}).read()) == 1:
        (folder / "failed").write_text("node went down")
    """
    )
    path = script(tmp_path, text)
    given = {"command": [sys.executable, path], "wait": "file"}
    with pytest.raises(TrainingFailed, match="the submitted job failed: node went down"):
        trained(tmp_path, work, **given)
    folder = tmp_path / "store/building/student-k"
    outcome = {}

    def wait():
        outcome["alumnus"] = trained(tmp_path, work, **given)

    waiting = threading.Thread(target=wait)
    waiting.start()
    while not (folder / "submitted").exists():
        time.sleep(0.02)
    shutil.copytree(work.base, folder / "out")
    (folder / "done").touch()
    waiting.join(timeout=60)
    assert outcome["alumnus"].path.is_dir()
    assert count.read_text() == "xx"
    # What is found submitted is not submitted again.
    other = tmp_path / "other/store/building/student-k"
    shutil.copytree(work.base, other / "out")
    for name in ("submitted", "done"):
        (other / name).touch()
    trained(tmp_path / "other", work, **given)
    assert count.read_text() == "xx"


def test_an_interrupt_ends_the_whole_tree(tmp_path):
    pids = tmp_path / "pids"
    child = "import time; time.sleep(300)"
    text = f"""
    import os, signal, subprocess, sys, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    own = subprocess.Popen([sys.executable, "-c", {child!r}], start_new_session=True)
    open({str(pids)!r} + ".partial", "w").write(f"{{os.getpid()}} {{own.pid}}")
    os.rename({str(pids)!r} + ".partial", {str(pids)!r})
    time.sleep(300)
    """
    path = script(tmp_path, text)

    def look():
        if pids.exists():
            raise KeyboardInterrupt

    tool_stop = tool._STOP_S
    tool._STOP_S = 0.5
    try:
        with pytest.raises(KeyboardInterrupt):
            tool.run_tool([sys.executable, path], tmp_path / "log", look=look)
    finally:
        tool._STOP_S = tool_stop
    for pid in map(int, pids.read_text().split()):
        for _ in range(200):
            state = Path(f"/proc/{pid}/stat")
            if not state.exists() or ") Z" in state.read_text():
                break
            time.sleep(0.02)
        else:
            raise AssertionError(f"{pid} lives on")


def test_gpus_are_those_that_are_named(monkeypatch, tmp_path):
    for named, count in (("", 0), ("-1", 0), ("0", 1), ("0,3", 2), ("GPU-1,GPU-2,GPU-3", 3)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
        assert tool.gpus() == count
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: H100'\necho 'GPU 1: H100'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert tool.gpus() == 2
    program.unlink()
    assert tool.gpus() == 0


ALONE = """
    import json, os, pathlib, shutil, time
    place = pathlib.Path(SEEN)
    mine = os.environ.get("CUDA_VISIBLE_DEVICES", "all").split(",")
    for device in mine:
        (place / device).mkdir()  # fails if another training has it now
    (place / "seen.txt").open("a").write(",".join(mine) + "\\n")
    while len((place / "seen.txt").read_text().splitlines()) < TOGETHER:
        time.sleep(0.02)  # until all that train at a time are there
    shutil.copytree(os.environ["STILLROOM_BASE"], os.environ["STILLROOM_OUT"])
    for device in mine:
        (place / device).rmdir()
"""


@pytest.mark.parametrize(
    ("named", "together", "seen"),
    [
        ("3,GPU-a,7,1,9", 2, {"3,GPU-a", "7,1"}),  # the fifth is idle
        ("5,2", 2, {"5", "2"}),
        ("5,2", 1, {"5,2"}),
        (None, 1, {"all"}),
    ],
)
def test_trainings_at_a_time_have_gpus_of_their_own(
    tmp_path, work, monkeypatch, named, together, seen
):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    text = ALONE.replace("SEEN", repr(str(tmp_path))).replace("TOGETHER", str(together))
    settings = TRAINERS["command"].settings(
        None, {"command": [sys.executable, script(tmp_path, text)]}
    )
    jobs = []
    for seed in range(2 * together):
        rows = shutil.copytree(work.rows, tmp_path / f"rows-{seed}")
        job = replace(work, rows=rows, settings=settings, seed=seed)
        jobs.append((f"k{seed}", (tmp_path / "store", f"k{seed}", "command", job, {})))
    alumni = [training.result().key for _, _, training in _trained_in(together, jobs)]
    assert sorted(alumni) == [f"k{seed}" for seed in range(2 * together)]
    assert set((tmp_path / "seen.txt").read_text().splitlines()) == seen
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == named


def test_more_trainings_than_gpus_have_some_in_common():
    assert tool.shares(["0", "1"], 3) == ["0", "1", "0"]
    assert tool.shares(["0", "1", "2", "3", "4", "5", "6", "7"], 8) == list("01234567")


# ---- LLaMA-Factory and axolotl -------------------------------------------------------------------

STAND_IN = f"""#!{sys.executable}
import json, pathlib, shutil, sys, yaml
assert sys.argv[1] == "train"
config = yaml.safe_load(open(sys.argv[2]))
out = pathlib.Path(config["output_dir"])
base = pathlib.Path(config.get("model_name_or_path") or config["base_model"])
shutil.copytree(base, out)
(out / "checkpoint-1").mkdir()
(out / "optimizer.pt").touch()
history = [{{"loss": 2.5}}, {{"x": 1}}]
(out / "trainer_state.json").write_text(json.dumps({{"log_history": history}}))
given = pathlib.Path(sys.argv[2]).parent
seen = dict(config=config, data={{p.name: p.read_text() for p in (given / "data").iterdir()}},
            sharding=(given / "zero3.json").exists())
(out / "seen.json").write_text(json.dumps(seen))
"""


@pytest.fixture
def programs(tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("llamafactory-cli", "axolotl"):
        (folder / name).write_text(STAND_IN)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


@pytest.mark.parametrize("devices", ["", "0,1,2,3"])
@pytest.mark.parametrize("trainer", ["llamafactory", "axolotl"])
@pytest.mark.usefixtures("programs")
def test_known_programs_get_files_in_their_form(tmp_path, work, monkeypatch, trainer, devices):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    alumnus = trained(tmp_path, work, trainer, "openthinker3-7b")
    seen = json.loads((alumnus.path / "seen.json").read_text())
    config = seen["config"]
    assert seen["sharding"] == ("deepspeed" in config) == bool(devices)
    assert config["trust_remote_code"] is False
    assert config["gradient_accumulation_steps"] == (128 if devices else 512)
    assert (config["learning_rate"], config["warmup_ratio"], config["seed"]) == (8e-5, 0.1, 45)
    assert "max_grad_norm" not in config
    lines = [json.loads(line)["messages"] for line in seen["data"]["rows.jsonl"].splitlines()]
    assert [line[0]["content"] for line in lines] == [row.question for row in ROWS]
    if trainer == "llamafactory":
        info = json.loads(seen["data"]["dataset_info.json"])[config["dataset"]]
        assert info["file_name"] == "rows.jsonl"
        assert (info["formatting"], info["tags"]["assistant_tag"]) == ("sharegpt", "assistant")
        assert (config["cutoff_len"], config["neat_packing"]) == (16384, True)
        assert (config["template"], config["num_train_epochs"]) == ("qwen", 5)
        assert config["save_steps"] == 500
    else:
        (rows,) = config["datasets"]
        assert (rows["type"], rows["roles_to_train"]) == ("chat_template", ["assistant"])
        assert (config["sequence_len"], config["sample_packing"]) == (16384, True)
        assert config["attn_implementation"] == "flash_attention_2"
        assert config["num_epochs"] == 5
        assert config["excess_length_strategy"] == "truncate"
    assert alumnus.trained.losses == [2.5]
    kept = {path.name for path in alumnus.path.iterdir()}
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= kept
    assert not {"optimizer.pt", "checkpoint-1"} & kept


@pytest.mark.parametrize("trainer", ["llamafactory", "axolotl"])
def test_without_the_program_its_files_are_written_and_a_model_brought_back_is_taken(
    tmp_path, work, monkeypatch, trainer
):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SetupError, match="no such program; expected it to train") as told:
        trained(tmp_path, work, trainer, "openthoughts-ablation")
    folder = tmp_path / "store/building/student-k"
    assert f"train {folder.resolve() / 'config.yaml'}" in str(told.value)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    shutil.copytree(work.base, config["output_dir"])
    assert trained(tmp_path, work, trainer, "openthoughts-ablation").path.is_dir()
