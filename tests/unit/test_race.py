"""Races: what a file may say, who leaves when, how a race ends, and what its report says."""

import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillroom.errors import RecipeError
from stillroom.evaluate.grade import Grades
from stillroom.study.load import read_design

pytest.importorskip("scipy")

from stillroom.study.race.elimination import Rule, judge, look
from stillroom.study.race.plan import plan_race
from stillroom.study.race.run import hold, recipes_of
from stillroom.study.reports.race import full_grid, outcome, spent, write_race_report
from stillroom.study.result import Result, Sat
from stillroom.study.statistics.errors import Estimate
from stillroom.study.statistics.noise import Noise, by_seed, training_noise
from stillroom.study.statistics.outcomes import Outcomes

STUDY = """
question: Which is best?
base: base.yaml
rows: 1200
seeds: 6
matters: 0.02
student: {model: stillroom/base-1}
benchmarks: proxy_suite
race:
  scales:
    - {rows: 300, seeds: 3, settings: {steps: 100}, changes: {math.dedup: exact}}
    - {rows: 1200, seeds: [3, 6]}
arms:
  a: {math.take: 1}
  b: {math.take: 2}
  c: {math.take: 3}
"""
BASE = """
name: base
domains:
  math:
    - source: {procedural: {n: 60}}
    - dedup: exact
    - take: 24
    - answer: {model: {name: stillroom/teacher-1}}
"""


def study(old="", new="", **changes):
    made = read_design(STUDY.replace(old, new) if old else STUDY, "race.yaml", "race")
    return made.model_copy(update=changes) if changes else made


def test_rounds_are_the_scales_and_seeds_in_order():
    race = study().race
    assert [(r.number, r.place, r.scale.rows, r.seeds) for r in race.rounds] == [
        (1, 0, 300, 3), (2, 1, 1200, 3), (3, 1, 1200, 6),
    ]  # fmt: skip
    assert [race.margin_at(r) for r in race.rounds] == [0.04, 0.0, 0.0]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("seeds: [3, 6]", "seeds: [3, 5]", "race ends at 1,200 rows, 5 seeds, but the study"),
        ("rows: 1200, seeds: [", "rows: 1300, seeds: [", "expected the last round to be the study"),
        ("seeds: [3, 6]", "seeds: [6, 3]", "seeds are 6, 3; expected growing numbers"),
        ("seeds: 3,", "seeds: 1,", "seeds are 1; expected growing numbers from 2 on"),
        ("seeds: 3,", "seeds: two,", "seeds is 'two'"),
        ("rows: 300", "rows: 3000", "scales go from 3,000 rows to 1,200 rows"),
        ("rows: 300", "tokens: 300", "all in rows or all in tokens"),
        ("rows: 300, ", "", "neither is given of rows and tokens"),
        ("matters: 0.02", "matters: 0", "a race needs matters"),
        ("math.dedup: exact", "math.take: 5", "race changes math.take at 300 rows, and so do"),
        ("seeds: [3, 6]}", "seeds: [3, 6], settings: {steps: 9}}", "the last scale, 1,200 rows"),
        ("race:\n", "race:\n  confidence: 95\n", "confidence is 95; expected"),
        ("race:\n", "race:\n  margins: 0.1\n", "margins is no field"),
    ],
)  # fmt: skip
def test_a_race_that_makes_no_sense_is_refused(old, new, words):
    assert old in STUDY
    with pytest.raises(RecipeError, match=words):
        study(old, new)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("math.dedup: exact", "math.dedupe: exact", r"race.scales\[0\]: math.dedupe: no such step"),
        ("steps: 100", "step: 100", r"race.scales\[0\]: student: step is no setting"),
    ],
)
def test_a_scale_that_does_not_fit_the_recipe_is_refused(tmp_path, old, new, words):
    (tmp_path / "base.yaml").write_text(BASE)
    small, large = recipes_of(study(), beside=tmp_path)
    assert list(small) == list(large) == ["a", "b", "c"]
    with pytest.raises(RecipeError, match=words):
        recipes_of(study(old, new), beside=tmp_path)


