"""What a race would do: its rounds, what they can see, and what they would probably cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from stillroom.study.form import Study
from stillroom.study.race.elimination import Rule, judge
from stillroom.study.race.rounds import Round
from stillroom.study.race.run import race_of, rule_of
from stillroom.study.statistics.errors import Estimate
from stillroom.study.statistics.foresight import detectable, foreseen
from stillroom.study.statistics.outcomes import Array

SPREAD = 0.03
"""Standard deviation of the arms' true accuracy that a plan supposes: 3 points. In the paper it is
0.7 to 2.9 points within most stages, and 9 between teachers (arXiv 2506.04178, section 3)."""

QUESTION_SD, SEED_SD = 0.25, 0.01
"""As in `stillroom.study.statistics.foresight.detectable`."""


@dataclass(frozen=True)
class PlannedRound:
    """A round before it is run.

    Attributes:
        round: Where and when.
        most: Students to train if no arm leaves before.
        expected: Students to train, in the mean over simulated races.
        drops: Smallest true difference from the best arm, 0 to 1, at which an arm usually leaves.
    """

    round: Round
    most: int
    expected: float
    drops: float


@dataclass(frozen=True)
class RacePlan:
    """What a race would do.

    Attributes:
        rounds: In order.
        worst: Rows (or tokens) learnt if no arm leaves, as a share of the full grid's; above 1.
        expected: The same in the mean over simulated races.
        named: Share of simulated races that end with a winner.
        width: Half width of the last round's intervals, 0 to 1.
    """

    rounds: tuple[PlannedRound, ...]
    worst: float
    expected: float
    named: float
    width: float


def plan_race(study: Study, questions: Sequence[int], *, races: int = 200) -> RacePlan:
    """Plan a race by simulating it.

    Args:
        study: A study with a race.
        questions: Questions of each benchmark.
        races: Races simulated.
    """
    race, rule = race_of(study), rule_of(study)
    students = np.zeros(len(race.rounds))
    named = 0
    rng = np.random.default_rng(0)
    for _ in range(races):
        new, won = _simulate(study, rule, questions, rng)
        students += new
        named += won
    arms = len(study.arms)
    before = [0, *(a.seeds if a.place == b.place else 0
                   for a, b in zip(race.rounds, race.rounds[1:], strict=False))]  # fmt: skip
    most = [arms * (one.seeds - had) for one, had in zip(race.rounds, before, strict=True)]
    sizes = np.array([one.scale.size for one in race.rounds])
    grid = sizes[-1] * arms * study.seeds
    rounds = []
    for one, n, expected in zip(race.rounds, most, students / races, strict=True):
        # `detectable` divides the level by the arms but one; the rule has divided it already.
        seen = detectable(
            questions, one.seeds, arms=arms, question_sd=QUESTION_SD, seed_sd=SEED_SD,
            level=(1 - rule.level) * (arms - 1),
        )  # fmt: skip
        rounds.append(PlannedRound(one, n, float(expected), race.margin_at(one) + seen))
    last = foreseen(questions, study.seeds, arms=arms, question_sd=QUESTION_SD, seed_sd=SEED_SD)
    return RacePlan(
        tuple(rounds),
        float(np.dot(most, sizes) / grid),
        float(np.dot(students / races, sizes) / grid),
        named / races,
        last.half(rule.level),
    )


def _simulate(
    study: Study, rule: Rule, questions: Sequence[int], rng: np.random.Generator
) -> tuple[list[int], bool]:
    """Run one race of made-up arms; return the students of each round, and whether it was won."""
    race = race_of(study)
    arms = len(study.arms)
    true = rng.normal(0, SPREAD, arms)
    question = sum(QUESTION_SD**2 / n for n in questions) / len(questions) ** 2
    # The questions are the same in every round, and so is what they do to an arm.
    taste = rng.normal(0, math.sqrt(question / 2), arms)
    students = [0] * len(race.rounds)
    left = list(range(arms))
    for place, scale in enumerate(race.scales):
        training = rng.normal(0, SEED_SD, (arms, scale.seeds[-1]))
        had = 0
        for one in (r for r in race.rounds if r.place == place):
            students[one.number - 1] = len(left) * (one.seeds - had)
            had = one.seeds
            seen = true + taste + training[:, : one.seeds].mean(axis=1)
            error = foreseen(
                questions, one.seeds, arms=arms, question_sd=QUESTION_SD, seed_sd=SEED_SD
            )
            half = error.half(rule.level)
            found = judge(
                {str(arm): float(seen[arm]) for arm in left},
                partial(_compare, seen, half),
                rule,
                margin=race.margin_at(one),
                last=place == len(race.scales) - 1,
            )
            left = [int(arm) for arm in found.left]
            if len(left) == 1 or found.close:
                return students, True
    return students, False


def _compare(seen: Array, half: float, a: str, b: str) -> Estimate:
    value = float(seen[int(a)] - seen[int(b)])
    return Estimate(value, math.nan, value - half, value + half, math.nan)
