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
import torch
import yaml
from safetensors.torch import load_file

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

# What LLaMA-Factory 0.9.5 and axolotl 0.19.0 were seen to ask for, and to leave.
STAND_IN = f"""#!{sys.executable}
import json, os, pathlib, shutil, sys, yaml
import polars as pl
from array import array
from stillroom.models.local.checkpoint import Speech
from stillroom.models.local.safetensors import read_header
from stillroom.train.learnt import learnt_tokens
from stillroom.train.trainer import Example
from stillroom.text.think import split_thinking
sys.path.append({str(Path(__file__).parents[1])!r})
from tiny_checkpoints import write_safetensors

program, (verb, path) = pathlib.Path(sys.argv[0]).resolve(), sys.argv[1:]
config = yaml.safe_load(open(path))
work = pathlib.Path(path).parent
base = pathlib.Path(config.get("model_name_or_path") or config["base_model"])
out = pathlib.Path(config["output_dir"])
factory = program.name == "llamafactory-cli"
tokens = pathlib.Path(config["tokenized_path" if factory else "dataset_prepared_path"])
place = tokens / ("train" if factory else "99324b35")
prepares = verb == "preprocess" or not config.get("do_train", True)
# torchrun and accelerate are looked for in PATH, and are to be those beside the program.
assert os.environ["PATH"].split(":")[0] == str(program.parent)
print("said by", program.name, flush=True)


def wrong(what):
    print("Traceback (most recent call last):\\n" + "  in a file\\n" * 3 + "ValueError: " + what)
    sys.exit("a launcher tells\\n" * 14)


if prepares:
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "" and not tokens.exists() and not out.exists()
    if factory:  # it reads the model, and refuses bf16 and torchrun without a GPU
        assert os.environ["FORCE_TORCHRUN"] == "0"
        assert (config["use_cpu"], config["bf16"]) == (True, False) and "deepspeed" not in config
    rows = []
    for line in open(work / "data" / "rows.jsonl"):
        asked, said = [message["content"] for message in json.loads(line)["messages"]]
        told = split_thinking(said)
        rows.append(Example(asked, told.reasoning, told.answer))
    if (program.parent / "drops").exists():
        rows = [row._replace(reasoning=None) for row in rows]
    size, lines = config["cutoff_len" if factory else "sequence_len"], []
    for learnt in learnt_tokens(Speech(base), rows):
        ids = learnt.tokens[:size]
        lines.append((ids, [-100] * learnt.start + ids[learnt.start :], [1] * len(ids)))
    columns = ["input_ids", "labels", "attention_mask"]
    place.mkdir(parents=True)
    frame = pl.DataFrame(lines, schema=columns, orient="row")
    frame.write_ipc_stream(place / "data-00000-of-00001.arrow")
    (place / "dataset_info.json").write_text("{{}}")
    sys.exit()
if not (place / "dataset_info.json").exists():
    wrong("no tokens")
if (program.parent / "fails").exists():
    wrong("no kernel for this GPU")
for torn in out.glob("checkpoint-*"):
    json.loads((torn / "trainer_state.json").read_text())
(out / "checkpoint-1").mkdir(parents=True, exist_ok=True)
weights = {{
    name: (one.shape, [number + 1 for number in array("f", one.read())])
    for name, one in read_header(base / "model.safetensors").items()
}}
weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
write_safetensors(out / "model.safetensors", weights)
for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
    shutil.copy(base / name, out / name)
(out / "chat_template.jinja").write_text("another")
loss = float("nan") if (program.parent / "diverges").exists() else 2.5
history = [{{"loss": loss, "step": 1}}, {{"x": 1}}]
state = json.dumps({{"log_history": history, "epoch": 0.5, "global_step": 7}})
(out / "checkpoint-1" / "trainer_state.json").write_text(state)
if factory:  # axolotl leaves it in checkpoints alone
    (out / "trainer_state.json").write_text(state)
seen = dict(config=config, data={{p.name: p.read_text() for p in (work / "data").iterdir()}},
            sharding=(work / "zero3.json").exists())
(program.parent / "seen.json").write_text(json.dumps(seen))
"""


