"""Weights of a mixture: students on random mixtures, a regression, a proposal, a confirmation.

    question: In which proportions should the sources be mixed?
    base: recipes/math_small.yaml
    mixtures: {at: math.mix, random: 16, groups: {easy: [gsm8k, cn_k12], hard: [olympiads]}}

One student is trained on each random mixture, with equal budgets. A regression from weights to
outcome proposes weights; then a study like any other compares them with the base's own, with seeds,
and its report is the answer. Students of the random mixtures share sources and completions with
each other and with the confirmation, through the store.

What is covered: luck among random mixtures, because the confirmation trains new students. What is
not: the confirmation asks the questions that the regression learned from; held-out benchmarks are
for `promote`.

Source: RegMix, arXiv 2407.01492.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from stillroom.errors import RecipeError
from stillroom.evaluate.grade import Exam
from stillroom.recipe.form import Recipe
from stillroom.steps.mix.mix import Mix
from stillroom.study.arms import read_arm
from stillroom.study.form import Design, Mixing, Study
from stillroom.study.laboratory import Laboratory
from stillroom.study.mixing.regression import Array, Fit, HeldOut, Proposal, fit, held_out, propose
from stillroom.study.result import Result
from stillroom.study.run import run
from stillroom.study.statistics.comparing import means
from stillroom.study.statistics.outcomes import Outcomes

CONTROL, PROPOSED = "weights of the base", "proposed weights"
MIXTURE = "mixture "
"""Begins the name of the arm of a random mixture; its number follows."""
DIGITS = 4
"""Weights are rounded, so that a person can read and copy them."""


class RandomMixtures(Study):
    """A study whose arms are not compared: a regression learns from all of them."""


@dataclass(frozen=True)
class Sources:
    """What is weighed.

    Attributes:
        groups: Name to branches and their proportions within the group, which add up to 1.
        base: (groups,) weights of the base's mixture, adding up to 1.
    """

    groups: Mapping[str, Mapping[str, float]]
    base: Array

    def branches(self, weights: Sequence[float] | Array) -> dict[str, float]:
        """Turn weights of groups into weights of branches."""
        return {
            branch: float(max(round(weight * part, DIGITS), 10.0**-DIGITS))
            for weight, group in zip(weights, self.groups.values(), strict=True)
            for branch, part in group.items()
        }


@dataclass(frozen=True)
class Regressed:
    """One outcome and what weights say of it.

    Attributes:
        outcome: (observed,) what was measured.
        fit: The regression on all that was observed.
        held_out: How well it predicts what it did not see.
    """

    outcome: Array
    fit: Fit
    held_out: HeldOut


@dataclass(frozen=True)
class Mixed:
    """A mixing study that was run.

    Attributes:
        mixing: What was asked.
        sources: What was weighed.
        observed: Names of the mixtures that were trained, those of equal students together.
        drawn: (observed, groups) their weights, the mean where there are several.
        random: Students of the random mixtures.
        regressed: ``accuracy``, and ``likelihood`` with references: the regressions.
        proposal: By the regression on the outcome that the study names.
        confirmation: The proposed weights against those of the base.
    """

    mixing: Mixing
    sources: Sources
    observed: Sequence[tuple[str, ...]]
    drawn: Array
    random: Result
    regressed: Mapping[str, Regressed]
    proposal: Proposal
    confirmation: Result

    @property
    def decisive(self) -> Regressed:
        """The regression that weights were proposed by."""
        return self.regressed[self.mixing.outcome]


def run_mixing(
    mixing: Mixing, name: str, base: Mapping[str, Any], exams: Sequence[Exam], lab: Laboratory
) -> Mixed:
    """Train on random mixtures, regress, propose weights, and confirm them by a study.

    Everything is in the store, so a study that was stopped goes on where it was.

    Args:
        mixing: What is asked.
        name: Of the base, for messages.
        base: What the base says.
        exams: What students are graded on.
        lab: Where to run.

    Raises:
        StillroomError: If the base has no such mix, rows cannot be made, students cannot be graded,
            or too few students were trained for a regression.
    """
    sources = sources_of(mixing, read_arm(name, base, CONTROL, {}))
    weights = draw_weights(mixing, sources)
    study = random_study(mixing, sources, weights)
    random = run(study, _recipes(study, name, base), exams, lab)
    observed = different(random)
    need = len(sources.groups) + 2
    if len(observed) < need:
        failures = [f" The first failure: {sat.failed}." for sat in random.sat if sat.failed]
        raise RecipeError(
            f"{mixing.name}: {len(study.arms)} random mixtures gave {len(observed)} different "
            f"students; expected {need} or more for a regression. Draw more mixtures, or see that "
            f"their weights reach the rows of students.{''.join(failures[:1])}"
        )
    drawn, regressed = regress(observed, weights, random)
    proposal = propose(
        drawn,
        regressed[mixing.outcome].outcome,
        sources.base,
        concentration=mixing.mixtures.concentration,
        seed=mixing.mixtures.seed,
    )
    check = confirmation(mixing, sources, proposal.weights)
    confirmed = run(check, _recipes(check, name, base), exams, lab)
    return Mixed(mixing, sources, observed, drawn, random, regressed, proposal, confirmed)


def sources_of(mixing: Mixing, recipe: Recipe) -> Sources:
    """Find what the mix of a recipe mixes, and in which proportions.

    Raises:
        RecipeError: If there is no such mix, it draws no total, the groups do not fit its branches,
            or there are fewer than two things to weigh.
    """
    mixtures = mixing.mixtures
    where = f"{mixing.name}: mixtures.at is {mixtures.at}"
    domain, _, label = mixtures.at.partition(".")
    steps = {step.label: step for step in recipe.domains.get(domain, ())}
    mix = steps.get(label)
    if not isinstance(mix, Mix):
        known = [
            f"{d}.{s.label}" for d, ss in recipe.domains.items() for s in ss if isinstance(s, Mix)
        ]
        raise RecipeError(
            f"{where}, which is no mix of {recipe.name}; expected one of "
            f"{', '.join(known) or 'its mixes, and it has none'}."
        )
    if mix.total is None:
        raise RecipeError(
            f"{where}, which draws no total; expected one, or weights would say nothing. "
            "Add total: ROWS to it."
        )
    mixed = {name: (mix.weights or {}).get(name, 1.0) for name in mix.mixed}
    groups = mixtures.groups or {name: (name,) for name in mixed}
    named = [branch for group in groups.values() for branch in group]
    missing = [name for name in mixed if name not in named]
    unknown = [name for name in named if name not in mix.branches]
    if missing or unknown:
        what = f"leaves out {missing[0]}" if missing else f"names {unknown[0]}"
        raise RecipeError(
            f"{mixing.name}: mixtures.groups {what}; expected each branch of {mixtures.at} in one "
            f"group: {', '.join(mix.branches)}."
        )
    # Branches that a stage before this one left out of the mix have no weight to find.
    there = {n: {b: mixed[b] for b in group if b in mixed} for n, group in groups.items()}
    there = {name: group for name, group in there.items() if group}
    if len(there) < 2:
        raise RecipeError(
            f"{where}, which mixes {' and '.join(there)} only; expected two sources or groups to "
            "weigh. Leave this study out, or mix more."
        )
    if mixtures.random < len(there) + 3:
        raise RecipeError(
            f"{mixing.name}: mixtures.random is {mixtures.random}; expected {len(there) + 3} or "
            f"more to weigh {len(there)} sources. Draw more mixtures, or name groups."
        )
    totals = {name: sum(group.values()) for name, group in there.items()}
    inside = {n: {b: w / totals[n] for b, w in group.items()} for n, group in there.items()}
    base = np.array(list(totals.values()))
    return Sources(inside, base / base.sum())


def draw_weights(mixing: Mixing, sources: Sources) -> Array:
    """Draw the random mixtures: (mixtures, groups), each row adding up to 1."""
    mixtures = mixing.mixtures
    draw = np.random.default_rng(mixtures.seed)
    return draw.dirichlet(
        np.full(len(sources.groups), mixtures.concentration), size=mixtures.random
    )


def random_study(mixing: Mixing, sources: Sources, weights: Array) -> RandomMixtures:
    """Return the study of the random mixtures: an arm and one seed each."""
    arms = {
        f"{MIXTURE}{number}": {f"{mixing.mixtures.at}.weights": sources.branches(row)}
        for number, row in enumerate(weights, 1)
    }
    student = mixing.mixtures.student or mixing.student
    own = {"seeds": 1, "student": student, "arms": arms, "name": f"{mixing.name}-mixtures"}
    return RandomMixtures(**{**_shared(mixing), **own})


def confirmation(mixing: Mixing, sources: Sources, weights: Array) -> Study:
    """Return the study that compares proposed weights with those of the base."""
    proposed = {f"{mixing.mixtures.at}.weights": sources.branches(weights)}
    return Study(**_shared(mixing), arms={CONTROL: {}, PROPOSED: proposed})


def _shared(mixing: Mixing) -> dict[str, Any]:
    return {name: getattr(mixing, name) for name in Design.model_fields}


def _recipes(study: Study, name: str, base: Mapping[str, Any]) -> dict[str, Recipe]:
    return {arm: read_arm(name, base, arm, changes) for arm, changes in study.arms.items()}


def different(random: Result) -> list[tuple[str, ...]]:
    """Group the mixtures that were trained by the rows that their students saw.

    Args:
        random: Students of random mixtures, one each.

    Returns:
        Names of arms, those of equal students together; in the order of arms.
    """
    failed = {sat.arm for sat in random.sat if sat.failed}
    same: dict[str, list[str]] = {}
    for sat in random.sat:
        if sat.student is not None and sat.arm not in failed:
            same.setdefault(sat.shown, []).append(sat.arm)
    return [tuple(arms) for arms in same.values()]


def regress(
    observed: Sequence[tuple[str, ...]], weights: Array, random: Result
) -> tuple[Array, dict[str, Regressed]]:
    """Regress what students of random mixtures achieved on the weights of their mixtures.

    Args:
        observed: What is one observation; see `different`.
        weights: (mixtures, groups) of all mixtures, in the order of the study's arms.
        random: Their students.

    Returns:
        (observed, groups) weights, and outcome to regression.
    """
    rows = dict(zip(random.study.arms, weights, strict=True))
    drawn = np.array([np.mean([rows[arm] for arm in same], axis=0) for same in observed])
    arms = [arm for same in observed for arm in same]
    tables = {"accuracy": random.grades(), "likelihood": random.likelihoods()}
    regressed = {}
    for name, table in tables.items():
        if table is not None:
            of = means(Outcomes.of(table.filter(pl.col("arm").is_in(arms)), arms))
            outcome = np.array([np.mean([of[arm] for arm in same]) for same in observed])
            regressed[name] = Regressed(outcome, fit(drawn, outcome), held_out(drawn, outcome))
    return drawn, regressed
