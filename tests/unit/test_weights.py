"""A frozen name stands for one content of a local model."""

import os
import shutil
from pathlib import Path

import pytest

from stillroom.cli import main
from stillroom.cli.weights import check_weights
from stillroom.errors import ModelError
from stillroom.models import config
from stillroom.models.config import load_config
from stillroom.store.store import Store

EMBEDDED = Path(config.__file__).parent / "embedded"
TOML = """
[models."my/model"]
engine = "local"
path = "mine"

[models."my/server"]
engine = "openai"
base_url = "http://127.0.0.1:9/v1"
"""
BENCH = """
title: Sums
about: Sums.
domain: math
licence: mine
file: sums.jsonl
question: q
reference: a
sitting: {verify: math, repeats: 1, max_tokens: 8}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models.toml").write_text(TOML)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model.safetensors").write_bytes(b"weights")
    return tmp_path


def check(folder, *names):
    check_weights(Store(folder / "store"), load_config(folder / "models.toml"), names)


def test_other_weights_under_a_name_that_answered_are_refused(folder):
    check(folder, "my/model", "stillroom/base-1", "my/server", "nobody/knows")
    check(folder, "my/model")
    (folder / "mine" / "model.safetensors").write_bytes(b"WEIGHTS")
    with pytest.raises(ModelError, match=r"my/model: what lies in .*mine is not what answered"):
        check(folder, "my/model")
    # Nothing is forgotten by having been refused once, and other stores know nothing.
    with pytest.raises(ModelError):
        check(folder, "my/model")
    check_weights(Store(folder / "other"), load_config(folder / "models.toml"), ["my/model"])
    (folder / "mine" / "model.safetensors").write_bytes(b"weights")
    check(folder, "my/model")


def test_the_same_weights_may_lie_elsewhere_and_be_newer(folder):
    check(folder, "my/model")
    os.utime(folder / "mine" / "model.safetensors", (1, 1))
    check(folder, "my/model")
    shutil.move(folder / "mine", folder / "moved")
    (folder / "models.toml").write_text(TOML.replace('"mine"', '"moved"'))
    check(folder, "my/model")


def test_what_is_asked_of_no_local_model_writes_nothing(folder):
    check(folder, "stillroom/base-1", "my/server")
    assert not (folder / "store").exists()


def test_eval_does_not_give_new_weights_the_scores_of_older_ones(folder, capsys):
    shutil.rmtree(folder / "mine")
    shutil.copytree(EMBEDDED / "base-1", folder / "mine")
    (folder / "sums.yaml").write_text(BENCH)
    (folder / "sums.jsonl").write_text('{"q": "1 + 1?", "a": "2"}\n{"q": "2 + 2?", "a": "4"}\n')
    arguments = ["eval", "my/model", "sums.yaml", "--store", "store"]
    main(arguments)
    main(arguments)
    capsys.readouterr()
    shutil.copyfile(EMBEDDED / "novice-1" / "model.safetensors", folder / "mine/model.safetensors")
    with pytest.raises(SystemExit):
        main(arguments)
    assert "is not what answered under this name" in " ".join(capsys.readouterr().err.split())
