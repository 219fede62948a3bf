"""Measure how often intervals of differences hold the truth; write it into docs/statistics.md.

Usage: python scripts/check_intervals.py [--studies 2000] [--hard] [--write]

Students of known difference are simulated on a logistic scale: questions of different difficulty,
a taste of each arm for each question, noise of each training run, and in some worlds what a seed
does to all arms alike. The true difference is a mean over a million questions.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from stillroom.study.statistics.comparing import bootstrap, differences, not_worse, scores
from stillroom.study.statistics.outcomes import Outcomes

PAGE = Path(__file__).parents[1] / "docs" / "statistics.md"
START, END = "<!-- measured by scripts/check_intervals.py -->", "<!-- end -->"
HARD_START, HARD_END = "<!-- and where little is right -->", "<!-- end of little -->"
TASTE, SPREAD = 0.3, 1.5


@dataclass(frozen=True)
class World:
    """One kind of study: arms, seeds, questions of each benchmark, and noise of training.

    Seeds do as much as ``shared`` to all arms alike, where they do anything. Questions are as hard
    as ``ease`` is low. All on the logistic scale.
    """

    arms: int
    seeds: int
    questions: tuple[int, ...]
    repeats: int
    noise: float
    shared: float = 0.0
    ease: float = -0.5

    def table(self, rng: np.random.Generator, effect: float) -> Outcomes:
        """Simulate one study in which arm 1 differs by the effect, and no other arm does."""
        effects = np.zeros(self.arms)
        effects[1] = effect
        shared = rng.normal(0, self.shared if self.noise else 0, self.seeds)
        level = effects[:, None] + rng.normal(0, self.noise, (self.arms, self.seeds)) + shared
        means = {}
        for number, n in enumerate(self.questions):
            hard = rng.normal(self.ease, SPREAD, n)
            taste = rng.normal(0, TASTE, (self.arms, 1, n))
            chance = 1 / (1 + np.exp(-(level[:, :, None] + hard + taste)))
            means[str(number)] = rng.binomial(self.repeats, chance) / self.repeats
        blank = dict.fromkeys(means, np.full(self.arms, math.nan))
        attempt = dict.fromkeys(means, 1 / (self.seeds * self.repeats))
        arms, seeds = tuple(map(str, range(self.arms))), tuple(range(self.seeds))
        return Outcomes(arms, seeds, means, blank, attempt)

    def truth(self, effect: float) -> float:
        """Return the accuracy of an arm with the effect, over all questions and seeds."""
        rng = np.random.default_rng(1)
        sd = math.sqrt(SPREAD**2 + TASTE**2 + self.noise**2 + (self.shared**2 if self.noise else 0))
        return float((1 / (1 + np.exp(-(rng.normal(self.ease, sd, 1_000_000) + effect)))).mean())


SIZES = ((2, 2), (2, 3), (3, 2), (2, 5), (3, 3), (5, 2), (5, 3), (8, 2), (8, 5))
WORLDS = (
    *(World(*size, (540,), 2, noise) for size in SIZES for noise in (0, 0.05, 0.2)),
    *(World(*size, (540,), 2, noise) for size in ((2, 3), (5, 3)) for noise in (0.02, 0.1)),
    *(World(2, 3, (n,), repeats, 0.05) for n, repeats in ((100, 1), (540, 10), (2000, 1))),
    *(World(*size, (30, 30, 40), 10, 0.1) for size in ((2, 3), (3, 2), (5, 3))),
    World(2, 2, (2000,), 10, 0.2),
    World(2, 3, (2000,), 10, 0.2),
    World(5, 3, (100,), 1, 0.05),
    World(8, 5, (30, 500), 4, 0.1),
    World(8, 3, (2000,), 1, 0.02),
    *(
        World(*size, (540,), 2, 0.05, shared)
        for size in ((2, 2), (2, 3), (3, 2), (5, 3))
        for shared in (0.1, 0.3)
    ),
    World(2, 1, (540,), 2, 0),
    World(5, 1, (30, 30, 40), 10, 0),
    World(5, 1, (540,), 2, 0.05),
)

HARD = tuple(
    World(2, seeds, (questions,), repeats, 0.05, ease=ease)
    for seeds, questions, repeats in ((3, 30, 2), (1, 30, 1), (3, 100, 1), (3, 540, 2))
    for ease in (-5.0, -6.5)
)
HARD_HEADER = (
    "right, %", "of the other arm", "seeds", "questions", "repeats", "all alike", "holds",
    "half width, points", "holds without the least",
)  # fmt: skip

HEADER = (
    "arms", "seeds", "questions", "repeats", "training noise", "of all arms alike",
    "interval of a difference holds",
    "interval of a score holds", "false claims", "best arm kept", "true difference seen",
    "half width, points", "with known noise", "bootstrap holds",
)  # fmt: skip


def measure(world: World, studies: int) -> list[str]:
    """Return the cells of one line."""
    rng = np.random.default_rng(0)
    effect = 0.3
    truth = world.truth(effect) - world.truth(0)
    own = world.truth(effect)
    held = held_score = held_boot = claims = sees = kept = 0
    boots = max(1, studies // 4) if world.questions == (540,) else 0
    halves, values = [], []
    for number in range(studies):
        outcomes = world.table(rng, effect)
        first = next(d for d in differences(outcomes) if d.benchmark is None)
        held += first.estimate.low <= truth <= first.estimate.high
        halves.append((first.estimate.high - first.estimate.low) / 2)
        values.append(first.estimate.value)
        sees += first.verdict() == 1
        score = next(s for s in scores(outcomes) if s.benchmark is None and s.arm == "1")
        held_score += score.estimate.low <= own <= score.estimate.high
        if number < boots:
            table = outcomes.means["0"][1] - outcomes.means["0"][0]
            low, high = bootstrap(table, draws=400, seed=number)
            held_boot += low <= truth <= high
        same = world.table(rng, 0.0)
        claims += any(d.verdict() for d in differences(same) if d.benchmark is None)
        # All arms are alike, so arm 1 is as good as the best and should stay.
        kept += "1" in not_worse(same)
    return [
        str(world.arms),
        str(world.seeds),
        " + ".join(f"{n:,}" for n in world.questions),
        str(world.repeats),
        f"{world.noise:g}",
        f"{world.shared if world.noise else 0:g}",
        *(f"{100 * n / studies:.1f}" for n in (held, held_score, claims, kept, sees)),
        f"±{100 * np.mean(halves):.1f}",
        f"±{196 * np.std(values):.1f}",
        f"{100 * held_boot / boots:.1f}" if boots else "",
    ]


def measure_hard(world: World, studies: int) -> list[str]:
    """Return the cells of a line on questions of which few are right."""
    rng = np.random.default_rng(0)
    effect = 1.0
    right, other = world.truth(0), world.truth(effect)
    alike = held = before = 0
    halves = []
    for _ in range(studies):
        outcomes = world.table(rng, effect)
        one, two = outcomes.means["0"].mean(axis=1)
        alike += np.ptp(two - one) == 0
        (found,) = differences(outcomes)
        held += found.estimate.low <= other - right <= found.estimate.high
        halves.append((found.estimate.high - found.estimate.low) / 2)
        (found,) = differences(replace(outcomes, attempt={}))
        before += found.estimate.low <= other - right <= found.estimate.high
    return [
        f"{100 * right:.1f}", f"{100 * other:.1f}", str(world.seeds), f"{world.questions[0]:,}",
        str(world.repeats), f"{100 * alike / studies:.0f}", f"{100 * held / studies:.1f}",
        f"±{100 * np.mean(halves):.1f}", f"{100 * before / studies:.1f}",
    ]  # fmt: skip


def write(lines: list[list[str]], studies: int) -> None:
    """Write the table into the page."""
    note = (
        f"{studies:,} simulated studies in each line; shares in percent, with a standard error of "
        f"{100 * math.sqrt(0.05 * 0.95 / studies):.1f} at 95 or 5."
    )
    _put(START, END, [note, "", *_table(HEADER, lines)])


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (header, ["---:"] * len(header), *lines)]


def _put(start: str, end: str, block: Sequence[str]) -> None:
    before, rest = PAGE.read_text("utf-8").split(start)
    text = "\n".join([start, "", *block, "", end])
    PAGE.write_text(before + text + rest.split(end, 1)[1], "utf-8")


def main() -> None:
    """Print the table, and write it into the page if told to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=2_000)
    parser.add_argument("--hard", action="store_true", help="only where little is right")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    hard = [measure_hard(world, given.studies) for world in HARD]
    print("\n".join(" | ".join(line) for line in (HARD_HEADER, *hard)), flush=True)
    if given.write:
        _put(HARD_START, HARD_END, _table(HARD_HEADER, hard))
    if given.hard:
        return
    print(" | ".join(HEADER))
    lines = []
    for world in WORLDS:
        lines.append(measure(world, given.studies))
        print(" | ".join(lines[-1]), flush=True)
    if given.write:
        write(lines, given.studies)


if __name__ == "__main__":
    main()
