"""What a run may spend, what it is foretold to spend, and runs that spend nothing."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from click.testing import CliRunner
from tests.servers import Behaviour, Seen, TeacherServer, answer

from stillroom.cli import cli
from stillroom.errors import BudgetError, ModelError, StillroomError
from stillroom.models.config import load_config
from stillroom.models.spending import Limit
from stillroom.run.planner import totals
from stillroom.steps.base import Calls

RECIPE = """\
name: priced
models: {{teacher: {{name: my/teacher, temperature: 1.0, max_tokens: 8000}}}}
domains:
  math:
    - source: {{file: {file}, licence: mit}}
    - answer: {{draws: {draws}}}
export: {{format: sharegpt}}
"""
PRICE = (0.4, 1.6)  # USD per million tokens


def usage_of(seen: Seen) -> dict[str, int]:
    """Make up what a call takes: a template and a token per 4 characters; a spread of answers."""
    text = seen.body["messages"][-1]["content"]
    draw = random.Random(seen.key)
    return {
        "prompt_tokens": 12 + len(text) // 4,
        "completion_tokens": round(draw.lognormvariate(6.5, 0.35)),
    }


async def priced(seen: Seen, request: web.Request) -> web.StreamResponse:
    return await answer(usage=usage_of(seen), latency_s=0.002)(seen, request)


class Shop:
    """A recipe, a priced server, and the command line."""

    def __init__(self, folder: Path, server: TeacherServer) -> None:
        self.folder = folder
        self.server = server
        self.write_models(f'engine = "openai"\nbase_url = "{server.url}"\nconcurrency = 8\n')

    def write_models(self, entry: str, price: bool = True) -> None:
        words = f"price = {{prompt = {PRICE[0]}, completion = {PRICE[1]}}}\n" if price else ""
        (self.folder / "models.toml").write_text(f'[models."my/teacher"]\n{entry}{words}')

    def questions(self, n: int, draws: int = 2) -> None:
        file = self.folder / "q.jsonl"
        text = "How many? " * 20
        file.write_text(
            "".join(
                json.dumps({"question": f"{i}: {text[: 20 + i % 150]}"}) + "\n" for i in range(n)
            )
        )
        (self.folder / "recipe.yaml").write_text(RECIPE.format(file=file, draws=draws))

    def __call__(self, verb: str, *options: str) -> str:
        done = CliRunner().invoke(
            cli,
            [verb, str(self.folder / "recipe.yaml"), *options,
             "--store", str(self.folder / "store"), "--models",
             str(self.folder / "models.toml"), "--workers", "1",
             *(["--out", str(self.folder / "out")] if verb == "run" else [])],
        )  # fmt: skip
        if isinstance(done.exception, StillroomError):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.output

    @property
    def spent(self) -> float:
        """What the server would send a bill for."""
        usages = [usage_of(Seen(key, 0, 0, body)) for key, body in self.paid.items()]
        return sum(
            (u["prompt_tokens"] * PRICE[0] + u["completion_tokens"] * PRICE[1]) / 1e6
            for u in usages
        )

    @property
    def paid(self) -> dict[str, dict[str, Any]]:
        return {f"{b['messages'][-1]['content']}/{b.get('seed')}": b for b in self.server.bodies}

    def manifest(self) -> dict[str, Any]:
        [path] = (self.folder / "store" / "artifacts" / "answer").glob("*/manifest.json")
        found: dict[str, Any] = json.loads(path.read_text())
        return found


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with TeacherServer(priced) as server:
        yield Shop(tmp_path, server)


# Foretold


def test_after_a_pilot_the_estimate_is_within_a_tenth_and_its_answers_are_kept(shop: Shop) -> None:
    shop.questions(300)
    said = shop("plan", "--pilot", "60")
    assert "The pilot bought 60 answers of my/teacher; 540 of 600" in said
    assert shop.server.total == 60
    [line] = [line for line in said.splitlines() if line.startswith("my/teacher: 540 calls")]
    pilot = shop.spent
    about = float(line.split("about $")[1].split(" ")[0])
    low, high = (float(x.strip("$)")) for x in line.split("95%: ")[1].split(")")[0].split(" to "))
    shop("plan", "--pilot", "60")
    assert shop.server.total == 60
    shop("run")
    assert shop.server.total == 600
    rest = shop.spent - pilot
    assert about == pytest.approx(rest, rel=0.10)
    assert low < rest < high


def test_manifest_keeps_what_was_spent_by_model(shop: Shop) -> None:
    shop.questions(10)
    shop("run")
    spent = shop.manifest()["measured"]["spent"]["my/teacher"]
    usages = [usage_of(Seen(key, 0, 0, body)) for key, body in shop.paid.items()]
    assert spent["calls"] == 20
    assert spent["prompt_tokens"] == sum(u["prompt_tokens"] for u in usages)
    assert spent["completion_tokens"] == sum(u["completion_tokens"] for u in usages)
    assert spent["usd"] == pytest.approx(shop.spent)


def test_pilot_of_a_step_that_lacks_less_buys_it_and_writes_no_dataset(shop: Shop) -> None:
    shop.questions(5)
    assert "No step lacks more than 50 answers" in shop("plan", "--pilot", "50")
    assert shop.server.total == 10
    assert not (shop.folder / "out").exists()
    shop("run")
    assert shop.server.total == 10


def test_pilot_of_a_study_is_refused_with_advice(tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text("question: Does it help?\nbase: recipe.yaml\narms: {}\n")
    done = CliRunner().invoke(cli, ["plan", str(study), "--pilot", "50"])
    assert done.exit_code == 2
    assert "Plan the base of a study with --pilot" in done.output


def test_self_hosted_price_and_time_come_from_speed_and_hourly_cost(tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    file.write_text(
        '[models.m]\nengine = "openai"\nbase_url = "http://10.0.0.1/v1"\n'
        "tokens_per_s = 2000\nusd_per_h = 7.2\n"
    )
    config = load_config(file)
    price = config.prices("m")
    assert price is not None
    assert price.usd(10**9, 10**6) == pytest.approx(1.0)  # 500 s at 0.2 cents
    assert config.speed("m") == 2000


def test_totals_say_what_is_not_known() -> None:
    class Plan:
        state = "to build"

        def __init__(self, calls: Calls) -> None:
            self.calls = calls

    unknown = Plan(Calls("m", 5, 5))
    bounded = Plan(Calls("n", 5, 5, tokens=500, bound=True))
    assert totals([unknown, bounded]) == [  # type: ignore[list-item]
        "m: 5 calls, tokens unknown: give max_tokens, or plan --pilot 50",
        "n: 5 calls, at most 500 completion tokens, price unknown",
    ]


# Budgets


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("200usd", "$200.00"),
        ("1.5M-tokens", "1,500,000 tokens"),
        ("500k tokens", "500,000 tokens"),
    ],
)
def test_limits_are_read(text: str, said: str) -> None:
    assert str(Limit.parse(text)) == said


@pytest.mark.parametrize("text", ["", "200", "usd", "-5usd", "0usd", "5 euros", "1e9tokens"])
def test_limits_that_are_none_are_usage_errors(shop: Shop, text: str) -> None:
    shop.questions(1)
    done = CliRunner().invoke(cli, ["run", str(shop.folder / "recipe.yaml"), "--budget", text])
    assert done.exit_code == 2
    assert "expected an amount such as 200usd or 5M-tokens" in done.output


def test_budget_stops_within_what_was_in_flight_and_says_how_to_go_on(shop: Shop) -> None:
    shop.questions(200, draws=1)
    with pytest.raises(BudgetError, match=r"The budget of \$0\.05 is spent: \$0\.0\d for \d+ ans"):
        shop("run", "--budget", "0.05usd")
    mean = shop.spent / shop.server.total
    assert 0.05 - 2 * mean < shop.spent < 0.05 + 8 * mean
    bought = shop.server.total
    shop("run")
    assert shop.server.total == 200 > bought


def test_budget_in_tokens_counts_prompts_too(shop: Shop) -> None:
    shop.questions(100, draws=1)
    with pytest.raises(BudgetError, match=r"of 10,000 tokens is spent: \d?\d,\d\d\d tok"):
        shop("run", "--budget", "10k-tokens")
    assert 8 < shop.server.total < 30


def test_budget_that_suffices_changes_nothing(shop: Shop) -> None:
    shop.questions(5)
    shop("run", "--budget", "5usd")
    assert shop.server.total == 10


def test_budget_in_money_needs_a_price(shop: Shop) -> None:
    shop.questions(5)
    shop.write_models(f'engine = "openai"\nbase_url = "{shop.server.url}"\n', price=False)
    with pytest.raises(BudgetError, match="my/teacher: its price is not known, so a budget of"):
        shop("run", "--budget", "5usd")
    assert shop.server.total == 0


def test_uncounted_answers_spend_a_budget_in_tokens(shop: Shop) -> None:
    shop.questions(100, draws=1)
    shop.server.behave = _uncounted()
    with pytest.raises(BudgetError, match="is spent"):
        shop("run", "--budget", "1k-tokens")
    assert shop.server.total < 30


def test_uncounted_answers_spend_a_budget_in_money(shop: Shop) -> None:
    shop.questions(100, draws=1)
    shop.server.behave = _uncounted()
    with pytest.raises(BudgetError, match="is spent"):
        shop("run", "--budget", "0.002usd")
    assert shop.server.total < 30


def _uncounted() -> Behaviour:
    async def behave(seen: Seen, request: web.Request) -> web.StreamResponse:
        return await answer("word " * 60, usage={}, latency_s=0.002)(seen, request)

    return behave


# Replay


@pytest.mark.parametrize("how", ["option", "engine"])
def test_replay_says_how_many_are_missing_and_asks_nobody(shop: Shop, how: str) -> None:
    shop.questions(3)
    shop("run")
    shop.questions(5)
    options: tuple[str, ...] = ("--replay",)
    if how == "engine":
        shop.write_models('engine = "replay"\n', price=False)
        options = ()
    with pytest.raises(ModelError, match="my/teacher: 4 completions are not in the ledger"):
        shop("run", *options)
    assert shop.server.total == 6


def test_replay_makes_the_same_dataset_in_another_store(shop: Shop, tmp_path: Path) -> None:
    shop.questions(3)
    shop("run")
    before = shop.manifest()["shards"]
    for part in ("artifacts", "recipes"):
        _remove(shop.folder / "store" / part)
    shop.server.behave = _refusing
    shop("run", "--replay")
    assert shop.manifest()["shards"] == before


async def _refusing(seen: Seen, request: web.Request) -> web.StreamResponse:
    raise AssertionError("a replay asks nobody")


def _remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), key=lambda p: -len(p.parts)):
        path.rmdir() if path.is_dir() else path.unlink()
