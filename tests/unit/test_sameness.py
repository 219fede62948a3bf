"""Draws that all come back the same are told of once; draws that may be the same are not."""

import json
from pathlib import Path

import pytest
from aiohttp import web
from click.testing import CliRunner
from tests.servers import Behaviour, Seen, TeacherServer, answer

from stillroom.cli import cli
from stillroom.models.chat import Completion, Failure, Message, Reply, Request, Sampling
from stillroom.models.sameness import Sameness

LONG = "Let me think about it step by step, and write all of it down. " * 3


def told(
    texts: list[list[str]], *, temperature: float | None = 0.7, reasoning: bool = False
) -> list[str]:
    """Hear draws of some questions, and return the warnings."""
    sameness = Sameness()
    found = []
    for i, draws in enumerate(texts):
        for draw, text in enumerate(draws):
            request = Request("m", (Message("user", f"{i}?"),), Sampling(temperature), draw)
            reply: Reply = Completion(
                text if reasoning else None, "4" if reasoning else text, "stop", 1, 1
            )
            found.append(sameness.heard(request, reply))
            assert sameness.heard(request, Failure("timeout", LONG)) is None
    return [words for words in found if words]


@pytest.mark.parametrize("reasoning", [False, True])
@pytest.mark.parametrize("texts", [[[LONG] * 9], [[f"{LONG}{i}"] * 2 for i in range(8)]])
def test_draws_that_are_all_the_same_are_told_of(texts: list[list[str]], reasoning: bool) -> None:
    [words] = told(texts * 3, reasoning=reasoning)
    assert words.startswith("m: ")
    assert "at temperature 0.7" in words
    [words] = told(texts, temperature=None, reasoning=reasoning)
    assert "the server's own" in words


@pytest.mark.parametrize(
    "texts",
    [
        [[LONG] * 8],  # seven equal the first
        [[f"{LONG}{i}"] for i in range(50)],
        [[LONG, LONG + "!"], *([LONG] * 5 for _ in range(50))],  # one that differs is enough
        [["42"] * 50],  # short ones agree by rights
    ],
)
def test_draws_that_may_be_the_same_are_not_told_of(texts: list[list[str]]) -> None:
    assert told(texts) == []


def test_draws_at_temperature_zero_are_not_told_of() -> None:
    assert told([[LONG] * 50], temperature=0.0) == []


def test_questions_with_one_draw_each_end_the_watch() -> None:
    assert told([[f"{LONG}{i}"] for i in range(4097)] + [[LONG] * 50]) == []


async def drawn(seen: Seen, request: web.Request) -> web.StreamResponse:
    return await answer(f"{LONG} {seen.body['seed']}")(seen, request)


@pytest.mark.parametrize(
    ("behave", "temperature", "warnings"),
    [(answer(LONG), 0.7, 1), (answer(LONG), 0, 0), (drawn, 0.7, 0)],
    ids=["greedy", "asked to be greedy", "draws"],
)
def test_run_warns_of_a_server_that_ignores_the_temperature(
    tmp_path: Path, behave: Behaviour, temperature: float, warnings: int
) -> None:
    questions = [{"question": f"What is {i} + {i}?"} for i in range(6)]
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, questions)))
    (tmp_path / "recipe.yaml").write_text(
        f"name: same\nmodels: {{teacher: {{name: m, temperature: {temperature}}}}}\n"
        "domains:\n  math:\n    - source: {file: questions.jsonl, licence: cc0-1.0}\n"
        "    - answer: {draws: 4}\n"
    )
    with TeacherServer(behave) as server:
        (tmp_path / "models.toml").write_text(
            f'[models.m]\nengine = "openai"\nbase_url = "{server.url}"\n'
        )
        done = CliRunner().invoke(
            cli,
            ["run", str(tmp_path / "recipe.yaml"), "--models", str(tmp_path / "models.toml"),
             "--source", f"questions={tmp_path / 'questions.jsonl'}", "--workers", "1",
             "--store", str(tmp_path / "store"), "--out", str(tmp_path / "out")],
        )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert server.total == 24
    assert done.output.count("warning: m: draws of one question come back") == warnings