def test_a_search_takes_no_ranks_from_a_race(tmp_path):
    from stillroom.study.search.form import load_search

    (tmp_path / "race.yaml").write_text(STUDY)
    file = tmp_path / "search.yaml"
    file.write_text("base: base.yaml\nstages: [race.yaml]\n")
    assert load_search(file).stages[0].study == "race.yaml"
    file.write_text("base: base.yaml\nstages: [{study: race.yaml, ranks: math.mix.rank}]\n")
    with pytest.raises(RecipeError, match="which is a race: arms that leave early are in no order"):
        load_search(file)


def compared(means, half):
    def compare(a, b):
        value = means[a] - means[b]
        return Estimate(value, math.nan, value - half, value + half, math.nan)

    return compare


RULE = Rule(arms=3, rounds=3, confidence=0.95, matters=0.02)


def test_the_level_is_shared_by_comparisons_with_the_best_and_by_rounds():
    assert RULE.level == pytest.approx(1 - 0.05 / 6)


@pytest.mark.parametrize(
    ("means", "half", "margin", "last", "left", "close"),
    [
        ({"a": 0.5, "b": 0.4, "c": 0.3}, 0.05, 0.0, True, "a", "a"),
        # b is worse by 0.1, certainly by more than 0.05, but not by more than the margin.
        ({"a": 0.5, "b": 0.4, "c": 0.3}, 0.05, 0.08, False, "ab", ""),
        ({"a": 0.5, "b": 0.49, "c": 0.3}, 0.02, 0.0, True, "ab", "a"),
        ({"a": 0.5, "b": 0.495, "c": 0.49}, 0.009, 0.0, True, "ab", "ab"),
        ({"a": 0.5, "b": 0.499, "c": 0.498}, 0.05, 0.0, True, "abc", ""),
        ({"a": 0.5, "b": 0.499, "c": 0.498}, 0.01, 0.0, False, "abc", ""),
    ],
)  # fmt: skip
def test_who_is_out_and_who_is_close(means, half, margin, last, left, close):
    seen = judge(means, compared(means, half), RULE, margin=margin, last=last)
    assert "".join(seen.left) == left
    assert "".join(seen.close) == close
    assert {one.arm for one in seen.lost} == set(means) - set(left)
    assert all(one.by.high < -margin for one in seen.lost)


@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0, 1), min_size=2),
    st.floats(1e-6, 0.5),
    st.floats(0, 0.2),
    st.booleans(),
)
def test_the_best_looking_arm_stays_and_less_certainty_drops_fewer(means, half, margin, last):
    sharp = judge(means, compared(means, half), RULE, margin=margin, last=last)
    blunt = judge(means, compared(means, 2 * half), RULE, margin=margin, last=last)
    wide = judge(means, compared(means, half), RULE, margin=margin + 0.01, last=last)
    assert sharp.left[0] == next(iter(sharp.means))
    assert set(sharp.left) <= set(blunt.left)
    assert set(sharp.left) <= set(wide.left)
    assert set(sharp.close) <= set(sharp.left)
    assert set(sharp.left) | {one.arm for one in sharp.lost} == set(means)


def test_noise_is_that_of_the_balanced_formula_and_more_arms_tell_more():
    rng = np.random.default_rng(0)
    cells = rng.normal(0, 1, (4, 5))
    rest = cells - cells.mean(0) - cells.mean(1, keepdims=True) + cells.mean()
    found = training_noise({str(k): list(row) for k, row in enumerate(cells)})
    assert found.df == 12
    assert found.mean_square == pytest.approx((rest**2).sum() / 12)
    early = training_noise({"a": list(cells[0]), "b": list(cells[1]), "c": list(cells[2][:3])})
    assert early.df == 5 + 5 + 3 - 3 - 5 + 1
    assert training_noise({"a": [0.5], "b": [0.4]}) == Noise(0.0, 0.0)
    # What all arms of a seed share is no noise of an arm.
    assert training_noise({"a": [0.1, 0.3], "b": [0.2, 0.4]}).mean_square == pytest.approx(0)


