"""The house is in order: layers, lint, types, and documentation that runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from stillroom.models.config import load_config
from stillroom.recipe.load import read_recipe
from stillroom.study.load import read_design

ROOT = Path(__file__).parents[2]


def blocks(language: str) -> list[str]:
    """Return the fenced blocks of the README in a language."""
    text = (ROOT / "README.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize(
    "command",
    [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["lint-imports"], ["mypy"]],
    ids=["lint", "format", "layers", "types"],
)
def test_tool_is_content(command):
    tool = Path(sys.executable).parent / command[0]
    done = subprocess.run(
        [tool, *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_recipes_in_the_readme_load():
    assert blocks("yaml")
    recipes = [text for text in blocks("yaml") if "\narms:" not in text]
    studies = [text for text in blocks("yaml") if text not in recipes]
    for text in studies:
        assert read_design(text, "README.md").control
    for text in recipes:
        read_recipe(text, "README.md")


def test_python_in_the_readme_runs():
    assert blocks("python")
    for text in blocks("python"):
        done = subprocess.run(
            [sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_models_in_the_readme_load(tmp_path):
    (text,) = blocks("toml")
    (tmp_path / "models.toml").write_text(text)
    assert set(load_config(tmp_path / "models.toml").known()) >= {"Qwen/QwQ-32B", "my/model"}


def test_verbs_in_the_readme_exist():
    from stillroom.cli import VERBS

    text = (ROOT / "README.md").read_text()
    named = set(re.findall(r"^stillroom (\w+)", text, re.MULTILINE))
    assert named <= set(VERBS)
