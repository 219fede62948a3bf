"""A judge behind a server, asked by the command: an honest one decides, a fooled one stops it."""

import json
import re
import subprocess
import sys

import polars as pl
import pytest
from tests.fake_teacher import environment
from tests.judges import PARTS, says, shown
from tests.servers import TeacherServer, answer

RECIPE = """\
name: judged
models:
  teacher: {name: some/teacher, temperature: 0.9, max_tokens: 99}
  judge: {name: some/judge}
domains:
  science:
    - source: {file: questions.jsonl, licence: cc0-1.0}
    - answer: {draws: 1}
    - verify: {judge: judge}
"""
pytestmark = pytest.mark.slow

FOOLED = {
    "nothing": lambda reference, given: given == "",
    "colon": lambda reference, given: given == ":",
    "digit": lambda reference, given: given != reference and len(given) == len(reference),
    "other": lambda reference, given: given not in ("", ":", reference) and given[1:] != reference,
}


def run(folder, accepts):
    """Run a recipe whose judge accepts what it should and what `accepts` says; count its calls."""
    lines = [{"question": f"What is {n} squared?", "reference": str(n * n)} for n in range(11, 31)]
    (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (folder / "recipe.yaml").write_text(RECIPE)

    async def behave(seen, request):
        text = seen.body["messages"][-1]["content"]
        if not PARTS.search(text):
            number = int(re.search(r"\d+", text)[0])
            return await answer(f"The answer is {number**2 if number < 30 else 1}.")(seen, request)
        _, reference, given = shown(text)
        right = given == reference or accepts(reference, given)
        return await answer(says("correct" if right else "incorrect"))(seen, request)

    with TeacherServer(behave) as server:
        (folder / "models.toml").write_text(
            "".join(
                f'[models."some/{name}"]\nengine = "openai"\nbase_url = "{server.url}"\n'
                for name in ("teacher", "judge")
            )
        )
        command = [sys.executable, "-m", "stillroom", "run", "recipe.yaml", "--store", "store",
                   "--out", "out", "--models", "models.toml", "--workers", "1"]  # fmt: skip
        done = subprocess.run(
            command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=120
        )
        return done, server.total


def test_honest_judge_decides(tmp_path):
    done, calls = run(tmp_path, lambda reference, given: False)
    assert done.returncode == 0, done.stderr
    assert calls > 40  # 20 questions, 20 answers to judge, and the canaries
    assert "canar" in (tmp_path / "out" / "README.md").read_text()
    rows = pl.read_parquet(tmp_path / "out" / "data" / "*.parquet")
    assert sorted(rows["verdict"]) == ["correct"] * 19 + ["incorrect"]
    assert rows["verifier"].str.starts_with("judge/").all()


@pytest.mark.parametrize("kind", FOOLED)
def test_judge_that_accepts_a_canary_stops_the_run_with_one_message(tmp_path, kind):
    done, calls = run(tmp_path, FOOLED[kind])
    assert done.returncode != 0
    assert "this is a canary" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
    assert calls < 40  # before the answers were judged
