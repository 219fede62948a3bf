"""Studies that draw mixtures: what is weighed, what is drawn, and what is refused."""

import dataclasses

import numpy as np
import polars as pl
import pytest
import yaml

pytest.importorskip("scipy")

from stillroom.errors import RecipeError
from stillroom.evaluate.grade import Grades
from stillroom.recipe.load import read_recipe
from stillroom.study.form import Mixing, Study
from stillroom.study.load import load_study, read_design
from stillroom.study.mixing.run import (
    CONTROL,
    PROPOSED,
    RandomMixtures,
    confirmation,
    different,
    draw_weights,
    random_study,
    regress,
    sources_of,
)
from stillroom.study.result import Result, Sat

FAMILIES = ("arithmetic", "words", "loops")


def base(**mix):
    branches = {f: [{"source": {"procedural": {"n": 30, "families": [f]}}}] for f in FAMILIES}
    steps = [
        {"mix": {"branches": branches, "total": 30, **mix}, "as": "questions"},
        {"take": 10},
        "answer",
    ]
    recipe = {"name": "base", "models": {"teacher": {"name": "m"}}, "domains": {"math": steps}}
    return read_recipe(yaml.safe_dump(recipe, sort_keys=False), "base")


def study(mixtures, **more):
    data = {
        "question": "How to mix?", "base": "base.yaml", "rows": 10, "student": {},
        "benchmarks": "proxy_suite", "mixtures": mixtures, **more,
    }  # fmt: skip
    return read_design(yaml.safe_dump(data, sort_keys=False), "study.yaml", "mixing")


WHOLE = {"at": "math.questions", "random": 8}


def test_random_mixtures_are_arms_of_one_seed_that_change_only_weights():
    mixing = study(WHOLE, seeds=3)
    assert isinstance(mixing, Mixing)
    assert mixing.outcome == "accuracy"
    sources = sources_of(mixing, base())
    weights = draw_weights(mixing, sources)
    assert weights.shape == (8, 3)
    assert (weights == draw_weights(mixing, sources)).all()
    random = random_study(mixing, sources, weights)
    assert (len(random.arms), random.seeds, random.rows) == (8, 1, 10)
    for changes, row in zip(random.arms.values(), weights, strict=True):
        ((path, named),) = changes.items()
        assert path == "math.questions.weights"
        assert list(named.values()) == pytest.approx(row, abs=1e-4)
        assert all(weight > 0 for weight in named.values())


def test_the_confirmation_changes_nothing_in_its_control():
    mixing = study(WHOLE, seeds=5)
    check = confirmation(mixing, sources_of(mixing, base()), [0.5, 0.3, 0.2])
    assert check.arms[CONTROL] == {}
    assert check.arms[PROPOSED] == {
        "math.questions.weights": {"arithmetic": 0.5, "words": 0.3, "loops": 0.2}
    }
    assert check.seeds == 5


def test_random_mixtures_may_have_a_cheaper_student():
    cheap = {"settings": {"steps": 150}}
    mixing = study({**WHOLE, "student": cheap}, student={"settings": {"steps": 400}})
    sources = sources_of(mixing, base())
    random = random_study(mixing, sources, draw_weights(mixing, sources))
    assert random.student.settings == {"steps": 150}
    assert confirmation(mixing, sources, sources.base).student.settings == {"steps": 400}


def test_groups_share_a_weight_in_the_proportions_of_the_base():
    mixing = study({**WHOLE, "groups": {"math": ["arithmetic", "words"], "code": ["loops"]}})
    sources = sources_of(mixing, base(weights={"arithmetic": 3, "words": 1, "loops": 4}))
    assert list(sources.base) == pytest.approx([0.5, 0.5])
    assert sources.branches([0.8, 0.2]) == pytest.approx(
        {"arithmetic": 0.6, "words": 0.2, "loops": 0.2}
    )


def test_branches_that_are_not_mixed_have_no_weight():
    mixing = study({**WHOLE, "groups": {"math": ["arithmetic"], "code": ["loops"], "w": ["words"]}})
    sources = sources_of(mixing, base(top=2))
    assert list(sources.groups) == ["math", "w"]


@pytest.mark.parametrize(
    ("mixtures", "mix", "words"),
    [
        ({"at": "math.answer"}, {}, "which is no mix of base; expected one of math.questions"),
        ({"at": "maths.questions"}, {}, "which is no mix"),
        ({}, {"total": None}, "draws no total"),
        ({}, {"top": 1}, "mixes arithmetic only; expected two"),
        ({"groups": {"a": ["arithmetic"], "b": ["words"]}}, {}, "leaves out loops"),
        ({"groups": {"a": ["arithmetic", "words"], "b": ["loops", "x"]}}, {}, "names x"),
        ({"random": 6, "groups": None}, {}, None),
    ],
)
def test_a_mix_that_cannot_be_weighed_is_refused(mixtures, mix, words):
    mixing = study({**WHOLE, **mixtures})
    if words is None:
        assert len(sources_of(mixing, base(**mix)).groups) == 3
        return
    with pytest.raises(RecipeError, match=words):
        sources_of(mixing, base(**mix))


