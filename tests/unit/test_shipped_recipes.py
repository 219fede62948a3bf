"""The recipes that come with the package: each loads, and is planned without network or servers."""

from pathlib import Path

import pytest
from tests.kitchen import Kitchen

import stillroom.recipes
from stillroom.errors import SourceError
from stillroom.models.config import ModelsConfig
from stillroom.models.ledger import Ledger
from stillroom.recipe.load import load_recipe, recipe_text

FOLDER = Path(stillroom.recipes.__file__).parent
NAMES = sorted(str(p.relative_to(FOLDER).with_suffix("")) for p in FOLDER.rglob("*.yaml"))


@pytest.fixture
def plan(tmp_path, monkeypatch):
    def unreachable(repo):
        raise SourceError(f"hub {repo}: cannot be fetched")

    monkeypatch.setattr("stillroom.steps.source.source.newest_commit", unreachable)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        kitchen = Kitchen(tmp_path, {}, ModelsConfig({}), lambda: ledger)
        yield lambda name: {p.path: p for p in kitchen.plan(recipe_text(name))}


@pytest.mark.parametrize("name", NAMES)
def test_recipe_loads_by_name_and_plans_offline(plan, name):
    assert load_recipe(name).name == name.replace("/", "_")
    assert plan(name)


def test_openthoughts3_makes_as_many_rows_as_the_release(plan):
    planned = plan("openthoughts3")
    rows = {path: step.at_most for path, step in planned.items() if path.endswith(".answer")}
    assert rows == {"math.answer": 850_000, "code.answer": 250_000, "science.answer": 100_000}
    assert sum(rows.values()) == 1_200_000


@pytest.mark.parametrize(("domain", "sources"), [("code", 27), ("math", 21), ("science", 13)])
def test_every_source_of_the_paper_is_a_branch(plan, domain, sources):
    (mix, decontaminate, _) = load_recipe(f"openthoughts3/sources_{domain}").domains[domain]
    assert len(mix.branches) == sources
    assert list(mix.mixed) == list(mix.branches)[:1]
    assert len(decontaminate.against) == 12


def test_every_question_filter_is_a_line_of_its_own():
    for domain in ("code", "math", "science"):
        text = recipe_text(f"openthoughts3/filters_{domain}")
        for line in ("difficulty", "length_gpt_4o_mini", "length_gpt_4_1_nano",
                     "length_gpt_4_1_mini", "askllm", "embedding", "fasttext",
                     "fasttext_all_positives", "fasttext_all_negatives"):  # fmt: skip
            assert f"as: {line}\n" in text


def test_a_local_file_can_stand_in_for_everything_that_is_fetched():
    (steps,) = load_recipe("openthoughts3/filters_code").domains.values()
    named = [name for step in steps for name in step.named()]
    wanted = {"stackexchange_codegolf", "opencodereasoning", "math500", "Qwen/Qwen2-7B-Instruct"}
    assert wanted | {"open_r1_codeforces", "sql_create_context"} <= set(named)
