"""Students whose chat template opens the thinking learn it once, as they will write it."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest

pytest.importorskip("torch")

from stillroom.errors import ModelError
from stillroom.models.chat import Message
from stillroom.models.local.checkpoint import Checkpoint
from stillroom.text.think import split_thinking
from stillroom.train.likelihood import log_likelihood
from stillroom.train.proxy import Proxy, _School
from stillroom.train.trainer import Example, Job, TrainingFailed

EMBEDDED = Path(__file__).parents[2] / "src/stillroom/models/embedded"


@pytest.fixture(params=["<think>\n", "<think>"])
def opening(tmp_path, request):
    """A small model whose prompts end in an open tag."""
    shutil.copytree(EMBEDDED / "base-1", tmp_path / "model")
    path = tmp_path / "model/tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings["chat_template"] += "{{- " + json.dumps(request.param) + " }}"
    path.write_text(json.dumps(settings))
    return tmp_path / "model"


def job(tmp_path, base, reasoning):
    (tmp_path / "rows").mkdir()
    row = {"question": ["What is 1+1?"], "reasoning": [reasoning], "answer": ["2"]}
    types = {"reasoning": pl.String}
    pl.DataFrame(row, schema_overrides=types).write_parquet(tmp_path / "rows/0.parquet")
    return Job(base, tmp_path / "rows", Proxy().settings(None, {"steps": 2}), 0)


def test_the_tag_is_learnt_once_and_what_follows_is_what_a_student_writes(tmp_path, opening):
    (row,) = _School(opening).lesson(job(tmp_path, opening, "1+1 is 2")).rows
    checkpoint = Checkpoint(opening)
    whole = checkpoint.text(list(row.tokens))
    assert whole.count("<think>") == 1
    prompt = checkpoint.prompt((Message("user", "What is 1+1?"),))
    assert list(row.tokens[: row.start]) == list(prompt.tokens)
    written = checkpoint.text(list(row.tokens[row.start :]))
    assert split_thinking(written, opened=True) == ("1+1 is 2", "2")
    assert "\n\n1+1" not in whole


def test_an_answer_without_thinking_is_no_row_of_such_a_student(tmp_path, opening):
    with pytest.raises(TrainingFailed, match=r"1 of 1 are longer .* or refused"):
        _School(opening).lesson(job(tmp_path, opening, None))
    with pytest.raises(ModelError, match="opens a thinking, and the answer has none"):
        log_likelihood(opening, [Example("What is 1+1?", None, "2")])
