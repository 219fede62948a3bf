"""What a change of a recipe costs, counted in calls by the server that would charge for them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.fake_teacher import Teacher, environment, fake_teacher

RECIPE = """\
name: counted
models: {{teacher: {{name: some/model, temperature: 0.9, max_tokens: 99{system}}}}}
domains:
  math:
    - source: {{file: questions.jsonl, licence: cc0-1.0}}
    - answer: {{draws: 1}}
{more}"""


class Kitchen:
    """A folder with a recipe on 20 questions, and the teacher that it asks."""

    def __init__(self, folder: Path, teacher: Teacher):
        self.folder = folder
        self.teacher = teacher
        self.write(20)
        (folder / "models.toml").write_text(
            f'[models."some/model"]\nengine = "openai"\nbase_url = "{teacher.url}"\n'
            "concurrency = 8\n"
        )

    def write(self, questions: int, *, system: str = "", more: str = "") -> None:
        lines = (json.dumps({"question": f"Echo {i}?"}) for i in range(questions))
        (self.folder / "questions.jsonl").write_text("\n".join(lines))
        said = f", system: {system}" if system else ""
        (self.folder / "recipe.yaml").write_text(RECIPE.format(system=said, more=more))

    def start(self, *, store: str = "store", out: str = "out") -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "stillroom", "run", "recipe.yaml", "--store", store,
                   "--out", out, "--models", "models.toml", "--workers", "1"]  # fmt: skip
        return subprocess.Popen(
            command, cwd=self.folder, env=environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def calls(self, *, store: str = "store") -> int:
        """Run the recipe, and return how many calls that cost."""
        before = self.teacher.stats()["calls"]
        finish(self.start(store=store))
        after: int = self.teacher.stats()["calls"]
        return after - before


def finish(process: "subprocess.Popen[str]") -> None:
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")


@pytest.fixture
def kitchen(tmp_path):
    with fake_teacher("--latency", "0.01") as teacher:
        yield Kitchen(tmp_path, teacher)


def test_calls_that_changes_cost(kitchen):
    assert kitchen.calls() == 20
    assert kitchen.calls() == 0
    kitchen.write(21)
    assert kitchen.calls() == 1  # one more question
    kitchen.write(21, more="    - keep: {where: {finish_reason: stop}}\n")
    assert kitchen.calls() == 0  # another filter of the same answers
    (kitchen.folder / "store").rename(kitchen.folder / "moved")
    assert kitchen.calls(store="moved") == 0
    kitchen.write(20, system="Be brief.")
    assert kitchen.calls(store="moved") == 20  # a changed system prompt is never served old answers


def test_two_processes_on_sixty_rows_make_sixty_calls(kitchen):
    kitchen.write(60)
    both = [kitchen.start(out="one"), kitchen.start(out="two")]
    for process in both:
        finish(process)
    stats = kitchen.teacher.stats()
    assert (stats["calls"], stats["answers"], stats["requests"]) == (60, 60, 60)
    one, two = (
        sorted(p.read_bytes() for p in (kitchen.folder / out).rglob("*") if p.is_file())
        for out in ("one", "two")
    )
    assert one == two


@pytest.mark.parametrize("percent", [45, 65])
def test_kill_in_the_middle_repeats_only_what_was_in_flight(kitchen, percent):
    kitchen.write(100)
    with kitchen.start() as process:
        kitchen.teacher.wait_until(lambda s: s["answers"] >= percent)
        process.kill()
    finish(kitchen.start())
    stats = kitchen.teacher.stats()
    assert stats["requests"] == 100
    assert stats["calls"] <= 108