class Simulated:
    """Students of known level, graded on questions that are the same in every round."""

    def __init__(self, levels, *, seed=0, noise=0.05, questions=540, small=None, fails=()):
        rng = np.random.default_rng(seed)
        self.levels, self.fails = {300: small or levels, 1200: levels}, fails
        self.hard = rng.normal(-0.5, 1.5, questions)
        self.noise = {
            (rows, arm, s): rng.normal(0, noise)
            for rows in (300, 1200) for arm in levels for s in range(6)
        }  # fmt: skip
        self.ran = []

    def grades(self, arm, rows, seed):
        level = self.levels[rows][arm] + self.noise[rows, arm, seed]
        rng = np.random.default_rng([rows, ord(arm[0]), seed])
        chance = 1 / (1 + np.exp(-(level + self.hard)))
        right = (rng.random((2, len(chance))) < chance).astype(float)
        frame = pl.DataFrame(
            {
                "item": [str(i) for i in range(len(chance))] * 2,
                "repeat": [0] * len(chance) + [1] * len(chance),
                "score": right.ravel(),
            }
        )
        blank = [pl.lit(x).alias(n) for n, x in (("verdict", ""), ("finish_reason", "stop"))]
        return Grades(
            frame.with_columns(*blank, pl.lit(1).alias("completion_tokens")), {"verify": "v"}
        )

    def __call__(self, one, small):
        self.ran.append((one.number, tuple(small.arms)))
        rows = one.scale.rows
        sat = [Sat("base", 0, None)]
        for arm in small.arms:
            for seed in range(one.seeds):
                key = f"{arm}.{rows}.{seed}"
                if arm in self.fails:
                    sat.append(Sat(arm, seed, key, failed="the loss is nan"))
                    continue
                graded = {"bench": self.grades(arm, rows, seed)}
                sat.append(Sat(arm, seed, key, rows=rows, seconds=rows / 100, grades=graded))
        return Result(small, sat, {})


def test_a_race_drops_the_worst_early_and_ends_with_the_best(tmp_path):
    world = Simulated({"a": 0.0, "b": 1.2, "c": -1.5})
    heard = []
    raced = hold(study(), world, heard.append)
    assert (raced.ending, raced.winner, raced.left) == ("best", "b", ("b",))
    # All worse arms left in the first round: nothing was run at the last scale.
    assert world.ran == [(1, ("a", "b", "c"))]
    assert heard == list(raced.rounds)
    race, grid = spent(raced), full_grid(raced)
    assert (race.students, race.learnt) == (9, 2700)
    assert (grid.students, grid.learnt, grid.seconds) == (18, 21_600, None)
    said = outcome(raced)
    assert said[0].startswith("b is the best of 3 arms (95% confidence)")
    assert "is behind no other here by more than 4.0 points" in said[1]
    write_race_report(raced, tmp_path)
    facts = json.loads((tmp_path / "results.json").read_text())
    assert facts["winner"] == "b"
    assert {one["arm"] for one in facts["rounds"][0]["lost"]} == {"a", "c"}
    report = (tmp_path / "report.md").read_text()
    assert "| students trained | 9 | 18 | 50% |" in report
    assert (tmp_path / "round-1.svg").read_text() in (tmp_path / "report.html").read_text()


def test_arms_that_cannot_be_told_apart_are_all_named():
    world = Simulated({"a": 0.0, "b": 0.02, "c": -1.5})
    raced = hold(study(), world)
    assert (raced.ending, raced.winner, set(raced.left)) == ("open", None, {"a", "b"})
    assert [number for number, _ in world.ran] == [1, 2, 3]
    assert world.ran[1] == (2, ("a", "b"))
    assert "a and b cannot be told apart" in outcome(raced)[0].replace("b and a", "a and b")
    # Seeds of one scale are trained once: 9 small ones, then 2 arms of 6.
    assert spent(raced).students == 9 + 12
    assert [len(added.sat) for added in raced.results] == [9, 6, 6]


def test_arms_that_differ_by_less_than_matters_end_early_and_the_cheapest_wins(monkeypatch):
    asked = {"a": 500, "b": 100, "c": 900}
    monkeypatch.setattr(Result, "asked", lambda self, arm: asked[arm])
    world = Simulated({"a": 0.0, "b": 0.0, "c": -1.5}, questions=6000, noise=0.0)
    raced = hold(study(matters=0.05), world)
    assert (raced.ending, raced.winner) == ("close", "b")
    assert [number for number, _ in world.ran] == [1, 2]
    said = outcome(raced)
    assert said[0] == "b wins (95% confidence): no arm is better than it by 5.0 points or more."
    assert "b asks for the fewest completions" in said[1]


