"""Errors of scores and differences: known values, and intervals that hold the truth."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from stillroom.study.statistics.attempts import majority, pass_at_k
from stillroom.study.statistics.comparing import (
    bootstrap,
    decision_accuracy,
    differences,
    holm,
    not_worse,
    scores,
    within_two_errors,
)
from stillroom.study.statistics.errors import Error, Part, wilson
from stillroom.study.statistics.foresight import detectable, foretold
from stillroom.study.statistics.outcomes import Outcomes


def outcomes(table, *, repeats=1):
    """Put (arms, seeds, questions) into the form of a study with one benchmark."""
    arms = tuple("abcdefgh"[: len(table)])
    return Outcomes(
        arms, tuple(range(table.shape[1])), {"bench": table}, {"bench": np.full(len(arms), 0.1)}
    )


def drawn(rng, *, arms=5, seeds=3, questions=540, repeats=2, effects=0.0, seed_sd=0.1):
    """Simulate students of known difference on a logistic scale."""
    effect = np.zeros(arms)
    effect[1] = effects
    shared = rng.normal(0, 0.1 if seed_sd else 0.0, seeds)
    level = effect[:, None] + rng.normal(0, seed_sd, (arms, seeds)) + shared
    hard = rng.normal(-0.5, 1.5, questions)
    taste = rng.normal(0, 0.3, (arms, questions))
    chance = 1 / (1 + np.exp(-(level[:, :, None] + hard + taste[:, None, :])))
    return rng.binomial(repeats, chance) / repeats


def truth(effects, seed_sd=0.1, *, above=0.0):
    rng = np.random.default_rng(7)
    shared = 0.1 if seed_sd else 0.0
    rest = rng.normal(-0.5, math.sqrt(1.5**2 + 0.3**2 + shared**2 + seed_sd**2), 1_000_000)
    own = 1 / (1 + np.exp(-(rest + effects)))
    return float(own.mean() if above is None else (own - 1 / (1 + np.exp(-(rest + above)))).mean())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arms", "seeds", "seed_sd", "effect"),
    [(2, 3, 0.1, 0.3), (3, 2, 0.1, 0.3), (2, 5, 0.1, 0.3), (3, 3, 0.3, 0.0), (5, 3, 0.1, 0.3),
     (8, 2, 0.1, 0.0), (5, 1, 0.0, 0.3)],
)  # fmt: skip
def test_intervals_hold_the_truth_as_often_as_they_say(arms, seeds, seed_sd, effect):
    # With one seed nothing is known of training noise, so there is none in this world.
    rng, target = np.random.default_rng(seeds), truth(effect, seed_sd)
    n, held, held_score = 800, 0, 0
    own = truth(effect, seed_sd, above=None)
    for _ in range(n):
        students = outcomes(
            drawn(rng, arms=arms, seeds=seeds, effects=effect, seed_sd=seed_sd, questions=400)
        )
        estimate = differences(students)[0].estimate
        held += estimate.low <= target <= estimate.high
        score = scores(students)[1].estimate
        held_score += score.low <= own <= score.high
    assert 0.935 <= held / n <= 0.985
    assert 0.935 <= held_score / n <= 0.985


@pytest.mark.slow
@pytest.mark.parametrize(("arms", "seeds"), [(2, 3), (3, 2), (2, 5), (5, 3)])
def test_arms_without_a_difference_are_rarely_told_apart(arms, seeds):
    rng, n = np.random.default_rng(0), 800
    claims = sum(
        any(d.verdict() for d in differences(outcomes(drawn(rng, arms=arms, seeds=seeds,
                                                            seed_sd=0.2, questions=200))))
        for _ in range(n)
    )  # fmt: skip
    assert stats.binomtest(claims, n, 0.05, alternative="greater").pvalue > 0.01
    # Where they never were, differences would be missed as well.
    assert claims >= 0.01 * n


def test_an_interval_is_as_wide_as_questions_alone_make_it_though_seeds_agree():
    rng = np.random.default_rng(9)
    table = rng.binomial(1, 0.5, (2, 3, 200)).astype(float)
    # All seeds of an arm get as much right: by luck, since each question is answered at random.
    table[:, 1:] = np.stack([table[:, 0][:, rng.permutation(200)] for _ in range(2)], axis=1)
    (difference,) = differences(outcomes(table))
    paired = stats.ttest_1samp((table[1] - table[0]).mean(axis=0), 0.0)
    low, high = paired.confidence_interval(0.95)
    assert (difference.estimate.low, difference.estimate.high) == pytest.approx((low, high))
    assert difference.estimate.p == pytest.approx(paired.pvalue)


@pytest.mark.parametrize(("seeds", "known"), [(3, stats.ttest_ind), (6, stats.ttest_rel)])
def test_few_seeds_are_no_pairs_and_many_are(seeds, known):
    by_seed = np.random.default_rng(10).normal(0.5, 0.1, (2, seeds))
    alone = differences(outcomes(np.repeat(by_seed[:, :, None], 30, axis=2)))[0].estimate
    found = known(by_seed[1], by_seed[0])
    ends = found.confidence_interval(0.95)
    assert (alone.low, alone.high) == pytest.approx((ends.low, ends.high))
    assert alone.p == pytest.approx(found.pvalue)


def test_interval_is_the_paired_t_where_questions_alone_vary():
    rng = np.random.default_rng(10)
    by_item = rng.normal(0.5, 0.1, (2, 1, 30))
    for seeds in (1, 4):
        same = differences(outcomes(np.repeat(by_item, seeds, axis=1)))[0].estimate
        known = stats.ttest_rel(by_item[1, 0], by_item[0, 0])
        ends = known.confidence_interval(0.95)
        assert (same.low, same.high) == pytest.approx((ends.low, ends.high))
        assert same.p == pytest.approx(known.pvalue)


variances = st.floats(1e-9, 1.0)


@given(variances, st.integers(1, 5000), variances, st.integers(1, 40), st.floats(0.5, 0.9999))
def test_p_is_the_level_of_the_interval_that_just_leaves_zero_out(asked, items, seed, df, level):
    error = Error((Part(asked, items), Part(seed, df)), Part(asked / 2, items))
    half = error.half(level)
    assert error.p(half) == pytest.approx(1 - level, rel=1e-6)
    assert error.p(0.0) == 1.0
    assert error.p(2 * half) < error.p(half) < error.p(half / 2)
    # What is estimated is never taken for known.
    assert half >= stats.norm.ppf(0.5 + level / 2) * math.sqrt(asked + seed) * (1 - 1e-9)


def test_p_of_a_huge_distance_is_zero_and_of_certainty_too():
    error = Error((Part(1e-4, 500), Part(1e-4, 2)), Part(1e-4, 500))
    assert error.p(1e20) == 0.0
    assert Error((Part(0.0, 3),), Part(0.0, 3)).p(0.1) == 0.0
    assert Error((Part(0.0, 3),), Part(0.0, 3)).p(0.0) == 1.0


def test_pairing_cancels_what_questions_do_to_both_arms():
    rng = np.random.default_rng(1)
    hard = rng.uniform(0.1, 0.9, 300)
    noise = rng.normal(0, 0.01, (2, 3, 300))
    table = np.stack([hard + noise[0], hard + 0.02 + noise[1]])
    (difference,) = differences(outcomes(table))
    assert difference.estimate.value == pytest.approx(0.02, abs=0.003)
    assert difference.verdict() == 1
    assert difference.estimate.se < 0.1 * scores(outcomes(table))[0].estimate.se


def test_one_seed_is_marked_as_unmeasured():
    rng = np.random.default_rng(2)
    (one,) = differences(outcomes(drawn(rng, arms=2, seeds=1)))
    (three,) = differences(outcomes(drawn(rng, arms=2, seeds=3)))
    assert not one.measured_seeds
    assert three.measured_seeds
    assert math.isnan(scores(outcomes(drawn(rng, arms=2, seeds=1)))[0].seed_se)


def test_equal_arms_have_no_difference_and_no_claim():
    table = np.tile(np.random.default_rng(3).uniform(size=(1, 3, 50)), (3, 1, 1))
    for difference in differences(outcomes(table)):
        assert difference.estimate.value == 0
        assert difference.p == 1
        assert difference.verdict() == 0
    assert set(not_worse(outcomes(table))) == {"a", "b", "c"}


def graded(right, benchmark="b"):
    """Make grades of (arms, seeds, questions, repeats)."""
    return pl.DataFrame(
        [
            {"arm": "abcdefgh"[a], "seed": s, "benchmark": benchmark, "item": f"{i:03}",
             "repeat": r, "score": float(score)}
            for (a, s, i, r), score in np.ndenumerate(right)
        ]
    )  # fmt: skip


@pytest.mark.parametrize("right", [0, 1])
@pytest.mark.parametrize(
    ("seeds", "questions", "repeats", "least"),
    [(3, 30, 2, 0.015), (1, 30, 1, 0.09), (1, 2, 1, 1.0)],
)
def test_questions_that_all_arms_answer_alike_do_not_say_that_the_next_one_is(
    right, seeds, questions, repeats, least
):
    same = Outcomes.of(graded(np.full((2, seeds, questions, repeats), right)), "ab")
    (difference,) = differences(same)
    assert difference.estimate.p == 1.0
    assert -1 <= difference.estimate.low <= -least < least <= difference.estimate.high <= 1


def test_all_right_against_all_wrong_is_no_certainty_where_questions_are_few():
    right = np.zeros((2, 1, 2, 1))
    right[1] = 1
    (difference,) = differences(Outcomes.of(graded(right), "ab"))
    assert difference.estimate.value == 1.0
    assert difference.verdict() == 0
    (sure,) = differences(Outcomes.of(graded(right.repeat(20, axis=2)), "ab"))
    assert sure.verdict() == 1
    assert sure.estimate.low < 1 == sure.estimate.high


def test_a_small_benchmark_that_is_all_wrong_keeps_the_mean_of_benchmarks_uncertain():
    rng = np.random.default_rng(11)
    large = graded(rng.binomial(1, 0.5, (2, 3, 300, 2)), "large")
    small = graded(np.zeros((2, 3, 2, 2)), "small")
    pooled = scores(Outcomes.of(pl.concat([large, small]), "ab"))[0].estimate
    # Half of the mean is the small one, of which two questions tell next to nothing.
    assert pooled.high > 0.5
    nothing = graded(np.zeros((2, 3, 300, 2)), "large")
    none = scores(Outcomes.of(pl.concat([nothing, small]), "ab"))[0].estimate
    assert none.low == 0
    assert none.high > 0.2


def test_outcomes_without_bounds_have_no_least_error():
    likelihood = graded(np.full((2, 3, 30, 1), -0.1))
    (difference,) = differences(Outcomes.of(likelihood, "ab", bounded=False))
    assert (difference.estimate.low, difference.estimate.high) == pytest.approx((0.0, 0.0))


def test_pooled_difference_weighs_benchmarks_equally():
    rng = np.random.default_rng(4)
    small, large = drawn(rng, arms=2, questions=10), drawn(rng, arms=2, questions=1000)
    both = Outcomes(
        ("a", "b"), (0, 1, 2), {"small": small, "large": large},
        {"small": np.zeros(2), "large": np.zeros(2)},
    )  # fmt: skip
    pooled, *single = differences(both)
    assert pooled.benchmark is None
    assert pooled.estimate.value == pytest.approx(np.mean([s.estimate.value for s in single]))
    assert [s.benchmark for s in single] == ["small", "large"]


def test_the_best_and_those_that_cannot_be_told_from_it():
    rng = np.random.default_rng(5)
    base = rng.uniform(0.3, 0.7, 400)
    shift = np.array([0.0, 0.1, 0.101])[:, None, None]
    table = base + shift + rng.normal(0, 0.05, (3, 3, 400))
    best = not_worse(outcomes(table))
    assert set(best) == {"b", "c"}
    assert set(within_two_errors(outcomes(table))) >= {"b", "c"}


def test_grades_are_arranged_whatever_their_order():
    rows = [
        {"arm": a, "seed": s, "benchmark": "x", "item": i, "repeat": r, "score": float((i + r) % 2)}
        for a in ("new", "old") for s in (1, 0) for i in (2, 0, 1) for r in (0, 1, 2)
    ]  # fmt: skip
    found = Outcomes.of(pl.DataFrame(rows).sample(fraction=1, shuffle=True, seed=3), ["old", "new"])
    assert found.seeds == (0, 1)
    assert found.means["x"].shape == (2, 2, 3)
    assert found.means["x"][0, 0].tolist() == pytest.approx([1 / 3, 2 / 3, 1 / 3])
    assert found.sampling["x"].tolist() == pytest.approx([1 / 3 / 3] * 2)
    with pytest.raises(ValueError, match="x: not every arm"):
        Outcomes.of(pl.DataFrame(rows[1:]), ["old", "new"])


@pytest.mark.parametrize(("arms", "seeds"), [(2, 2), (2, 3), (3, 4)])
def test_a_simulated_study_sees_the_detectable_difference_as_often_as_planned(arms, seeds):
    rng = np.random.default_rng(6)
    least = detectable([300], seeds, arms=arms, question_sd=0.2, seed_sd=0.02)
    seen = 0
    for _ in range(400):
        taste = rng.normal(0, 0.2 / math.sqrt(2), (arms, 1, 300))
        table = taste + rng.normal(0, 0.02, (arms, seeds, 1))
        table[1] += least
        seen += differences(outcomes(table))[0].verdict() == 1
    assert 0.75 <= seen / 400 <= 0.86


def test_the_error_with_more_seeds_is_foretold():
    """By studies of 4 seeds, on average, what studies of 12 seeds then have."""
    rng = np.random.default_rng(7)

    def run(seeds):
        taste = rng.normal(0.5, 0.15, (3, 1, 200))
        training = rng.normal(0, 0.02, (3, seeds, 1))
        return outcomes(taste + training + rng.normal(0, 0.3, (3, seeds, 200)))

    small = [run(4) for _ in range(200)]
    own = [differences(one)[0].estimate.se for one in small]
    assert np.mean([foretold(one, 4).se for one in small]) == pytest.approx(np.mean(own), rel=0.02)
    later = [differences(run(12))[0].estimate.se for _ in range(200)]
    assert np.mean([foretold(one, 12).se for one in small]) == pytest.approx(
        np.mean(later), rel=0.04
    )
    assert foretold(small[0], 12).half(0.95) < foretold(small[0], 4).half(0.95)


def test_more_questions_seeds_and_fewer_arms_see_more():
    base = detectable([300], 3, arms=4)
    assert detectable([1200], 3, arms=4) < base
    assert detectable([300], 6, arms=4, seed_sd=0.03) < detectable([300], 3, arms=4, seed_sd=0.03)
    assert detectable([300], 3, arms=8) > base
    with pytest.raises(ValueError, match="two arms"):
        detectable([300], 3, arms=1)


def test_bootstrap_agrees_with_the_formula_where_seeds_abound():
    rng = np.random.default_rng(8)
    # Where sampling is most of the noise, drawing seeds and questions anew counts it twice.
    table = drawn(rng, arms=2, seeds=12, questions=150, seed_sd=0.3)
    low, high = bootstrap(table[1] - table[0])
    estimate = differences(outcomes(table))[0].estimate
    assert high - low == pytest.approx(estimate.high - estimate.low, rel=0.2)


def test_scores_at_the_borders_have_intervals_inside_them():
    none, some = outcomes(np.zeros((2, 3, 30))), outcomes(np.ones((2, 1, 30)))
    assert scores(none)[0].estimate.low == 0
    assert 0.05 < scores(none)[0].estimate.high < 0.2
    assert scores(some)[0].estimate.high == 1
    assert 0.8 < scores(some)[0].estimate.low < 0.95
    binomial = np.zeros((2, 1, 400))
    binomial[:, :, :120] = 1
    estimate = scores(outcomes(binomial))[0].estimate
    assert (estimate.low, estimate.high) == pytest.approx(wilson(120, 400), abs=2e-3)


def test_known_values():
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm([]) == []
    assert decision_accuracy({"a": 1, "b": 2}, {"b": 5, "a": 3, "c": 9}) == 1.0
    assert decision_accuracy({"a": 1, "b": 2}, {"b": 3, "a": 3}) == 0.5
    assert math.isnan(decision_accuracy({"a": 1}, {"a": 2}))
    assert wilson(15, 30) == pytest.approx((0.3315, 0.6685), abs=1e-4)
    assert wilson(30, 30)[1] == pytest.approx(1.0)
    assert pass_at_k(16, 4, 1) == pytest.approx(0.25)
    assert pass_at_k(16, 4, 16) == 1.0
    assert majority(["4", "5", "4"], [False, True, False]) == 0.0
    assert majority([None], [False]) == 0.0
    with pytest.raises(ValueError, match="expected 1 <= k <= n"):
        pass_at_k(2, 1, 3)
    with pytest.raises(ValueError, match="31 of 30"):
        wilson(31, 30)
