"""Where a trained model is asked: here if it is small, by servers of its own if it is not."""

import json
import os
import sys
from pathlib import Path

import pytest
from tests.stand_in_vllm import STAND_IN, alive
from tests.tiny_checkpoints import TEMPLATE, write_checkpoint

from stillroom.errors import ModelError, SetupError
from stillroom.evaluate.hosting import LARGEST_LOCAL_BYTES, hosted, launch_of
from stillroom.models.chat import Completion, Message, Request, Sampling
from stillroom.models.config import ModelsConfig, StudentsEntry, load_config
from stillroom.models.local.checkpoint import opens_thinking


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudentsEntry:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(p for p in sys.path if p))
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    executable = (sys.executable, str(tmp_path / "stand_in.py"), str(tmp_path))
    return StudentsEntry(engine="vllm", executable=executable, start_timeout_s=60.0)


def ask(models: ModelsConfig, name: str, draws: int = 1) -> list[Completion]:
    asked = [
        Request(name, (Message("user", "What is 1+1?"),), Sampling(0.7, None, 12), draw)
        for draw in range(draws)
    ]
    replies = [reply for _, reply in models.open(name).complete(asked)]
    assert all(isinstance(reply, Completion) for reply in replies), replies
    return replies  # type: ignore[return-value]  # all are, as was just asserted


def test_a_small_model_runs_here_and_a_large_one_is_served(tmp_path: Path) -> None:
    small = write_checkpoint(tmp_path / "small")
    assert launch_of(small, None) is None
    large = write_checkpoint(tmp_path / "large")
    with (large / "model-2.safetensors").open("wb") as file:
        file.truncate(LARGEST_LOCAL_BYTES)  # takes no room on the disk
    launch = launch_of(large, None)
    assert launch is not None
    assert launch.command(7)[:3] == ["vllm", "serve", str(large)]
    assert launch_of(large, StudentsEntry(engine="local")) is None


def test_a_model_that_the_local_engine_cannot_run_is_served(tmp_path: Path) -> None:
    other = write_checkpoint(tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(
        json.dumps({**config, "architectures": ["Gemma3ForCausalLM"]})
    )
    assert launch_of(other, None) is not None


@pytest.mark.parametrize(
    ("engine", "flags"),
    [
        ("vllm", ["--generation-config", "vllm", "--swap-space", "0"]),
        ("sglang", ["--sampling-defaults", "openai", "--swap-space", "0"]),
    ],
)
def test_servers_take_no_sampling_from_the_models_own_file(
    tmp_path: Path, engine: str, flags: list[str]
) -> None:
    entry = StudentsEntry.model_validate(
        {"engine": engine, "gpus_each": 2, "context": 4096, "arguments": ["--swap-space", "0"]}
    )
    launch = launch_of(write_checkpoint(tmp_path / "m"), entry)
    assert launch is not None
    assert launch.command(7)[-4:] == flags
    assert (launch.gpus_each, launch.context) == (2, 4096)


def test_a_served_model_starts_when_it_is_asked_and_ends_with_the_sitting(
    tmp_path: Path, stand_in: StudentsEntry
) -> None:
    folder = write_checkpoint(tmp_path / "student")
    models = ModelsConfig({}, students=stand_in)
    seen = tmp_path / "served"
    with hosted(models, "student/k", lambda: folder, tmp_path / "logs"):
        pass
    assert not seen.exists()
    with hosted(models, "student/k", lambda: folder, tmp_path / "logs") as lent:
        assert lent.prices("student/k") is not None
        assert len(ask(lent, "student/k", 5)) == 5
        ask(lent, "student/k")
        (line,) = seen.read_text().splitlines()
        pid, model, *_ = line.split()
        assert model == str(folder)
        assert alive(int(pid))
    assert not alive(int(pid))


def test_a_server_that_does_not_start_is_one_message(
    tmp_path: Path, stand_in: StudentsEntry
) -> None:
    folder = write_checkpoint(tmp_path / "student")
    (tmp_path / "broken").touch()
    with (
        pytest.raises(ModelError, match=r"after 1 restart; .*\n?.*no memory left on the GPU"),
        hosted(ModelsConfig({}, students=stand_in), "s", lambda: folder, tmp_path / "logs") as lent,
    ):
        lent.open("s")


def test_a_missing_program_is_a_matter_of_setup(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "student")
    missing = StudentsEntry(engine="vllm", executable=("no-such-vllm",))
    with (
        pytest.raises(SetupError, match="no-such-vllm: no such program; expected vllm"),
        hosted(ModelsConfig({}, students=missing), "s", lambda: folder, tmp_path / "logs") as lent,
    ):
        lent.open("s")


def test_a_template_that_opens_the_thinking_is_seen_without_weights(tmp_path: Path) -> None:
    plain = write_checkpoint(tmp_path / "plain", template=TEMPLATE)
    opens = write_checkpoint(tmp_path / "opens", template=TEMPLATE + "<think>\n")
    for each in (plain, opens):
        (each / "model.safetensors").unlink()
    assert not opens_thinking(plain)
    assert opens_thinking(opens)


def test_students_are_a_table_of_models_toml(tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    file.write_text(
        '[students]\nengine = "vllm"\nservers = 8\nexecutable = ["/opt/vllm/bin/vllm"]\n'
    )
    read = load_config(file).students
    assert read == StudentsEntry(engine="vllm", servers=8, executable=("/opt/vllm/bin/vllm",))
    assert load_config(file).plus({"a": tmp_path}).students == read
    for line, words in (
        ("gpu = 1", "students has a key gpu, which means nothing; expected some of engine"),
        ('engine = "tgi"', "students.engine is \"tgi\"; expected 'local', 'vllm' or 'sglang'"),
        ("servers = 0", "students.servers is 0; expected greater than or equal to 1"),
    ):
        file.write_text(f"[students]\n{line}\n")
        with pytest.raises(ModelError) as told:
            load_config(file)
        assert words in str(told.value)
