"""Plans of studies: what would be bought, with intervals where answers are there to tell by."""

from dataclasses import replace

import pytest
import yaml
from tests.fakes import FakeModel, FakeModels, echo
from tests.kitchen import Kitchen

pytest.importorskip("scipy")

from stillroom.models.config import Price
from stillroom.models.ledger import Ledger
from stillroom.study.arms import arms_of
from stillroom.study.form import Study
from stillroom.study.plan import plan_study

BASE = """
name: base
models: {teacher: {name: some/model, max_tokens: 900}}
domains:
  math:
    - source: {procedural: {n: 2000}}
    - take: {n: 20, seed: 7}
    - answer
"""
STUDY = """
question: How many?
base: base.yaml
rows: 10
arms:
  some: {math.take: 100}
  more: {math.take: 200}
student: {model: stillroom/base-1}
seeds: 2
benchmarks: proxy_suite
"""


def reply(request):
    return replace(echo(request), completion_tokens=50 + int(request.key.hex()[:4], 16) % 400)


@pytest.fixture
def planned(tmp_path):
    """Plan the study after recipes were run, each a text."""
    (tmp_path / "base.yaml").write_text(BASE)
    study = Study.model_validate(yaml.safe_load(STUDY))
    with Ledger(tmp_path / "ledger") as ledger:
        models = FakeModels(FakeModel(reply), Price(prompt=0.0, completion=1e4))
        kitchen = Kitchen(tmp_path / "store", {}, models, lambda: ledger)

        def plan(*recipes, **changes):
            for text in recipes:
                kitchen.run(text)
            asked = study.model_copy(update=changes)
            arms = arms_of(asked, beside=tmp_path)
            return plan_study(asked, arms, [], store=kitchen.store, rt=kitchen.runtime)

        yield plan


@pytest.mark.parametrize(
    ("rows", "shortage", "short"),
    [
        (150, "refuse", {"some": 100}),
        (150, "upsample", {}),
        (100, "refuse", {}),
        (300, "refuse", {"some": 100, "more": 200}),
    ],
)
def test_a_plan_says_which_arms_make_too_few_rows(planned, rows, shortage, short):
    assert planned(rows=rows, shortage=shortage).short == short


def test_before_anything_ran_a_plan_says_bounds_alone(planned):
    plan = planned()
    assert plan.naive.calls.bound
    assert plan.naive.calls.tokens == 900 * 600
    assert plan.naive.calls.tokens_range is None


def test_answers_that_are_there_give_every_sum_of_a_plan_an_interval(planned):
    # Each arm draws its questions, but answers none.
    drawn = [
        BASE.replace("{n: 20, seed: 7}", f"{{n: {n}, seed: {seed}}}").replace("    - answer\n", "")
        for n in (100, 200) for seed in (7, 8)
    ]  # fmt: skip
    plan = planned(BASE.replace("seed: 7", "seed: 99"), *drawn)
    whole, arms = plan.naive.calls, [work.calls for work in plan.arms.values()]
    assert whole.sample == 20
    assert all(0.9 * n < arm.missing <= n for arm, n in zip(arms, (200, 400), strict=True))
    for calls in (*arms, whole):
        low, high = calls.tokens_range
        assert low < calls.tokens < high
        assert calls.usd_range == pytest.approx((low / 100, high / 100), rel=0.01)
    # All is foretold from the same answers: errors do not even out.
    widths = [(calls.tokens_range[1] - calls.tokens) / calls.tokens for calls in (*arms, whole)]
    assert min(widths) > 0.8 * max(widths)