def test_too_few_mixtures_for_many_sources_are_refused():
    families = ["arithmetic", "words", "loops", "lists", "units", "modular"]
    branches = {f: [{"source": {"procedural": {"n": 30, "families": [f]}}}] for f in families}
    with pytest.raises(RecipeError, match=r"random is 6; expected 9 or more"):
        sources_of(study({**WHOLE, "random": 6}), base(branches=branches))


@pytest.mark.parametrize(
    ("mixtures", "words"),
    [
        ({"random": 3}, "mixtures.random is 3"),
        ({"concentration": 0}, "mixtures.concentration is 0"),
        ({"outcome": "likelihood"}, "there are no references"),
        ({"outcome": "loss"}, "mixtures.outcome"),
        ({"sources": ["a"]}, "sources"),
        ({"groups": {"a": ["arithmetic", "words", "loops"]}}, "expected two or more to weigh"),
        ({"groups": {"a": ["words"], "b": ["words", "loops"]}}, "names words twice"),
        ({"groups": {"a": ["words"], "b": []}}, "group b has no branch"),
    ],
)
def test_mixtures_that_cannot_be_drawn_are_refused(mixtures, words):
    with pytest.raises(RecipeError, match=words):
        study({**WHOLE, **mixtures})


def test_mixtures_and_arms_exclude_each_other():
    with pytest.raises(RecipeError, match="stands beside arms"):
        study(WHOLE, arms={"a": {}, "b": {"math.take": 5}})


def test_a_study_that_finds_its_arms_has_none_to_promote(tmp_path):
    (tmp_path / "study.yaml").write_text(
        "question: q\nbase: b\nrows: 5\nstudent: {}\nbenchmarks: proxy_suite\n"
        "mixtures: {at: math.mix, random: 8}\n"
    )
    with pytest.raises(RecipeError, match="has mixtures and no arms"):
        load_study(tmp_path / "study.yaml")


def test_a_study_with_arms_is_read_as_one():
    arms = {"a": {}, "b": {"math.take": 5}}
    data = {"question": "q", "base": "b", "rows": 5, "student": {}, "benchmarks": "proxy_suite"}
    assert isinstance(read_design(yaml.safe_dump({**data, "arms": arms})), Study)
    assert np.isfinite(read_design(yaml.safe_dump({**data, "arms": arms})).matters)


def trained(weights, shown, outcomes):
    """Return a study of random mixtures whose students saw these rows and scored so."""
    arms = {f"mixture {n}": {"math.questions.weights": {"a": n}} for n in range(len(weights))}
    random = RandomMixtures(
        question="How to mix?", base="base.yaml", rows=10, student={}, seeds=1,
        benchmarks="proxy_suite", arms=arms,
    )  # fmt: skip
    sat = [
        Sat(
            arm, 0, f"student {arm}", shown=rows,
            grades={"b": Grades(pl.DataFrame({
                "item": ["x", "y"], "repeat": [0, 0], "score": [score, score],
                "verdict": ["correct"] * 2, "finish_reason": ["stop"] * 2,
                "completion_tokens": [1, 1],
            }))},
        )
        for arm, rows, score in zip(arms, shown, outcomes, strict=True)
    ]  # fmt: skip
    return Result(random, [Sat("base", 0, None), *sat], {})


def test_mixtures_whose_students_saw_the_same_rows_are_one_observation():
    weights = np.array([[0.1, 0.9], [0.3, 0.7], [0.8, 0.2], [0.5, 0.5], [0.6, 0.4]])
    random = trained(weights, ["r", "s", "s", "t", "u"], [0.1, 0.2, 0.4, 0.5, 0.6])
    observed = different(random)
    assert observed == [
        ("mixture 0",), ("mixture 1", "mixture 2"), ("mixture 3",), ("mixture 4",)
    ]  # fmt: skip
    drawn, regressed = regress(observed, weights, random)
    assert drawn[1] == pytest.approx([0.55, 0.45])
    assert regressed["accuracy"].outcome == pytest.approx([0.1, 0.3, 0.5, 0.6])
    assert len(regressed["accuracy"].held_out.predicted) == 4


def test_a_mixture_that_was_not_trained_is_no_observation():
    random = trained(np.eye(2), ["r", "s"], [0.1, 0.2])
    random.sat[1] = dataclasses.replace(random.sat[1], failed="out of memory")
    assert different(random) == [("mixture 1",)]


def test_luck_of_students_that_stand_for_several_mixtures_is_seldom_called_a_prediction():
    # Near mixtures have one student: each counted by itself, half of such studies make a claim.
    claims = []
    for seed in range(40):
        draw = np.random.default_rng(seed)
        weights, centres = draw.dirichlet(np.ones(3), 16), draw.dirichlet(np.ones(3), 9)
        student = ((weights[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
        luck = draw.normal(0.5, 0.01, 9)[student]
        random = trained(weights, [str(s) for s in student], luck)
        _, regressed = regress(different(random), weights, random)
        claims.append(regressed["accuracy"].held_out.predicts)
    assert np.mean(claims) <= 0.125
