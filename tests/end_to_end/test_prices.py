"""What a run is foretold to cost and what a budget lets it cost, against the server's own books."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.fake_teacher import Teacher, environment, fake_teacher

QUESTIONS = 150
CONCURRENCY = 8
PRICE = (0.5, 2.0)  # USD per million tokens
RECIPE = """\
name: priced
models: {teacher: {name: some/model, temperature: 0.9, max_tokens: 8000}}
domains:
  math:
    - source: {file: questions.jsonl, licence: cc0-1.0}
    - dedup: exact
    - answer: {draws: 2}
"""


class Till:
    """A recipe on questions of many lengths, and the teacher that writes the bill.

    Attributes:
        teacher: Keeps its own books; answers of 100 to 2,000 tokens, lognormal.
    """

    def __init__(self, folder: Path, teacher: Teacher) -> None:
        self.folder = folder
        self.teacher = teacher
        lines = (
            json.dumps({"question": f"Echo {i}? " + "How many are there in all? " * (i % 23)})
            for i in range(QUESTIONS)
        )
        (folder / "questions.jsonl").write_text("\n".join(lines))
        (folder / "recipe.yaml").write_text(RECIPE)
        (folder / "models.toml").write_text(
            f'[models."some/model"]\nengine = "openai"\nbase_url = "{teacher.url}"\n'
            f"concurrency = {CONCURRENCY}\n"
            f"price = {{prompt = {PRICE[0]}, completion = {PRICE[1]}}}\n"
        )

    def __call__(self, verb: str, *options: str) -> "subprocess.CompletedProcess[str]":
        words = [verb, "recipe.yaml", "--models", "models.toml", "--workers", "1", *options]
        return subprocess.run(
            [sys.executable, "-m", "stillroom", *words],
            cwd=self.folder, env=environment(COLUMNS="200"), text=True, capture_output=True,
            timeout=120, check=False,
        )  # fmt: skip

    @property
    def books(self) -> dict[str, Any]:
        return self.teacher.stats()


@pytest.fixture
def till(tmp_path):
    price = [str(usd) for usd in PRICE]
    with fake_teacher("--price", *price, "--tokens", "400,950", "--latency", "0.005") as teacher:
        yield Till(tmp_path, teacher)


@pytest.mark.slow
def test_after_a_pilot_of_50_the_estimate_is_within_a_tenth_of_the_bill(till):
    done = till("plan", "--pilot", "50")
    assert (done.returncode, done.stderr) == (0, "")
    pilot = till.books
    assert (pilot["answers"], pilot["calls"]) == (50, 50)
    line, unsure = (li for li in done.stdout.splitlines() if li.startswith("some/model: "))
    found = re.search(
        r"250 calls, about ([\d,]+) prompt tokens, about ([\d,]+) completion tokens, "
        r"about \$([\d.]+) \(95%: \$([\d.]+) to \$([\d.]+)\).*from 50 answers",
        line,
    )
    assert found, line
    prompt, completion, about, low, high = (float(n.replace(",", "")) for n in found.groups())
    done = till("run")
    assert (done.returncode, done.stderr) == (0, "")
    bill = {name: till.books[name] - pilot[name] for name in (
        "answers", "usd", "prompt_tokens", "completion_tokens")}  # fmt: skip
    assert bill["answers"] == 250
    assert about == pytest.approx(bill["usd"], rel=0.10)
    assert low < bill["usd"] < high
    assert "there are too few of them for a pilot that tells within 10%" in unsure
    assert completion == pytest.approx(bill["completion_tokens"], rel=0.10)
    assert prompt == pytest.approx(bill["prompt_tokens"], rel=0.10)
    [path] = till.folder.glob("*/artifacts/answer/*/manifest.json")
    spent = json.loads(path.read_text())["measured"]["spent"]["some/model"]
    assert spent["calls"] == 250
    assert spent["usd"] == pytest.approx(bill["usd"])


@pytest.mark.slow
@pytest.mark.parametrize("budget", ["0.1usd", "40k-tokens"])
def test_budget_ends_a_run_within_what_was_in_flight(till, budget):
    done = till("run", "--budget", budget)
    books = till.books
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "is spent: " in done.stderr
    if budget.endswith("usd"):
        limit, spent = 0.1, books["usd"]
    else:
        limit, spent = 40_000, books["prompt_tokens"] + books["completion_tokens"]
    mean = spent / books["answers"]
    assert limit - 3 * mean < spent < limit + CONCURRENCY * mean
    assert till("run").returncode == 0
    assert till.books["answers"] == 2 * QUESTIONS  # none was bought twice