@pytest.fixture
def programs(tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("llamafactory-cli", "axolotl"):
        (folder / name).write_text(STAND_IN)
        (folder / name).chmod(0o755)
        # Another of the name, without torchrun beside it, as links in a folder for all often are.
        links = tmp_path / "links"
        links.mkdir(exist_ok=True)
        (links / name).symlink_to(folder / name)
    monkeypatch.setenv("PATH", f"{links}:{os.environ['PATH']}")
    return folder


@pytest.mark.parametrize("devices", ["", "0,1,2,3"])
@pytest.mark.parametrize("trainer", ["llamafactory", "axolotl"])
def test_known_programs_get_files_in_their_form(
    tmp_path, work, monkeypatch, programs, trainer, devices
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    alumnus = trained(tmp_path, work, trainer, "openthinker3-7b")
    seen = json.loads((programs / "seen.json").read_text())
    config = seen["config"]
    assert seen["sharding"] == ("deepspeed" in config) == bool(devices)
    assert config["trust_remote_code"] is False
    assert config["gradient_accumulation_steps"] == (128 if devices else 512)
    assert (config["learning_rate"], config["warmup_ratio"], config["seed"]) == (8e-5, 0.1, 45)
    assert "max_grad_norm" not in config
    assert config["save_total_limit"] == 2  # of seven billion parameters, each takes 90 GB
    lines = [json.loads(line)["messages"] for line in seen["data"]["rows.jsonl"].splitlines()]
    assert [line[0]["content"] for line in lines] == [row.question for row in ROWS]
    if trainer == "llamafactory":
        info = json.loads(seen["data"]["dataset_info.json"])[config["dataset"]]
        assert info["file_name"] == "rows.jsonl"
        assert (info["formatting"], info["tags"]["assistant_tag"]) == ("sharegpt", "assistant")
        assert (config["cutoff_len"], config["neat_packing"]) == (16384, True)
        assert ("template" in config, config["num_train_epochs"]) == (False, 5)
        assert (config["save_steps"], config["preprocessing_num_workers"]) == (500, 1)
    else:
        (rows,) = config["datasets"]
        assert (rows["type"], rows["roles_to_train"]) == ("chat_template", ["assistant"])
        assert (config["sequence_len"], config["sample_packing"]) == (16384, True)
        assert config["attn_implementation"] == "flash_attention_2"
        assert config["num_epochs"] == 5
        assert "max_steps" not in config  # of packed lines, it alone knows how many there are
        assert config["excess_length_strategy"] == "truncate"
        assert config["shuffle_merged_datasets"] is False
    found = alumnus.trained
    assert (found.rows, found.unseen, found.truncated, found.skipped) == (2, 1, 0, 0)
    assert found.losses == [2.5]
    assert found.details == {"devices": 4 if devices else 1, "steps": 7, "lines": 3, "otherwise": 0}
    base, student = (load_file(each / "model.safetensors") for each in (work.base, alumnus.path))
    assert {name: value.dtype for name, value in base.items()}.items() <= {
        name: value.dtype for name, value in student.items()
    }.items()
    assert all(torch.equal(student[name], base[name] + 1) for name in base)
    names = {path.name for path in work.base.iterdir()}
    assert {path.name for path in alumnus.path.iterdir()} == names
    for name in names - {"model.safetensors"}:
        assert (alumnus.path / name).read_bytes() == (work.base / name).read_bytes()


@pytest.mark.parametrize(
    ("rows", "batch", "epochs", "steps"), [(26, 4, 2, 14), (316, 32, 13, 130), (1000, 96, 0.5, 6)]
)
def test_axolotl_is_told_the_steps_of_whole_epochs(tmp_path, work, rows, batch, epochs, steps):
    """Alone it takes 13 for the first: 26 times 2, by 4."""
    given = {"learning_rate": 1e-5, "global_batch": batch, "epochs": epochs, "max_length": 64}
    axolotl = TRAINERS["axolotl"]

    def told(**more):
        settings = axolotl.FORM.model_validate(axolotl.settings(None, {**given, **more}))
        return axolotl.config(settings, work, tmp_path, rows, 1).get("max_steps")

    assert told() == steps
    assert told(max_steps=3) == 3
    assert told(packing=True) is None


def test_llamafactory_packs_alike_whatever_the_machine(tmp_path, work):
    factory = TRAINERS["llamafactory"]
    given = {"learning_rate": 1e-5, "global_batch": 4, "epochs": 1, "max_length": 64}
    settings = factory.FORM.model_validate(factory.settings(None, given))
    (tmp_path / "data").mkdir()
    counts = [
        factory.config(settings, work, tmp_path, rows, 1)["preprocessing_num_workers"]
        for rows in (3, 5_500, 1_200_000)
    ]
    assert counts == [1, 5, 16]


GIVEN = {"learning_rate": 1e-5, "global_batch": 4, "epochs": 1, "max_length": 512}


@pytest.mark.parametrize("trainer", ["llamafactory", "axolotl"])
def test_a_program_that_loses_the_thinking_trains_nothing(tmp_path, work, programs, trainer):
    (programs / "drops").touch()
    with pytest.raises(TrainingFailed, match=r"would learn .* where the row says '<think>"):
        trained(tmp_path, work, trainer, **GIVEN)
    folder = tmp_path / "store/building/student-k"
    assert not (folder / "out").exists()
    assert not (folder / "config.log").exists()


@pytest.mark.parametrize("trainer", ["llamafactory", "axolotl"])
def test_a_program_that_fails_is_heard_through_its_launcher(tmp_path, work, programs, trainer):
    (programs / "fails").touch()
    with pytest.raises(
        TrainingFailed, match=r"ends: ValueError: no kernel for this GPU \.\.\. \| a launcher tells"
    ):
        trained(tmp_path, work, trainer, **GIVEN)
    # It goes on with the tokens that are there, and a checkpoint that was cut short is gone.
    (programs / "fails").unlink()
    folder = tmp_path / "store/building/student-k"
    (folder / "out/checkpoint-99").mkdir(parents=True)
    (folder / "out/checkpoint-99/trainer_state.json").write_text('{"epoch": 1')
    prepared = (folder / "prepare.log").read_text()
    assert prepared.count("said by") == 1
    (folder / "prepare.log").chmod(0o400)
    assert trained(tmp_path, work, trainer, **GIVEN).trained.details["steps"] == 7


@pytest.mark.parametrize("trainer", ["llamafactory", "axolotl"])
def test_a_kill_while_tokens_are_written_leaves_nothing_behind(tmp_path, work, programs, trainer):
    part = {"llamafactory": "train", "axolotl": "99324b35"}[trainer]
    place = tmp_path / "store/building/student-k/tokens" / part
    place.mkdir(parents=True)
    (place / "data-00000-of-00001.arrow").write_bytes(b"torn")
    assert trained(tmp_path, work, trainer, **GIVEN).trained.rows == 2


@pytest.mark.parametrize("trainer", ["llamafactory", "axolotl"])
def test_a_loss_that_is_no_number_is_no_student(tmp_path, work, programs, trainer):
    (programs / "diverges").touch()
    with pytest.raises(TrainingFailed, match="the loss is no number at step 1; lower the learning"):
        trained(tmp_path, work, trainer, **GIVEN)


@pytest.mark.parametrize("trainer", ["llamafactory", "axolotl"])
def test_without_the_program_its_files_are_written_and_a_model_brought_back_is_taken(
    tmp_path, work, monkeypatch, trainer, programs
):
    path = os.environ["PATH"]
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SetupError, match="no such program; expected it to train") as told:
        trained(tmp_path, work, trainer, "openthoughts-ablation")
    folder = tmp_path / "store/building/student-k"
    for name in ("prepare.yaml", "config.yaml"):
        assert f" {folder.resolve() / name}`" in str(told.value)
    one = TRAINERS[trainer]
    assert one.NAMED in str(told.value)
    monkeypatch.setenv(one.NAMED, "/nowhere/program")
    with pytest.raises(SetupError, match=f"{one.NAMED} is /nowhere/program; expected the path"):
        trained(tmp_path, work, trainer, "openthoughts-ablation")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    shutil.copytree(work.base, config["output_dir"])
    # Trained elsewhere, it is taken here where the program is too; tokens need not come with it.
    monkeypatch.setenv(one.NAMED, str(programs / one.EXECUTABLE))
    monkeypatch.setenv("PATH", path)
    alumnus = trained(tmp_path, work, trainer, "openthoughts-ablation")
    assert not (programs / "seen.json").exists()
    assert alumnus.trained.rows == 3