def test_arms_that_cannot_be_trained_leave_unjudged(tmp_path):
    raced = hold(study(), Simulated({"a": 0.0, "b": 0.0, "c": 0.0}, fails=("a", "c")))
    assert (raced.ending, raced.winner) == ("alone", "b")
    assert "the only arm that was trained" in outcome(raced)[0]
    write_race_report(raced, tmp_path)
    assert "a: the loss is nan" in (tmp_path / "report.md").read_text()
    nobody = hold(study(), Simulated({"a": 0.0, "b": 0.0, "c": 0.0}, fails=("a", "b", "c")))
    assert (nobody.ending, nobody.winner, nobody.left) == ("none", None, ())
    write_race_report(nobody, tmp_path)


def test_the_margin_keeps_an_arm_that_grows_late():
    small, large = {"a": 0.0, "b": 0.35, "c": -1.5}, {"a": 0.6, "b": 0.0, "c": -1.5}
    kept = hold(study(), Simulated(large, small=small, questions=6000))
    assert kept.winner == "a"
    without = study("race:\n", "race:\n  margin: 0\n")
    assert hold(without, Simulated(large, small=small, questions=6000)).winner == "b"


def races(levels, n, *, noise=0.1, questions=200):
    """Run many races at the last scale only; return endings and winners."""
    small = next(line + "\n" for line in STUDY.splitlines() if "rows: 300" in line)
    plan = read_design(STUDY.replace(small, ""), "race.yaml", "race")
    rule = Rule(len(levels), len(plan.race.rounds), plan.race.confidence, plan.matters)
    rng = np.random.default_rng(1)
    for _ in range(n):
        hard = rng.normal(-0.5, 1.5, questions)
        taste = rng.normal(0, 0.3, (len(levels), 1, questions))
        own = np.array(levels)[:, None] + rng.normal(0, noise, (len(levels), 6))
        chance = 1 / (1 + np.exp(-(own[:, :, None] + hard + taste)))
        table = rng.binomial(2, chance) / 2
        left, seen, close = list(range(len(levels))), {}, ()
        for one in plan.race.rounds:
            blank = np.full(len(left), math.nan)
            part = table[left][:, : one.seeds]
            names = tuple(map(str, left))
            outcomes = Outcomes(names, tuple(range(one.seeds)), {"x": part}, {"x": blank})
            seen |= by_seed(outcomes)
            found = look(outcomes, rule, training_noise(seen), margin=0.0, last=True)
            left, close = [int(arm) for arm in found.left], found.close
            if len(left) == 1 or close:
                break
        yield left, close


def test_the_best_arm_stays_and_ties_are_not_called():
    levels = (0.0, 0.25, 0.0, -0.4)
    ends = list(races(levels, 200))
    assert sum(1 not in left for left, _ in ends) <= 10
    assert sum(3 not in left for left, _ in ends) > 100
    alike = list(races((0.0, 0.0, 0.0), 200))
    assert sum(len(left) == 1 for left, _ in alike) <= 10


@settings(max_examples=5)
@given(st.integers(0, 1000))
def test_a_race_that_is_held_again_is_the_same_race(seed):
    levels = {"a": 0.0, "b": 0.4, "c": -0.6}
    first, second = (hold(study(), Simulated(levels, seed=seed, questions=60)) for _ in range(2))
    assert (first.ending, first.winner, first.left) == (second.ending, second.winner, second.left)
    assert [r.look for r in first.rounds] == [r.look for r in second.rounds]


def test_a_plan_counts_rounds_and_says_what_they_can_see():
    plan = plan_race(study(), [540], races=50)
    assert [one.most for one in plan.rounds] == [9, 9, 9]
    assert plan.rounds[0].expected == 9
    assert 0 < plan.rounds[2].expected < 9
    assert plan.rounds[0].drops > plan.rounds[1].drops > plan.rounds[2].drops > 0
    assert plan.worst == pytest.approx((9 * 300 + 18 * 1200) / (18 * 1200))
    assert 0 < plan.expected < plan.worst
    # More questions, narrower intervals, more winners.
    more = plan_race(study(), [20_000], races=50)
    assert more.width < plan.width
    assert more.named > plan.named


def test_scripts_of_the_page_on_racing_know_its_marks():
    page = (Path(__file__).parents[2] / "docs" / "racing.md").read_text()
    for script in ("check_races", "check_scales"):
        assert page.count(f"<!-- measured by scripts/{script}.py -->") == 1
